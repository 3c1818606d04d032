"""Which topic of a service goes to which of its handlers: made once from its declaration, and never changed."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from evenkeel.contracts.payload import Payload
from evenkeel.contracts.superseded import Superseded, former_majors
from evenkeel.contracts.topics import Plane, Topic, consumed_by
from evenkeel.libs.errors import Stop
from evenkeel.libs.service import Batch, Context, Each, Merge, Raw, Service, Stateless

C = TypeVar("C", bound=Context)


class Routes(Generic[C]):
    """Read by the event loop and the writer thread alike; nobody writes to it."""

    def __init__(self, service: Service[C]) -> None:
        consumed = consumed_by(service.name)
        topics: dict[type[Payload], Topic] = {topic.payload: topic for topic in consumed}
        self.each: Final[dict[str, Each[C]]] = {}
        self.batch: Final[dict[str, Batch[C]]] = {}
        self.merge: Merge[C] | None = None
        self.merged: dict[str, Topic] = {}
        """The topics that are merged in event time."""
        self.raw: Raw[C] | None = None
        self.stateless: Final[list[Stateless[C]]] = []
        scored: set[type[Payload]] = set()
        for handler in service.handlers:
            match handler:
                case Each(payload=payload):
                    self.each[topics[payload].name] = handler
                case Batch(payload=payload):
                    self.batch[topics[payload].name] = handler
                case Merge(payloads=payloads):
                    self.merge = handler
                    self.merged |= {topics[payload].name: topics[payload] for payload in payloads}
                case Raw():
                    self.raw = handler
                case Stateless(payload=payload):
                    self.stateless.append(handler)
                    scored.add(payload)
        self.logs_all: Final = self.raw is not None and self.raw.every_topic
        """Every topic is taken undecoded."""
        self.former: Final = [former for topic in consumed for former in former_majors(topic.name)]
        """Former majors of what this service consumes."""
        self.decoded: Final = consumed
        """The topics whose records are events of ours."""
        self.folded: Final = [topic for topic in consumed if topic.payload not in scored]
        """The topics that are read from the store's own positions."""
        control = {topic.name for topic in consumed if topic.plane is Plane.CONTROL and not self.logs_all}
        control |= {former.name for former in self.former if former.current in control}
        self.control: Final[frozenset[str]] = frozenset(control)
        """The topics of facts, which are read to their end before anything else."""
        self._current: Final = {former.name: former.current for former in self.former}
        for former in self.former:
            self._refuse_if_ordered(former, {topics[payload].name for payload in scored})

    def _refuse_if_ordered(self, former: Superseded, scored: set[str]) -> None:
        if former.current in self.merged or former.current in scored:
            raise Stop(
                f"{former.name} cannot be read as {former.current}: events merged or scored in order have one major"
            )

    def current(self, topic: str) -> str:
        """The topic as which a former major is read; any other is itself."""
        return self._current.get(topic, topic) if self._current else topic
