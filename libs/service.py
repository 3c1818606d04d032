"""What a service is: a name, a store, a context, and a table of handlers. The runtime does the rest.

A handler takes events and a context and gives back what follows from them. It names no topic, key, retry or transaction.

- `Each(Payload, on_x)`: `on_x(event, ctx) -> [payload, …]`, one event at a time, for the control plane.
- `Batch(Payload, on_xs)`: `on_xs(events, ctx) -> [Derived, …]`, everything that was read at once, for the data plane; of a
  topic that carries the clock (ClockAdvanced), its records stand among the events.
- `Merge(payloads, on_released)`: as Batch, but the events of several topics in event-time order (evenkeel.libs.runtime.merge).
- `Stateless(Payload, Output, on_xs)`: one payload or None per event, shared by replicas, for scoring.
- `Raw(on_records)`: records as they are, for topics outside the map (ingest) or for all of them (governance).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import msgspec

from evenkeel.contracts.envelope import Event, Record
from evenkeel.contracts.payload import Payload
from evenkeel.libs.bus.protocol import PROMPT, Bus, FetchSettings, TopicPartition
from evenkeel.libs.clock import Clock
from evenkeel.libs.routes import Routes
from evenkeel.libs.settings import OwnSettings, Settings
from evenkeel.libs.store.protocol import Store, Transaction
from evenkeel.libs.telemetry.metrics import Metrics
from evenkeel.libs.telemetry.tracing import BatchTrace, Tracing

if TYPE_CHECKING:
    from prometheus_client.registry import Collector


class Cause(msgspec.Struct, frozen=True, gc=False):
    """Why an event was derived, when that is not an event itself: a command, a tick, a finished job, a raw record."""

    id: str
    time_us: int
    correlation_id: str
    traceparent: str | None = None


class Derived(msgspec.Struct, frozen=True, gc=False):
    """A payload to publish, and what it follows from. Id, event time, correlation and trace are the cause's unless said;
    `order_us` is when it takes its turn among the others, if that is not its own time.

    A struct, as Cause is, because a frozen dataclass costs ten times as much and there is one per event.
    """

    payload: Payload
    cause: Event[Any] | Cause
    time_us: int | None = None
    id: str | None = None
    stream: str | None = None
    order_us: int | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """Tells every partition of a payload's topic: nothing of this stream with an order before `time_us` follows. The runtime
    says it behind everything else of the transaction, one record for all streams."""

    payload: type[Payload]
    stream: str
    time_us: int


@dataclass(frozen=True, slots=True)
class Seal:
    """Told on every partition that this service writes to: nothing that these stores say behind it counts."""

    stores: Sequence[str]


Output = Derived | Watermark | Seal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Reply(Generic[T]):
    """What a command answers its caller, and what it publishes."""

    answer: T
    outputs: Sequence[Output] = ()


class Context:
    """What handlers see. A service derives its own, with its named queries and caches.

    Caches must be rebuilt by `load`: the runtime calls it at start and after every transaction that did not commit.
    """

    tx: Transaction
    """The transaction of this batch."""
    now_us: int
    """Wall time at the start of this batch."""
    service: str
    settings: Settings
    own: Any
    trace: BatchTrace | None = None
    """The spans of this batch; None outside of one."""
    positions: Mapping[TopicPartition, int]
    """Up to where each input was read before this batch."""
    published_before: Sequence[Event[Any]] = ()
    """While the store is rebuilt: what this service said on its control topics before it lost it."""

    def load(self, tx: Transaction) -> None:
        """Read caches from the store."""

    def committed(self) -> None:
        """Called after each commit, for caches that must not run ahead of the store."""

    def raw_topics(self) -> Mapping[str, int]:
        """Topics outside the map that this service reads now, with the partitions to create them with."""
        return {}

    def assigned(self, partitions: Mapping[str, int]) -> None:
        """The raw topics that are read from here on, with the partitions they have; before their first record comes."""

    def require(self, event: Event[Any]) -> None:
        """Raises NotYet if a fact that this event names has not been folded yet; called before the event is merged.

        Facts are published before the records that name them: one that is not on the control topics when they are read
        to their end never comes, and the record becomes a dead letter.
        """

    def merge_groups(self) -> Iterable[frozenset[tuple[type[Payload], str]]]:
        """Which (payload, stream) inputs are merged with which: each set is released by its own watermark."""
        return ()


C = TypeVar("C", bound=Context)
C_co = TypeVar("C_co", bound=Context, covariant=True)


class Host(Protocol[C_co]):
    """What a service's routes and background work may ask of the runtime that runs it, on the event loop."""

    @property
    def instance(self) -> str:
        """This process, among those that may run the same service."""

    @property
    def settings(self) -> Settings: ...

    @property
    def own(self) -> Any:
        """The service's own settings."""

    @property
    def context(self) -> C_co:
        """The writer thread's; outside of it only for what the service itself says may be read there."""

    @property
    def bus(self) -> Bus: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def metrics(self) -> Metrics: ...

    @property
    def tracing(self) -> Tracing: ...

    @property
    def store_ids(self) -> tuple[str, ...]:
        """The id of the service's store, and those of the stores whose place it has taken."""

    @property
    def not_ready_reason(self) -> str | None:
        """Why the service is not ready; None when it is."""

    @property
    def has_caught_up(self) -> bool:
        """Whether the store is loaded and every fact is read that there was at the start: what is unknown until then may
        be known in a moment."""

    @property
    def stopping(self) -> bool: ...

    async def command(self, handler: Callable[[C_co], Reply[T]], shard: str = "http") -> T:
        """Run a handler in a transaction of its own. What it answers is given back once it is committed and published.

        While the store is rebuilt there are no commands: what they are about is not there yet.

        Raises Refused if the handler does (nothing has changed then), and Retry if the store is away or the outbox full.
        """

    async def query(self, question: Callable[[Any], T]) -> T:
        """Read the store in another thread than the writer's; `question` gets the engine's handle on a snapshot."""

    async def in_writer(self, look: Callable[[C_co], T]) -> T:
        """What `look` finds in the context, in the writer thread, between transactions."""

    async def record(self, outputs: Sequence[Output]) -> None:
        """Publish facts that change no state of ours (predictions). Returns once they are committed to the outbox;
        whatever is asked for at the same time shares one transaction. Raises Retry if they cannot be kept."""


@dataclass(frozen=True, slots=True)
class Each(Generic[C]):
    payload: type[Payload]
    handler: Callable[[Event[Any], C], Iterable[Payload | Output]]


@dataclass(frozen=True, slots=True)
class Batch(Generic[C]):
    payload: type[Payload]
    handler: Callable[[Sequence[Event[Any]], C], Iterable[Output]]


@dataclass(frozen=True, slots=True)
class Released:
    """What a merge hands over: events in order, and the watermark below which nothing will come any more."""

    events: Sequence[Event[Any]]
    watermark_us: int
    group: frozenset[tuple[type[Payload], str]]


@dataclass(frozen=True, slots=True)
class Merge(Generic[C]):
    payloads: tuple[type[Payload], ...]
    handler: Callable[[Released, C], Iterable[Output]]


@dataclass(frozen=True, slots=True)
class Raw(Generic[C]):
    handler: Callable[[Sequence[Record], C], Iterable[Output]]
    every_topic: bool = False
    """All topics of the map that this service consumes, undecoded, rather than `Context.raw_topics`."""


@dataclass(frozen=True, slots=True)
class Stateless(Generic[C]):
    """One output at most per input and no state: replicas share the partitions (evenkeel.libs.runtime.stateless).

    The handler runs outside any transaction and may only read what the context keeps for it.
    """

    payload: type[Payload]
    output: type[Payload]
    handler: Callable[[Sequence[Event[Any]], C], Sequence[Payload | None]]
    id_of: Callable[[str], str]
    """The id of the output from that of its input."""


Handler = Each[C] | Batch[C] | Merge[C] | Raw[C] | Stateless[C]

Order = Sequence[tuple[str, int, int]]
"""(topic, partition, how many records), one run after another."""


def _nothing(ctx: Any) -> Sequence[Output]:
    return ()


@dataclass(frozen=True, slots=True)
class Rebuild(Generic[C]):
    """How a lost store comes back (evenkeel.libs.runtime.rebuild): its inputs are read again from their beginnings, and what was
    published before is not published again. Whatever does not follow from the inputs follows from what is here."""

    fold: Callable[[Sequence[Event[Any]], C], None] = lambda published, ctx: None
    """Takes all that this service has ever said on its control topics, in the order in which it was said, in the first
    transaction of the new store."""
    finished: Callable[[C], Iterable[Output]] = _nothing
    """Called in the last transaction; says what is to be said on compacted topics, which are silent until then."""
    order: Callable[[Sequence[Event[Any]]], Order] = lambda published: ()
    """The order in which the first records are to be read again, if that matters."""
    forgotten: str = ""
    """What does not come back, for people."""


@dataclass(frozen=True, slots=True)
class Service(Generic[C]):
    """The declaration of one service (`services/<name>/service.py`)."""

    name: str
    settings: type[OwnSettings]
    open_store: Callable[[Settings], Store]
    context: Callable[[Settings, Any], C]
    handlers: tuple[Handler[C], ...]
    routes: Callable[[Host[Any]], Routes] = lambda host: Routes()
    """Thin answers to the rows of `contracts/http/<name>.py`, over `Host.command` and `Host.query`."""
    metrics: Callable[[C], Collector] | None = None
    """What is measured beside the runtime's own metrics; declared in the service's `metrics.py`."""
    on_tick: Callable[[C], Iterable[Output]] | None = None
    """Called about once a second of wall time, in a transaction of its own."""
    background: Sequence[Callable[[Host[Any]], Awaitable[None]]] = field(default_factory=tuple)
    """Tasks of the event loop that live as long as the service: jobs, the stateless scorer. They start when it is ready."""
    asgi: Callable[[Host[Any], Any], Any] | None = None
    """Wraps the HTTP application, for a raw hot path in front of it."""
    one_store: bool = True
    """False: each replica has a store of its own, and all of them publish side by side."""
    rebuild: Rebuild[C] | None = None
    """None: `evenkeel rebuild` refuses, because this store cannot be made again from the topics."""
    fetch: FetchSettings = PROMPT
    """A service that nobody waits for reads fuller batches: most of a small one's cost is its transaction."""
