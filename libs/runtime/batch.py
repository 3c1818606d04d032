"""Steps 2 to 8 of the consume loop, in the writer thread: decode, skip repeats, run handlers, outbox, positions, commit."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from pydantic import ValidationError

from evenkeel.contracts.envelope import (
    SEAL_TYPE,
    WATERMARK_TYPE,
    EnvelopeError,
    Event,
    Record,
    attributes_of,
    origin_of,
    parse_us,
    sealed_sources,
    type_of,
)
from evenkeel.contracts.ids import dead_letter_cause_id, record_place
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.contracts.superseded import Superseded, former_majors
from evenkeel.contracts.topics import BY_NAME, Plane, consumed_by
from evenkeel.libs.bus.protocol import OutgoingRecord, TopicPartition
from evenkeel.libs.errors import EvenkeelError, NotYet, Retry, Stop, Storm, Undecodable
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.held import HeldRecords, Where, decode_record, encode_record
from evenkeel.libs.runtime.merge import EventTimeMerge, Group, name_of
from evenkeel.libs.runtime.originals import KEPT_BYTES, base64_of, size_of
from evenkeel.libs.runtime.outputs import OutputBuilder, Published, pack
from evenkeel.libs.runtime.parking import Parked, ParkedQueues, read_parked
from evenkeel.libs.service import Batch, Cause, Context, Derived, Each, Merge, Output, Raw, Released, Reply, Stateless
from evenkeel.libs.store.protocol import MarkKey, RuntimeState, Transaction
from evenkeel.libs.telemetry.tracing import BatchTrace

if TYPE_CHECKING:
    from evenkeel.libs.runtime.runtime import Runtime

C = TypeVar("C", bound=Context)
T = TypeVar("T")

STORM_WINDOW: Final = 500
STORM_RATIO: Final = 0.05
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search
_WATERMARK: Final = WATERMARK_TYPE.encode()
_SEAL: Final = SEAL_TYPE.encode()
_SEALED: Final = b"\0sealed"
"""The shard of the mark by which a sealed source is remembered."""


class HandlerFailed(Exception):
    """A handler raised on one event, which is named. Only in event-by-event mode."""

    def __init__(self, event_id: str, where: Where, error: BaseException) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.event_id, self.where = event_id, where


@dataclass(slots=True)
class Committed:
    """What one transaction did, for those outside the writer thread."""

    row: int | None = None
    row_bytes: int = 0
    records: list[OutgoingRecord] = field(default_factory=list)
    consumed: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    dead_lettered: Counter[str] = field(default_factory=Counter)


@dataclass
class _Read:
    """One batch, decoded and sorted by what handles it."""

    control: list[tuple[int, Event[Any]]] = field(default_factory=list)
    data: dict[str, list[Event[Any]]] = field(default_factory=dict)
    raw: list[Record] = field(default_factory=list)
    marks: dict[MarkKey, int] = field(default_factory=dict)
    moves: dict[TopicPartition, tuple[int | None, int]] = field(default_factory=dict)
    dead: list[tuple[Record, str]] = field(default_factory=list)
    failures: list[bool] = field(default_factory=list)
    """Whether each record of our own topics could not be used."""
    records: Sequence[Record] = ()

    @cached_property
    def by_place(self) -> dict[Where, Record]:
        """The records of the batch; made when the first one is asked for."""
        return {(record.topic, record.partition, record.offset): record for record in self.records}


class BatchProcessor(Generic[C]):
    """The writer thread's side of a runtime. Not thread-safe: only the writer thread calls its methods."""

    def __init__(self, runtime: Runtime[C]) -> None:
        self._runtime, self._service, self._context = runtime, runtime.service, runtime.context
        self.positions: dict[TopicPartition, int] = {}
        self.published: deque[int] = deque()
        """Rows whose records are all acknowledged; the next transaction deletes them."""
        self.isolate = False
        self.poison: dict[Where, str] = {}
        self.facts_read: Callable[[Where], bool] = no_facts
        """Whether every fact that the record at a place may name has been read by now: what it lacks will not come."""
        self._deleting: list[int] = []
        self._marks: dict[MarkKey, int] = {}
        self._sealed: set[tuple[bytes, str, int]] = set()
        """(source, topic, partition): what is at its end there."""
        self._sequences: dict[str, int] = {}
        self.published_before: Published | None = None
        """Only while the store is rebuilt."""
        self._recent_failures: deque[bool] = deque(maxlen=STORM_WINDOW)
        self._each: dict[str, Each[C]] = {}
        self._batch: dict[str, Batch[C]] = {}
        self._merged: dict[str, Merge[C]] = {}
        self._merge: Merge[C] | None = None
        self._raw: Raw[C] | None = None
        self.stateless_topics: set[str] = set()
        self._route()
        self.control_topics = {
            t.name for t in consumed_by(self._service.name) if t.plane is Plane.CONTROL and not self._logs_all
        }
        partitions = {name: BY_NAME[name].partitions for name in self._merged}
        self._merging = EventTimeMerge(partitions, {BY_NAME[name].payload: name for name in self._merged})
        self._types = {t.name: type_of(t.name) for t in consumed_by(self._service.name)}
        self._validators: dict[str, Callable[[bytes], Any]] = {
            t.name: t.payload.__pydantic_validator__.validate_json for t in consumed_by(self._service.name)
        }
        self._held = HeldRecords()
        self._parked = ParkedQueues()
        self.former = [former for t in consumed_by(self._service.name) for former in former_majors(t.name)]
        """Former majors of what this service consumes."""
        self._read_as = {former.name: former.current for former in self.former}
        for former in self.former:
            self._read_former(former)

    def _read_former(self, former: Superseded) -> None:
        if former.current in self._merged or former.current in self.stateless_topics:
            raise Stop(
                f"{former.name} cannot be read as {former.current}: events merged or scored in order have one major"
            )
        validate, upcast = former.payload.__pydantic_validator__.validate_json, former.upcast
        self._types[former.name] = type_of(former.name)
        self._validators[former.name] = lambda value: upcast(validate(value))
        if former.current in self.control_topics:
            self.control_topics.add(former.name)

    def _route(self) -> None:
        topics: dict[type[Payload], str] = {t.payload: t.name for t in consumed_by(self._service.name)}
        for handler in self._service.handlers:
            match handler:
                case Each(payload=payload):
                    self._each[topics[payload]] = handler
                case Batch(payload=payload):
                    self._batch[topics[payload]] = handler
                case Merge(payloads=payloads):
                    self._merge = handler
                    self._merged |= {topics[payload]: handler for payload in payloads}
                case Raw():
                    self._raw = handler
                case Stateless(payload=payload):
                    self.stateless_topics.add(topics[payload])

    @property
    def _logs_all(self) -> bool:
        return self._raw is not None and self._raw.every_topic

    @property
    def merge_held(self) -> int:
        return self._merging.held

    def ahead(self) -> set[TopicPartition]:
        """What need not be read now, because the merge waits for other partitions."""
        return self._merging.ahead()

    @property
    def parked_records(self) -> int:
        return self._parked.records

    def parked(self) -> list[tuple[Group | None, list[Parked]]]:
        """What is parked, a queue for each key."""
        return list(self._parked)

    def load(self) -> RuntimeState:
        """Read everything the runtime keeps, and let the context read its caches."""
        state = self._runtime.store.read_state()
        self.positions, self._marks, self._sequences = dict(state.positions), dict(state.marks), dict(state.sequences)
        self._sealed = {(source, topic, n) for source, shard, topic, n in state.marks if shard == _SEALED}
        with self._runtime.store.begin() as tx:
            self._enter(tx)
            self._context.load(tx)
        self._merging.clear()
        self._merging.regroup(self._context.merge_groups())
        self._merging.restore(state.watermarks)
        self._held = HeldRecords(state.held)
        for record in self._held:
            event = self._decode(record)
            if event is None or not self._merging.add(event):
                self._held.discard([(record.topic, record.partition, record.offset)])
        parked = [read_parked(stored, self._stored_event) for stored in state.parked]
        self._parked.arrange(parked, self._merging.group_of)
        return state

    def _stored_event(self, blob: bytes) -> Event[Any]:
        event = self._decode(decode_record(blob))
        assert event is not None
        return event

    def _enter(self, tx: Transaction) -> None:
        self._context.tx = tx
        self._context.now_us = self._runtime.clock.now_us()
        self._context.positions = self.positions

    # -- transactions -----------------------------------------------------------------------------------------------

    def consume(self, records: Sequence[Record]) -> Committed:
        """One transaction over what was read. Raises what evenkeel.libs.errors says; nothing has happened then."""
        committed = Committed()
        trace = self._runtime.tracing.batch()
        with self._runtime.metrics.batch_seconds.time():
            try:
                with self._runtime.store.begin() as tx:
                    failpoint("loop.begun")
                    self._enter(tx)
                    self._context.trace = trace
                    tx.hold_lease(*self._runtime.lease)
                    read = self._read(records, committed)
                    builder = self._builder(trace)
                    self._handle(read, builder, tx, committed)
                    self._check_storm(read)
                    failpoint("loop.handled")
                    self._finish(tx, builder, committed)
                    tx.put_marks(read.marks)
                    tx.move_positions(read.moves)
                    failpoint("loop.positions")
            except BaseException as error:
                trace.finish(error)
                raise
        failpoint("loop.committed")
        trace.finish()
        self._commit(builder, read)
        return committed

    def run(self, handler: Callable[[C], Reply[T]], shard: str) -> tuple[Committed, T]:
        """One transaction of a command, a tick or a finished job."""
        committed = Committed()
        trace = self._runtime.tracing.batch()
        with self._runtime.store.begin() as tx:
            self._enter(tx)
            tx.hold_lease(*self._runtime.lease)
            builder = self._builder(trace)
            reply = handler(self._context)
            builder.add(reply.outputs, shard)
            self._finish(tx, builder, committed)
        trace.finish()
        self._commit(builder, None)
        return committed, reply.answer

    def _builder(self, trace: BatchTrace) -> OutputBuilder:
        store_id, now_us = self._runtime.store.store_id, self._context.now_us
        return OutputBuilder(self._service.name, store_id, self._sequences, now_us, trace, self.published_before)

    @property
    def sequences(self) -> dict[str, int]:
        """The last sequence of each shard."""
        return self._sequences

    def _finish(self, tx: Transaction, builder: OutputBuilder, committed: Committed) -> None:
        self._delete_published(tx)
        if builder.records:
            committed.records = builder.records
            blob = pack(builder.records)
            committed.row, committed.row_bytes = tx.add_outbox(blob), len(blob)
            tx.put_sequences(builder.sequences)
        failpoint("loop.outbox")

    def _delete_published(self, tx: Transaction) -> None:
        # The event loop appends while this runs: exactly the rows seen here go, and are forgotten once it is committed.
        self._deleting = list(self.published)
        if self._deleting:
            tx.remove_outbox(self._deleting)

    def _forget_deleted(self) -> None:
        if self._deleting:
            failpoint("publish.deleted")
        for _ in self._deleting:
            self.published.popleft()
        self._deleting = []

    def _commit(self, builder: OutputBuilder, read: _Read | None) -> None:
        self._forget_deleted()
        self._sequences |= builder.sequences
        if read is not None:
            self._recent_failures.extend(read.failures + [True] * len(self.poison))
            self._marks |= read.marks
            self.positions |= {tp: hi for tp, (_, hi) in read.moves.items()}
        self._context.committed()

    def housekeep(self) -> None:
        """Keep the lease and delete published rows while there is nothing to consume."""
        with self._runtime.store.begin() as tx:
            tx.hold_lease(*self._runtime.lease)
            self._delete_published(tx)
        self._forget_deleted()

    # -- step 2 and 4: decode, skip repeats -------------------------------------------------------------------------

    def _read(self, records: Sequence[Record], committed: Committed) -> _Read:
        read = _Read(records=records)
        logs_all = self._logs_all
        for record in records:
            topic = record.topic
            tp = (topic, record.partition)
            lo, hi = read.moves.get(tp, (self.positions.get(tp), None))
            if record.offset < (hi if hi is not None else lo or 0):
                continue
            read.moves[tp] = (lo, record.offset + 1)
            committed.consumed[topic] += 1
            if logs_all or topic not in self._types:
                read.raw.append(record)
                continue
            if self.poison and topic not in self._merged:
                reason = self.poison.get((topic, record.partition, record.offset))
                if reason is not None:
                    read.dead.append((record, reason))
                    continue
            try:
                event = self._decode(record, read, committed)
            except Undecodable as error:
                read.dead.append((record, str(error)))
                read.failures.append(True)
                continue
            read.failures.append(False)
            if event is None:
                continue
            current = self._read_as.get(topic, topic) if self._read_as else topic
            if current in self._each:
                read.control.append((record.timestamp, event))
            else:
                read.data.setdefault(current, []).append(event)
        read.control.sort(key=lambda item: (item[0], item[1].topic, item[1].partition, item[1].offset))
        return read

    def _check_storm(self, read: _Read) -> None:
        failed = sum([*self._recent_failures, *read.failures][-STORM_WINDOW:]) + len(self.poison)
        if failed > STORM_RATIO * STORM_WINDOW:
            reasons = [reason for _, reason in read.dead] + list(self.poison.values())
            raise Storm(
                f"{failed} of the last {STORM_WINDOW} records of our own topics could not be used "
                f"(last: {reasons[-1] if reasons else 'see log'}): this looks like a bad deploy, not bad data"
            )

    def _decode(
        self, record: Record, read: _Read | None = None, committed: Committed | None = None
    ) -> Event[Any] | None:
        """The event; None for a repeat or a watermark. Raises Undecodable."""
        topic = record.topic
        try:
            attributes = attributes_of(record.headers)
            if read is not None and committed is not None:
                origin = origin_of(attributes)
                if origin is not None:
                    if self._sealed and (origin[0], topic, record.partition) in self._sealed:
                        committed.repeated[topic] += 1
                        return None
                    key = (origin[0], origin[1], topic, record.partition)
                    if origin[2] <= read.marks.get(key, self._marks.get(key, 0)):
                        committed.repeated[topic] += 1
                        return None
                    read.marks[key] = origin[2]
            if attributes["ce_type"] == _WATERMARK:
                stream, watermark = (
                    attributes.get("ce_stream", b"").decode(),
                    attributes.get("ce_watermark", b"").decode(),
                )
                if topic in self._merged:
                    self._merging.observe(topic, record.partition, stream, parse_us(watermark))
                return None
            if attributes["ce_type"] == _SEAL:
                self._seal(record, read)
                return None
            if attributes["ce_type"] != self._types[topic]:
                raise Undecodable(f"ce_type is {attributes['ce_type']!r}, this topic carries {self._types[topic]!r}")
            value = record.value or b""
            refuse_nul(value)
            data: Payload = self._validators[topic](value)
            time_us = parse_us(attributes["ce_time"].decode())
            return Event(
                data, attributes["ce_id"].decode(), time_us, topic, record.partition, record.offset, attributes
            )
        except ValidationError as error:
            raise Undecodable(payload_fault(error)) from None
        except (EnvelopeError, ValueError, RecursionError) as error:
            raise Undecodable(f"envelope: {error}") from None

    def _seal(self, record: Record, read: _Read | None) -> None:
        """From here on these sources say nothing more on this partition. A transaction that fails reads this anew."""
        for source in sealed_sources(record.value):
            self._sealed.add((source.encode(), record.topic, record.partition))
            if read is not None:
                read.marks[source.encode(), _SEALED, record.topic, record.partition] = 1

    # -- step 5: handlers -------------------------------------------------------------------------------------------

    def _handle(self, read: _Read, builder: OutputBuilder, tx: Transaction, committed: Committed) -> None:
        self._handle_control(read, builder)
        for topic, events in read.data.items():
            if topic in self._merged:
                continue
            many = self._batch[topic].handler
            for group in [[e] for e in events] if self.isolate else [events]:
                self._call(
                    lambda: builder.add(list(many(group, self._context)), topic), group[0], read, alone=self.isolate
                )
        if self._merge is not None:
            self._run_merge(read, builder, tx)
        if read.raw and self._raw is not None:
            self._run_raw(self._raw, read.raw, builder)
        for record, reason in read.dead:
            committed.dead_lettered[record.topic] += 1
            builder.add([self.dead_letter(record, reason)], "dead-letter")

    def _handle_control(self, read: _Read, builder: OutputBuilder) -> None:
        """One by one in the broker's time; one that names a fact which stands behind it, as clocks of several brokers or
        one millisecond allow, takes its turn after that."""
        left = [event for _, event in read.control]
        while left:
            waiting: list[tuple[Event[Any], NotYet]] = []
            for event in left:
                try:
                    self._call(partial(self._handle_one, event, builder), event, read, alone=False)
                except NotYet as error:
                    waiting.append((event, error))
            if len(waiting) == len(left):
                for event, lacking in waiting:
                    self._unknown_fact(lacking, (event.topic, event.partition, event.offset), read)
                return
            left = [event for event, _ in waiting]

    def _handle_one(self, event: Event[Any], builder: OutputBuilder) -> None:
        handler = self._each[self._read_as.get(event.topic, event.topic)].handler
        produced = list(handler(event, self._context))
        builder.add((p if isinstance(p, Derived) else Derived(p, event) for p in produced), event.topic)

    def _call(self, step: Callable[[], None], event: Event[Any], read: _Read, *, alone: bool) -> bool:
        """Run one handler. `alone`: on this event only, so that what it raises is about this event. False if that names a
        fact that will not come."""
        where = (event.topic, event.partition, event.offset)
        try:
            step()
        except NotYet as error:
            if not alone:
                raise
            self._unknown_fact(error, where, read)
            return False
        except EvenkeelError:
            raise
        except Exception as error:
            if self.isolate:
                raise HandlerFailed(event.id, where, error) from error
            raise
        return True

    def _unknown_fact(self, error: NotYet, where: Where, read: _Read) -> None:
        """A dead letter if the fact cannot come any more."""
        error.where = where
        if not self.facts_read(where):
            raise error
        read.dead.append((self._record_at(where, read), f"unknown fact: {error}"))
        read.failures.append(True)

    def _record_at(self, where: Where, read: _Read) -> Record:
        return read.by_place.get(where) or self._held[where]

    def _run_raw(self, raw: Raw[C], records: list[Record], builder: OutputBuilder) -> None:
        by_topic: dict[str, list[Record]] = {}
        if raw.every_topic:
            by_topic["log"] = records
        else:
            for record in records:
                by_topic.setdefault(record.topic, []).append(record)
        for shard, group in by_topic.items():
            builder.add(list(raw.handler(group, self._context)), shard)

    def _run_merge(self, read: _Read, builder: OutputBuilder, tx: Transaction) -> None:
        unwanted = self._merging.regroup(self._context.merge_groups())
        self._held.discard((e.topic, e.partition, e.offset) for e in unwanted)
        if self._parked:
            self._parked.arrange([one for _, queue in self._parked for one in queue], self._merging.group_of)
        added: dict[Where, Event[Any]] = {}
        parked: list[Parked] = []
        for topic in self._merged:
            for event in read.data.get(topic, ()):
                if not self._is_usable(event, read):
                    continue
                watermark_us = event.watermark_us
                if watermark_us is not None:
                    self._merging.observe(topic, event.partition, event.stream, watermark_us)
                if self._merging.add(event):
                    added[topic, event.partition, event.offset] = event
        for group, watermark_us, events in self._merging.release():
            places = [(e.topic, e.partition, e.offset) for e in events]
            stored = [place for place in places if added.pop(place, None) is None]
            kept = events
            if self.poison or self._parked:
                kept = [event for event in events if not self._park(event, group, read, parked)]
            self._release(Released(kept, watermark_us, group), builder, read)
            self._held.discard(stored)
            failpoint("merge.released")
        self._held.add([read.by_place[where] for where in added])
        self._held.write(tx)
        tx.add_parked(one.stored for one in parked)
        tx.put_watermarks(self._merging.changed_watermarks())

    def _is_usable(self, event: Event[Any], read: _Read) -> bool:
        """Whether an event may be merged; what cannot even be asked that has no place in the order, so it is not parked."""
        try:
            return self._call(partial(self._context.require, event), event, read, alone=True)
        except HandlerFailed as error:
            if error.where not in self.poison:
                raise
            read.dead.append((self._record_at(error.where, read), self.poison[error.where]))
            return False

    def _park(self, event: Event[Any], group: Group, read: _Read, parked: list[Parked]) -> bool:
        """Whether a released event may not be folded: it failed before, or one of its key is parked already."""
        where = (event.topic, event.partition, event.offset)
        record = self._record_at(where, read)
        key, reason = record.key or b"", self.poison.get(where)
        if reason is None and (group, key) not in self._parked:
            return False
        number, now_us = self._parked.next_number, self._context.now_us
        one = Parked(number, key, reason or "", now_us, event, encode_record(record))
        self._parked.add(group, one)
        parked.append(one)
        return True

    def releasing(self, group: Group | None, key: bytes) -> Callable[[C], Reply[int]]:
        """A command that folds the queue of a parked key, all or nothing; raises HandlerFailed if it fails again."""

        def release(ctx: C) -> Reply[int]:
            queue = self._parked.take((group, key))
            outputs = [] if group is None else self._fold_parked(queue, group)
            ctx.tx.remove_parked((one.event.topic, one.event.partition, one.event.offset) for one in queue)
            return Reply(len(queue), outputs)

        return release

    def _fold_parked(self, queue: list[Parked], group: Group) -> list[Output]:
        assert self._merge is not None
        watermark_us, outputs = self._merging.released_us(group), list[Output]()
        if watermark_us is None:
            raise Retry("the merge has not released anything since its streams were declared: wait for a record")
        for one in queue:
            event = one.at(watermark_us)
            try:
                outputs += self._merge.handler(Released([event], watermark_us, group), self._context)
            except EvenkeelError:
                raise
            except Exception as error:
                raise HandlerFailed(event.id, (event.topic, event.partition, event.offset), error) from error
        return outputs

    def _release(self, released: Released, builder: OutputBuilder, read: _Read) -> None:
        assert self._merge is not None
        handler, shard = self._merge.handler, name_of(released.group)
        if not self.isolate:
            builder.add(list(handler(released, self._context)), shard)
            return
        for event in released.events:
            single = Released([event], event.order_us, released.group)
            self._call(lambda: builder.add(list(handler(single, self._context)), shard), event, read, alone=True)
        builder.add(list(handler(Released([], released.watermark_us, released.group), self._context)), shard)

    def dead_letter(self, record: Record, reason: str) -> Output:
        """The record with its original bytes, as something to publish; one that would be too large for that is named."""
        place = record_place(record.topic, record.partition, record.offset)
        key, value, headers = record.key, record.value, list(record.headers)
        size = size_of(record)
        if size > KEPT_BYTES:
            key, value, headers = None, None, []
            reason += (
                f" (its {size} bytes are too many to be kept here; they stay at {place} as long as that topic does)"
            )
        cause_id = dead_letter_cause_id(self._service.name, place)
        cause = Cause(cause_id, record.timestamp * 1000, cause_id)
        payload = RecordDeadLettered(
            service=self._service.name,
            reason=reason,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            key=base64_of(key),
            value=base64_of(value),
            headers=[(name, base64_of(text) or "") for name, text in headers],
        )
        return Derived(payload, cause)


def no_facts(where: Where) -> bool:
    """The answer of `facts_read` until the control topics were read to their end for the batch at hand."""
    return False


def refuse_nul(value: bytes) -> None:
    """Raises ValueError for a payload with U+0000 in a text, which not every store can keep."""
    if b"\\u0000" in value and _NUL(value):
        raise ValueError("a text of the payload holds the character U+0000")


def payload_fault(error: ValidationError) -> str:
    """What is wrong with a payload, and where in it."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"payload: {'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
