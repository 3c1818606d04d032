"""A store that was lost, or restored from an older copy, made again from the topics.

1. A new store gets a new id. A seal for the former ids goes to each partition that the service writes to; what those
   stores say behind it (a process that did not die, a request that was under way) is ignored by every consumer.
2. What stands before the seals is read: it is published, and is not published again. Ids follow from causes, so the same
   is recognised. Of a stream with watermarks, all that is earlier than a partition's last watermark stands there already.
3. The service folds what it said itself (`Rebuild.fold`), then reads its inputs again from their beginnings: control
   topics first, in the order in which they were written, then the rest. It is not ready before all that its inputs held
   after the sealing is read.

A crash at any moment goes on where it was: the new store's note says how far things have come, and 2 is done again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog
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
)
from evenkeel.contracts.topics import BY_NAME, Plane, Topic, consumed_by, published_by, topic_of
from evenkeel.libs.bus.protocol import Bus, TopicPartition
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.errors import EvenkeelError, Stop
from evenkeel.libs.runtime.outputs import source_of
from evenkeel.libs.service import Order, Seal, Service, Stateless

if TYPE_CHECKING:
    from evenkeel.libs.runtime.runtime import Runtime

log = structlog.get_logger(__name__)

TAIL_RECORDS: Final = 100
"""How many records at the end of each partition are looked at to see whether a store is as young as they are."""
_STORE_ID: Final = re.compile(r"[0-9a-f]{32}").fullmatch


class NotRebuildable(EvenkeelError):
    """The topics do not hold what the store would be made from; nothing was changed."""


class Note(msgspec.Struct):
    """How far a rebuild has come, kept in the new store."""

    former: list[str]
    """Ids of the stores whose place this one takes."""
    aside: str | None = None
    seal: int = 0
    """The first sequence of the latest seals; 0 before the first."""
    folded: bool = False
    ends: list[tuple[str, int, int]] = []
    """(topic, partition, end) of what is to be read before the store is whole."""
    done: bool = False


@dataclass
class Found:
    """What stands on the service's own topics before its seals. See evenkeel.libs.runtime.outputs.Published."""

    stores: set[str] = field(default_factory=set)
    told: list[Event[Any]] = field(default_factory=list)
    """Events of control topics, in the order in which they were said."""
    count: int = 0
    _ids: defaultdict[tuple[str, int, str], set[str]] = field(default_factory=lambda: defaultdict(set))
    _watermarks: dict[tuple[str, int, str], int] = field(default_factory=dict)

    def has(self, topic: Topic, partition: int, event_id: str, stream: str | None, order_us: int) -> bool:
        if topic.compacted:
            return True
        place = (topic.name, partition, stream or "")
        watermark_us = self._watermarks.get(place)
        return (watermark_us is not None and order_us < watermark_us) or event_id in self._ids.get(place, ())

    def has_watermark(self, topic: str, partition: int, stream: str, time_us: int) -> bool:
        return time_us <= self._watermarks.get((topic, partition, stream), -(2**63))

    def add(self, record: Record, attributes: dict[str, bytes]) -> None:
        """Take one record of a store that is not sealed."""
        place = (record.topic, record.partition, attributes.get("ce_stream", b"").decode())
        if attributes["ce_type"] == WATERMARK_TYPE.encode():
            self._watermarks[place] = parse_us(attributes["ce_watermark"].decode())
            self._ids[place].clear()  # all of them are earlier
            return
        self.count += 1
        topic = BY_NAME[record.topic]
        self._ids[place].add(attributes["ce_id"].decode())
        if topic.plane is Plane.CONTROL:
            data = topic.payload.model_validate_json(record.value or b"")
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            where = (record.topic, record.partition, record.offset)
            self.told.append(Event(data, event_id, time_us, *where, attributes))


def stateless_outputs(service: Service[Any]) -> set[str]:
    """Topics on which other stores' identities are passed on."""
    return {topic_of(h.output, service.name).name for h in service.handlers if isinstance(h, Stateless)}


def inputs_of(service: Service[Any]) -> list[Topic]:
    """The topics of the map that are folded into the service's store."""
    scored = {h.payload for h in service.handlers if isinstance(h, Stateless)}
    return [topic for topic in consumed_by(service.name) if topic.payload not in scored]


def _partitions(topics: Iterable[Topic]) -> list[TopicPartition]:
    return [(topic.name, partition) for topic in topics for partition in range(topic.partitions)]


def _order_of(event: Event[Any]) -> tuple[int, str, int]:
    """Transactions in their order; in each, what one handler said in its order."""
    return event.recorded_us, event.attribute("shard") or "", int(event.attribute("sequence") or 0)


# -- what the command does before the service goes to work ------------------------------------------------------------


async def prepare(runtime: Runtime[Any]) -> Note:
    """Put an empty store into the place of what is there, marked to be rebuilt; or go on with one that is so marked.

    Raises NotRebuildable, with nothing changed, if the topics no longer hold what it would be made from.
    """
    service, store = runtime.service, runtime.store
    if service.rebuild is None:
        raise NotRebuildable(
            f"{service.name} cannot be rebuilt from the topics yet: restore its store from a copy made while it was stopped"
        )
    await runtime.bus.start()
    await _check_inputs(service, runtime.bus)
    former: list[str] = []
    try:
        store.open()
        state = store.read_state()
        note = None if state.rebuild is None else msgspec.json.decode(state.rebuild, type=Note)
        if note is not None and not note.done:
            return note
        await _take_lease(runtime)
        former = [store.store_id]
        is_empty = not state.positions and not state.sequences
    except Stop as error:
        log.warning("the store that is there cannot be read", error=str(error))
        is_empty = False
    store.close()
    note = Note(former, None if is_empty else store.set_aside(datetime.now(UTC).strftime("%Y%m%dT%H%M%S")))
    store.open()
    with store.begin() as tx:
        tx.put_rebuild(msgspec.json.encode(note))
    return note


async def _check_inputs(service: Service[Any], bus: Bus) -> None:
    wanted = _partitions(topic for topic in inputs_of(service) if not topic.compacted)
    begins = await bus.beginning_offsets(wanted)
    gone = [f"{topic}/{partition} up to {begin - 1}" for (topic, partition), begin in sorted(begins.items()) if begin]
    if gone:
        raise NotRebuildable(
            f"{service.name} cannot be rebuilt: retention has deleted records that it would be made from "
            f"({', '.join(gone)}). Nothing was changed. Restore its store from a copy that had read these"
        )


# -- what the service does at its start -------------------------------------------------------------------------------


async def _take_lease(runtime: Runtime[Any]) -> None:
    """The lease of a process that died elsewhere, or came with a copy, runs out; that of one at work does not."""
    _, _, lasts_us, _ = runtime.lease_wanted
    deadline = time.monotonic() + 1.2 * lasts_us / SECOND_US
    while runtime.store.take_lease(*runtime.lease_wanted) is None:
        if time.monotonic() > deadline:
            raise NotRebuildable(f"{runtime.service.name} is running: stop it first")
        await asyncio.sleep(0.2)


async def check_whole(runtime: Runtime[Any], former: Iterable[str] = ()) -> None:
    """Raises Stop if the topics hold what this store does not know of: it is an older copy, or another store's heir."""
    service, own, bus = runtime.service, runtime.store.store_id, runtime.bus
    topics = [t for t in published_by(service.name) if t.name not in stateless_outputs(service)]
    begins, ends = await bus.beginning_offsets(_partitions(topics)), await bus.end_offsets(_partitions(topics))
    ranges = {tp: (max(begins[tp], end - TAIL_RECORDS), end) for tp, end in ends.items() if end > begins[tp]}
    sequences = runtime.sequences
    known, is_alone = {own, *former}, service.one_store and not runtime.settings.accept_new_store
    cure = (
        f"run `evenkeel rebuild {service.name}`"
        if service.rebuild is not None
        else "restore its newest copy: this store cannot be made again from the topics, and events would be lost or doubled"
    )
    async for records in bus.read_between(ranges):
        for record in records:
            source, shard, sequence = _origin(record)
            store = _store_of(source, service.name)
            where = f"{record.topic}/{record.partition}/{record.offset}"
            if store == own and sequence > sequences.get(shard, 0):
                raise Stop(
                    f"the store of {service.name} is older than what it has published ({where} has sequence {sequence} of "
                    f"{shard}, the store's last is {sequences.get(shard, 0)}): {cure}"
                )
            if store is not None and store not in known and is_alone:
                state = "is older than" if sequences else "is new, and knows nothing of"
                raise Stop(
                    f"the store of {service.name} {state} what another one has published ({where} is store {store}'s): "
                    f"{cure}"
                )


def _origin(record: Record) -> tuple[str, str, int]:
    """(source, shard, sequence); empty for what is not ours."""
    try:
        origin = origin_of(attributes_of(record.headers))
        return ("", "", 0) if origin is None else (origin[0].decode(), origin[1].decode(), origin[2])
    except (EnvelopeError, UnicodeDecodeError):
        return "", "", 0


def _store_of(source: str, service: str) -> str | None:
    store = source.rpartition("/")[2]
    return store if source == source_of(service, store) and _STORE_ID(store) else None


class Rebuilding:
    """One store on its way; belongs to its runtime's event loop."""

    def __init__(self, runtime: Runtime[Any], note: Note) -> None:
        self._runtime, self.note = runtime, note
        assert runtime.service.rebuild is not None
        self._how = runtime.service.rebuild
        self.found = Found()

    async def begin(self) -> None:
        """Seal, read what stands before the seals, fold what was told."""
        runtime = self._runtime
        own = runtime.store.store_id
        if not self.note.seal:
            await self._seal(self._replaced(await self._read_own(set())))
        while True:
            self.found = await self._read_own({own})
            unknown = self._replaced(self.found) - set(self.note.former) - {own}
            if not unknown:
                break
            await self._seal(unknown)
        self.found.told.sort(key=_order_of)
        runtime.context.told = self.found.told
        if not self.note.folded:
            ends = await runtime.bus.end_offsets(_partitions(inputs_of(runtime.service)))
            self.note = msgspec.structs.replace(
                self.note, folded=True, ends=[(*tp, end) for tp, end in sorted(ends.items())]
            )
            await runtime.in_writer(lambda: runtime.rebuild_step(self._fold, self.note))
        log.info("what was published is known", events=self.found.count, stores=len(self.note.former))

    def _replaced(self, found: Found) -> set[str]:
        """The stores that this one takes the place of: never those of other replicas at work."""
        return found.stores if self._runtime.service.one_store else set()

    def _fold(self, ctx: Any) -> Sequence[Any]:
        self._how.fold(self.found.told, ctx)
        return ()

    async def _seal(self, stores: Iterable[str]) -> None:
        runtime = self._runtime
        former = sorted({*self.note.former, *stores} - {runtime.store.store_id})
        first = runtime.sequences.get("seal", 0) + 1
        self.note = msgspec.structs.replace(self.note, former=former, seal=first)
        await runtime.in_writer(lambda: runtime.rebuild_step(lambda ctx: [Seal(former)], self.note, shard="seal"))
        await runtime.publisher.publish()

    async def _read_own(self, until_seals_of: set[str]) -> Found:
        """What stands on the service's own topics: up to its latest seals, or all of it."""
        service, bus = self._runtime.service, self._runtime.bus
        passed_on = stateless_outputs(service)
        topics = published_by(service.name)
        begins, ends = await bus.beginning_offsets(_partitions(topics)), await bus.end_offsets(_partitions(topics))
        found = Found()
        sealed: set[tuple[str, str, int]] = set()
        closed: set[TopicPartition] = set()
        ranges = {tp: (begins[tp], end) for tp, end in ends.items() if end > begins[tp]}
        async for records in bus.read_between(ranges):
            for record in records:
                tp = (record.topic, record.partition)
                source, _, sequence = _origin(record)
                if not source or tp in closed or (source, *tp) in sealed:
                    continue
                store = _store_of(source, service.name)
                try:
                    attributes = attributes_of(record.headers)
                    if store is not None and record.topic not in passed_on:
                        found.stores.add(store)
                    if attributes["ce_type"] == SEAL_TYPE.encode():
                        sealed |= {(one, *tp) for one in sealed_sources(record.value)}
                        if store in until_seals_of and sequence >= self.note.seal:
                            closed.add(tp)
                        continue
                    if store is not None and record.topic not in passed_on:
                        found.add(record, attributes)
                except (EnvelopeError, ValidationError, KeyError, ValueError) as error:
                    where = f"{record.topic}/{record.partition}/{record.offset}"
                    log.warning("a record on our own topic is not ours", where=where, error=str(error))
        return found

    # -- reading again ------------------------------------------------------------------------------------------------

    def order_left(self, positions: Mapping[TopicPartition, int]) -> Iterator[tuple[str, int, int]]:
        """What is left of the order in which the service wants to read."""
        read = dict(positions)
        for topic, partition, count in self._order():
            before = min(count, read.get((topic, partition), 0))
            if before:
                read[topic, partition] -= before
            if count > before:
                yield topic, partition, count - before

    def _order(self) -> Order:
        return self._how.order(self.found.told)

    def progress(self, positions: Mapping[TopicPartition, int]) -> tuple[int, int]:
        """(read, to be read) in records."""
        read = sum(min(positions.get((topic, partition), 0), end) for topic, partition, end in self.note.ends)
        return read, sum(end for _, _, end in self.note.ends)

    def is_read(self, positions: Mapping[TopicPartition, int]) -> bool:
        return all(positions.get((topic, partition), 0) >= end for topic, partition, end in self.note.ends)

    async def finish(self) -> None:
        """The last transaction: from here on the store is whole."""
        self.note = msgspec.structs.replace(self.note, done=True)
        runtime = self._runtime
        await runtime.in_writer(lambda: runtime.rebuild_step(self._how.finished, self.note, is_last=True))
        runtime.context.told = ()
        await runtime.publisher.publish()


class InOrder:
    """Hands out what was read from many partitions in the order that is wanted."""

    def __init__(self) -> None:
        self._held: defaultdict[TopicPartition, deque[Record]] = defaultdict(deque)

    def add(self, batch: Mapping[TopicPartition, Sequence[Record]]) -> None:
        for tp, records in batch.items():
            self._held[tp] += records

    def held(self, tp: TopicPartition) -> int:
        return len(self._held[tp])

    def take(self, tp: TopicPartition, count: int) -> list[Record]:
        held = self._held[tp]
        return [held.popleft() for _ in range(min(count, len(held)))]


def as_written(records: Iterable[Record]) -> list[Record]:
    """Records of several partitions in the order of the broker's clock, each partition's as they are."""
    latest: dict[TopicPartition, int] = {}
    stamped = []
    for record in records:
        tp = (record.topic, record.partition)
        latest[tp] = stamp = max(latest.get(tp, 0), record.timestamp)
        stamped.append((stamp, *tp, record.offset, record))
    return [item[-1] for item in sorted(stamped, key=lambda item: item[:-1])]
