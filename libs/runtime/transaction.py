"""Steps 2 to 8 of the consume loop: one transaction over what was read, or over a command."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import msgspec
from prometheus_client import Histogram

from evenkeel.contracts.envelope import Event, Record
from evenkeel.libs.bus.protocol import OutgoingRecord, TopicPartition
from evenkeel.libs.clock import Clock
from evenkeel.libs.errors import Refused, Storm
from evenkeel.libs.runtime.attempt import Attempt
from evenkeel.libs.runtime.decoding import Decoder, open_envelope
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.handling import Handling
from evenkeel.libs.runtime.intake import Intake, ReadBatch
from evenkeel.libs.runtime.lease import Lease
from evenkeel.libs.runtime.merge import Group
from evenkeel.libs.runtime.merging import Merging
from evenkeel.libs.runtime.outputs import OutputBuilder, Published, pack
from evenkeel.libs.runtime.publishing import Acknowledged
from evenkeel.libs.runtime.repeats import Repeats
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.service import Context, Output, Reply, Service
from evenkeel.libs.settings import Settings
from evenkeel.libs.store.protocol import Store, Transaction
from evenkeel.libs.telemetry.tracing import BatchTrace, Tracing

C = TypeVar("C", bound=Context)
T = TypeVar("T")

STORM_WINDOW: Final = 500
STORM_RATIO: Final = 0.05


@dataclass(slots=True)
class Committed:
    """What one transaction did, for those outside the writer thread."""

    row: int | None
    """The outbox row; None: nothing was said."""
    row_bytes: int
    records: list[OutgoingRecord]
    positions: Mapping[TopicPartition, int] = field(default_factory=dict)
    """Of the partitions that were read."""
    consumed: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    dead_lettered: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store and the context say between two transactions, for those outside the writer thread."""

    held: int
    """Records that the event-time merge holds."""
    parked: int
    raw_topics: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is read at start, and again after every transaction that did not commit."""

    positions: Mapping[TopicPartition, int]
    outbox: Sequence[tuple[int, bytes]]
    rebuild: bytes | None


def context_of(service: Service[C], settings: Settings, own: Any) -> C:
    """The service's context, with what it may know from the start."""
    context = service.context(settings, own)
    context.service, context.settings, context.own = service.name, settings, own
    return context


class Transactions(Generic[C]):
    """A store, the context over it, and what the runtime keeps there. Belongs to the writer thread: writer.py is the only way
    to it."""

    def __init__(
        self,
        routes: Routes[C],
        context: C,
        store: Store,
        lease: Lease,
        acknowledged: Acknowledged,
        clock: Clock,
        tracing: Tracing,
        batch_seconds: Histogram,
    ) -> None:
        self.store, self.lease, self.context = store, lease, context
        self._routes, self._acknowledged, self._clock = routes, acknowledged, clock
        self._tracing, self._batch_seconds = tracing, batch_seconds
        self._decoder = Decoder(routes.decoded, routes.former)
        self._repeats = Repeats()
        self._intake = Intake(routes, self._decoder, self._repeats)
        self.merging = Merging(routes, context)
        self._positions: dict[TopicPartition, int] = {}
        self.sequences: dict[str, int] = {}
        """The last sequence of each shard."""
        self._recent_failures: deque[bool] = deque(maxlen=STORM_WINDOW)
        self._is_stale = False
        """A transaction failed, and nobody has loaded since: caches may hold what was rolled back."""
        self._published: Published | None = None
        """Only while the store is rebuilt."""

    # -- between transactions ---------------------------------------------------------------------------------------

    def load(self) -> Loaded:
        """Read everything the runtime keeps, and let the context read its caches."""
        state = self.store.read_state()
        self._positions, self.sequences = dict(state.positions), dict(state.sequences)
        self._repeats.load(state.marks)
        with self.store.begin() as tx:
            self._enter(tx)
            self.context.load(tx)
        self.merging.load(state, self._stored_event)
        self._is_stale = False
        return Loaded(dict(state.positions), state.outbox, state.rebuild)

    def load_after_another(self) -> Loaded:
        """As `load`, when another instance may have written meanwhile: which rows it published it knows."""
        self._acknowledged.clear()
        return self.load()

    def _refresh(self) -> None:
        """Whoever had a transaction that failed loads before its next; one that somebody else asked for may come first."""
        if self._is_stale:
            self.load()

    def _stored_event(self, record: Record) -> Event[Any]:
        return self._decoder.decode(record, open_envelope(record))

    def _enter(self, tx: Transaction) -> None:
        self.context.tx = tx
        self.context.now_us = self._clock.now_us()
        self.context.positions = self._positions

    def kept(self) -> Kept:
        return Kept(self.merging.held_records, self.merging.parked_records, dict(self.context.raw_topics()))

    # -- transactions -----------------------------------------------------------------------------------------------

    def consume(self, attempt: Attempt) -> Committed:
        """One transaction over what was read. Raises what errors.py says; nothing has happened then."""
        self._refresh()
        trace = self._tracing.batch()
        with self._batch_seconds.time():
            try:
                with self.store.begin() as tx:
                    failpoint("loop.begun")
                    self._enter(tx)
                    self.context.trace = trace
                    self.lease.hold(tx)
                    batch = self._intake.read(attempt, self._positions)
                    builder = self._builder(trace)
                    dead_lettered = self._handle(attempt, batch, builder, tx)
                    self._check_storm(attempt, batch)
                    failpoint("loop.handled")
                    committed = self._say(builder, tx)
                    tx.put_marks(batch.marks)
                    tx.move_positions(batch.moves)
                    failpoint("loop.positions")
            except BaseException as error:
                self._is_stale = True
                trace.finish(error)
                raise
        failpoint("loop.committed")
        trace.finish()
        self._repeats.committed(batch.marks)
        self._recent_failures.extend(batch.failures + [True] * len(attempt.poison))
        committed.positions = {tp: hi for tp, (_, hi) in batch.moves.items()}
        self._positions |= committed.positions
        self._after_commit(builder)
        committed.consumed, committed.repeated = batch.consumed, batch.repeated
        committed.dead_lettered = dead_lettered
        return committed

    def run(self, handler: Callable[[C], Reply[T]], shard: str) -> tuple[Committed, T]:
        """One transaction of a command, a tick or a finished job. A handler that raises Refused has changed nothing."""
        self._refresh()
        trace = self._tracing.batch()
        try:
            with self.store.begin() as tx:
                self._enter(tx)
                self.lease.hold(tx)
                builder = self._builder(trace)
                reply = handler(self.context)
                builder.add(reply.outputs, shard)
                committed = self._say(builder, tx)
        except Refused:
            raise
        except BaseException:
            self._is_stale = True
            raise
        trace.finish()
        self._after_commit(builder)
        return committed, reply.answer

    def release_parked(self, group: Group | None, key: bytes, shard: str) -> tuple[Committed, int]:
        """A command that folds the queue of a parked key, all or nothing; raises HandlerFailed if it fails again."""
        return self.run(lambda ctx: Reply(*self.merging.release_parked(group, key, ctx.tx)), shard)

    def housekeep(self) -> None:
        """Keep the lease and delete published rows while there is nothing to consume."""
        with self.store.begin() as tx:
            self.lease.hold(tx)
            self._acknowledged.delete(tx)
        self._acknowledged.deleted()

    def _builder(self, trace: BatchTrace) -> OutputBuilder:
        store_id, now_us = self.store.store_id, self.context.now_us
        return OutputBuilder(self.context.service, store_id, self.sequences, now_us, trace, self._published)

    def _handle(self, attempt: Attempt, batch: ReadBatch, builder: OutputBuilder, tx: Transaction) -> Counter[str]:
        """Step 5; how many records of each topic became dead letters."""
        handling = Handling(self._routes, self.context, attempt, batch, self.merging.held_record)
        handling.control(builder)
        handling.batches(builder)
        if self._routes.merge is not None:
            self.merging.run(self._routes.merge, handling, builder, tx)
        if self._routes.raw is not None:
            handling.raw(self._routes.raw, builder)
        return handling.dead_letters(builder)

    def _check_storm(self, attempt: Attempt, batch: ReadBatch) -> None:
        failed = sum([*self._recent_failures, *batch.failures][-STORM_WINDOW:]) + len(attempt.poison)
        if failed > STORM_RATIO * STORM_WINDOW:
            reasons = [reason for _, reason in batch.dead] + list(attempt.poison.values())
            raise Storm(
                f"{failed} of the last {STORM_WINDOW} records of our own topics could not be used "
                f"(last: {reasons[-1] if reasons else 'see log'}): this looks like a bad deploy, not bad data"
            )

    def _say(self, builder: OutputBuilder, tx: Transaction) -> Committed:
        """Step 6: what was derived waits in the outbox, and what is published by now leaves it."""
        self._acknowledged.delete(tx)
        records = builder.finish()
        committed = Committed(None, 0, records)
        if records:
            blob = pack(records)
            committed.row, committed.row_bytes = tx.add_outbox(blob), len(blob)
            tx.put_sequences(builder.sequences)
        failpoint("loop.outbox")
        return committed

    def _after_commit(self, builder: OutputBuilder) -> None:
        self._acknowledged.deleted()
        self.sequences |= builder.sequences
        self.context.committed()

    # -- rebuilding -------------------------------------------------------------------------------------------------

    def begin_rebuild(self, published: Published, events: Sequence[Event[Any]]) -> None:
        """From here on what is published already is not published again, and the context sees what was told."""
        self._published, self.context.published_before = published, events

    def rebuild_step(self, handler: Callable[[C], Sequence[Output]], note: msgspec.Struct, shard: str) -> Committed:
        """One transaction of a rebuild, with how far it has come then."""

        def handle(ctx: C) -> Reply[None]:
            outputs = handler(ctx)
            ctx.tx.put_rebuild(msgspec.json.encode(note))
            return Reply(None, outputs)

        return self.run(handle, shard)[0]

    def end_rebuild(self, handler: Callable[[C], Sequence[Output]], note: msgspec.Struct) -> Committed:
        """The last step, which says again what is published, for compacted topics."""
        self._published = None
        committed = self.rebuild_step(handler, note, "rebuild")
        self.context.published_before = ()
        return committed
