"""Step 5 of the consume loop: the handlers of one batch, and what becomes of an event that one of them cannot take.

Facts first, one by one; then what is handled in batches, then what is merged (merging.py), then raw records,
and in the end the dead letters of the whole batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from evenkeel.contracts.envelope import Event, Record
from evenkeel.contracts.payload import Payload
from evenkeel.libs.errors import EvenkeelError, NotYet
from evenkeel.libs.runtime.attempt import Attempt, HandlerFailed
from evenkeel.libs.runtime.dead_letters import dead_letter
from evenkeel.libs.runtime.held import Where
from evenkeel.libs.runtime.intake import ReadBatch
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.service import Context, Derived, Raw

C = TypeVar("C", bound=Context)


def place_of(event: Event[Any]) -> Where:
    return event.topic, event.partition, event.offset


class Handling(Generic[C]):
    """One batch in the hands of its handlers; belongs to its transaction."""

    def __init__(
        self, routes: Routes[C], context: C, attempt: Attempt, batch: ReadBatch, held: Callable[[Where], Record]
    ) -> None:
        """`held`: a record of a former batch that a handler may be given now."""
        self._routes, self._held = routes, held
        self.context, self.attempt, self.batch = context, attempt, batch

    def record_at(self, where: Where) -> Record:
        return self.batch.by_place.get(where) or self._held(where)

    def control(self, builder: OutputBuilder) -> None:
        """One by one in the broker's time; one that names a fact which stands behind it, as clocks of several brokers or
        one millisecond allow, takes its turn after that."""
        left = [event for _, event in self.batch.control]
        while left:
            waiting: list[tuple[Event[Any], NotYet]] = []
            for event in left:
                try:
                    self.call(partial(self._handle_one, event, builder), event, alone=False)
                except NotYet as error:
                    waiting.append((event, error))
            if len(waiting) == len(left):
                for event, lacking in waiting:
                    self._lacks_fact(event, lacking)
                return
            left = [event for event, _ in waiting]

    def _handle_one(self, event: Event[Any], builder: OutputBuilder) -> None:
        handler = self._routes.each[self._routes.current(event.topic)].handler
        produced = list(handler(event, self.context))
        builder.add((Derived(p, event) if isinstance(p, Payload) else p for p in produced), event.topic)

    def batches(self, builder: OutputBuilder) -> None:
        """Each topic's events at once, or one by one while we look for the one that fails."""
        isolate = self.attempt.isolate
        for topic, events in self.batch.data.items():
            if topic in self._routes.merged:
                continue
            many = self._routes.batch[topic].handler
            for group in [[event] for event in events] if isolate else [events]:
                self.call(lambda: builder.add(list(many(group, self.context)), topic), group[0], alone=isolate)

    def raw(self, raw: Raw[C], builder: OutputBuilder) -> None:
        by_topic: dict[str, list[Record]] = {}
        for record in self.batch.raw:
            by_topic.setdefault("log" if raw.every_topic else record.topic, []).append(record)
        for shard, group in by_topic.items():
            builder.add(list(raw.handler(group, self.context)), shard)

    def dead_letters(self, builder: OutputBuilder) -> Counter[str]:
        """Tell what nobody here could use; how many records of each topic that were."""
        for record, reason in self.batch.dead:
            builder.add([dead_letter(self.context.service, record, reason)], "dead-letter")
        return Counter(record.topic for record, _ in self.batch.dead)

    def call(self, step: Callable[[], None], event: Event[Any], *, alone: bool) -> bool:
        """Run one handler. `alone`: on this event only, so that what it raises is about this event. False if that names a
        fact that will not come."""
        try:
            step()
        except NotYet as error:
            if not alone:
                raise
            self._lacks_fact(event, error)
            return False
        except EvenkeelError:
            raise
        except Exception as error:
            if self.attempt.isolate:
                raise HandlerFailed(event.id, place_of(event), error) from error
            raise
        return True

    def _lacks_fact(self, event: Event[Any], error: NotYet) -> None:
        """A dead letter if the fact cannot come any more."""
        where = error.where = place_of(event)
        if not self.attempt.knows_facts_of(where):
            raise error
        self.batch.dead.append((self.record_at(where), f"unknown fact: {error}"))
        self.batch.failures.append(True)
