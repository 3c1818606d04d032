"""A service's own transactions over records that a test lists, on its real store, without a broker.

Given records and commands, when they are consumed, then see what is said. Nothing stands in for the broker: what drives a
running service's transactions (evenkeel.libs.runtime.consuming) is left out, and the test is in its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from evenkeel.contracts.envelope import Event, Record, parse_us
from evenkeel.contracts.payload import Caller, Payload
from evenkeel.contracts.topics import published_by, topics_carrying
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.runtime.attempt import Attempt
from evenkeel.libs.runtime.consuming import Processing
from evenkeel.libs.runtime.decoding import Decoder, open_envelope
from evenkeel.libs.runtime.lease import Lease
from evenkeel.libs.runtime.publishing import Acknowledged
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.runtime.transaction import Committed, Transactions, context_of
from evenkeel.libs.runtime.waiting import Persistence, Readiness, StopSignal
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.service import Context, Reply, Service
from evenkeel.libs.settings import Settings
from evenkeel.libs.store.protocol import Store
from evenkeel.libs.telemetry.metrics import Metrics
from evenkeel.libs.telemetry.tracing import Tracing
from tests.records import ReadRecord, Topics

C = TypeVar("C", bound=Context)
T = TypeVar("T")
NOW_US: Final = parse_us("2026-06-01T00:00:00Z")
"""Wall time, unless a test says another: thirteen years behind the events that most tests replay."""

CALLER: Final = Caller(name="dana", role="operator")
"""Who commands, in these tests."""


class ManualClock:
    """Wall time that tests move."""

    def __init__(self, us: int = NOW_US) -> None:
        self.us = us

    def now_us(self) -> int:
        return self.us


class Harness(Generic[C]):
    """Each call is one transaction, as the runtime makes them; one that raises leaves nothing."""

    def __init__(
        self,
        service: Service[C],
        data_dir: Path,
        own: Any = None,
        *,
        database_url: str | None = None,
        clock: ManualClock | None = None,
        instance: str = "test",
    ) -> None:
        self.service, self.data_dir, self.instance = service, data_dir, instance
        self.settings = Settings(data_dir=data_dir, database_url=database_url)
        self.own = service.settings() if own is None else own
        self.clock = clock or ManualClock()
        self.topics = Topics()
        """What `hear` was told."""
        self.records: list[OutgoingRecord] = []
        """What was said, in the order in which it was committed."""
        self._last_row = 0
        self._said: list[Event[Any]] = []
        self._decoder = Decoder(published_by(service.name))
        self._open()

    def _open(self) -> None:
        self.store: Store = self.service.open_store(self.settings)
        self.context: C = context_of(self.service, self.settings, self.own)
        self.acknowledged = Acknowledged()
        self.metrics = Metrics(self.service.name)
        self.routes = Routes(self.service)
        self.transactions = Transactions(
            self.routes,
            self.context,
            self.store,
            Lease(self.store, self.clock, self.instance),
            self.acknowledged,
            self.clock,
            Tracing(self.service.name, self.instance),
            self.metrics.batch_seconds,
        )
        self.store.open()
        assert self.transactions.lease.take()
        self.transactions.load()

    def restart(self) -> None:
        """Forget everything that is not in the store."""
        self.close()
        self._open()

    def close(self) -> None:
        self.store.close()

    # -- when -----------------------------------------------------------------------------------------------------------

    def consume(self, records: Sequence[Record] | Attempt) -> Committed:
        """One batch; raises what the handlers raise, with everything rolled back."""
        attempt = records if isinstance(records, Attempt) else Attempt(records)
        try:
            committed = self.transactions.consume(attempt)
        except BaseException:
            self.transactions.load()
            raise
        self._take(committed)
        return committed

    def _take(self, committed: Committed) -> None:
        if committed.row is not None:
            self._add_row(committed.row, committed.row_bytes, committed.records)

    def process(self, records: Sequence[Record], facts: Sequence[Record] = ()) -> None:
        """As the loop does: until it is committed, whatever it takes. `facts` is what the control topics hold beyond these
        records, for whoever has to wait for a fact."""

        async def added(read: Sequence[Record]) -> tuple[Sequence[Record], dict[tuple[str, int], int]]:
            together = [*read, *facts]
            control = [one for one in together if one.topic in self.routes.control]
            return together, {(one.topic, one.partition): one.offset + 1 for one in control}

        async def run() -> None:
            readiness = Readiness(self.metrics.ready)
            persist = Persistence(StopSignal(), readiness, self.metrics.retries)
            writer = Writer(self.transactions, self._add_row, self.metrics, persist)
            try:
                await Processing(writer, added, self.metrics.retries, readiness).process(records)
            finally:
                writer.close()

        asyncio.run(run())

    def _add_row(self, row: int, size: int, records: list[OutgoingRecord]) -> None:
        """An outbox row; after a transaction that failed, all that wait are named again."""
        if row > self._last_row:
            self.records += records
            self._last_row = row

    def command(self, handler: Callable[[C], Reply[T]], shard: str = "http") -> T:
        """What a command, a tick or a finished job answers."""
        try:
            committed, answer = self.transactions.run(handler, shard)
        except BaseException:
            self.transactions.load()
            raise
        self._take(committed)
        return answer

    def hear(self, payload: Payload, time: str) -> list[Any]:
        """The payloads that follow from one fact of this event time, as its producer would say it."""
        (topic,) = topics_carrying(type(payload))
        before = len(self.records)
        self.consume(self.topics.fact(topic.producer, payload, time))
        return [event.data for event in self.said[before:] if isinstance(event, Event)]

    def reply(self, handler: Callable[[C], Reply[T]], shard: str = "http") -> Reply[T]:
        """As `command`, with the outputs as the handler gave them."""
        replies: list[Reply[T]] = []

        def noted(ctx: C) -> Reply[T]:
            replies.append(handler(ctx))
            return replies[0]

        self.command(noted, shard)
        return replies[0]

    def ask(self, question: Callable[[C], T]) -> T:
        """What `question` finds, or does, in a transaction of its own that says nothing."""
        return self.command(lambda ctx: Reply(question(ctx)))

    def query(self, question: Callable[[Any], T]) -> T:
        """As a route asks; `question` gets the engine's handle on a snapshot."""
        with self.store.reading() as snapshot:
            return question(snapshot)

    # -- then -----------------------------------------------------------------------------------------------------------

    @property
    def said(self) -> list[Event[Any]]:
        """Everything that was said, decoded, record by record."""
        self._said += [self._decoded(record) for record in self.records[len(self._said) :]]
        return self._said

    def events(self, payload: type[Payload]) -> list[Event[Any]]:
        """The events of one payload, in the order in which they were committed."""
        return [one for one in self.said if isinstance(one.data, payload)]

    def payloads(self, payload: type[Payload]) -> list[Any]:
        return [event.data for event in self.events(payload)]

    def _decoded(self, record: OutgoingRecord) -> Event[Any]:
        read = ReadRecord(record.topic, record.partition, 0, record.key, record.value, record.headers)
        return self._decoder.decode(read, open_envelope(read))
