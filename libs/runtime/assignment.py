"""Step 1 of the consume loop: which partitions are read, from where, and which of them wait meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import structlog

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.topics import consumed_by, published_by
from evenkeel.libs.bus.protocol import Bus, TopicPartition
from evenkeel.libs.errors import DataLoss, Retry, Stop
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.runtime.waiting import Persistence
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.settings import Settings

log = structlog.get_logger(__name__)
ASK_SECONDS: Final = 3.0
"""How long housekeeping may wait for the broker: it also keeps the lease."""


class Assignment:
    """The partitions of one service, whose positions are its store's. Belongs to the event loop.

    Facts come first: until every control topic is read to where it ended at the start, nothing else is read. With a full
    merge, only what it waits for is read: the rest is kept in its topics, not in our store.
    """

    def __init__(
        self, service: str, settings: Settings, routes: Routes[Any], bus: Bus, writer: Writer[Any], persist: Persistence
    ) -> None:
        self._service, self._settings, self._routes = service, settings, routes
        self._bus, self._writer, self._persist = bus, writer, persist
        self._former_topics: dict[str, int] = {}
        self.partitions: frozenset[TopicPartition] = frozenset()
        self.control: frozenset[TopicPartition] = frozenset()
        """Those of facts."""
        self.control_ends: Mapping[TopicPartition, int] = {}
        """Where facts ended at the start, as far as they are not read yet."""
        self.has_caught_up = False
        """Whether every fact is read that there was at the start."""
        self._raw_topics: frozenset[str] = frozenset()
        self._ahead: set[TopicPartition] = set()
        """What is not read now, because the merge is full and waits for others."""
        self._is_full = False
        self._settled: dict[TopicPartition, int] = {}
        """Up to where records were read and all that follows from them is published."""

    async def check_topics(self) -> None:
        """Raises Retry for a topic of the map that is missing, and Stop for one with another partition count."""
        expected = {t.name: t.partitions for t in (*consumed_by(self._service), *published_by(self._service))}
        former = {f.name: f.partitions for f in self._routes.former}
        found = await self._bus.partition_counts(expected | former)
        self._former_topics = {name: former[name] for name in former.keys() & found.keys()}
        for name, partitions in (expected | self._former_topics).items():
            if name not in found:
                raise Retry(f"topic {name} does not exist yet: `evenkeel topics` creates the map's topics")
            if found[name] != partitions:
                raise Stop(
                    f"topic {name} has {found[name]} partitions, the map says {partitions}: the count never changes in place"
                )

    async def assign(self) -> None:
        """Read the topics of the map that are ours and the raw topics that the context names, from our own positions."""
        topics = {topic.name: topic.partitions for topic in self._routes.folded} | self._former_topics
        raw = dict(self._writer.kept.raw_topics)
        if raw:
            await self._persist("topics", lambda: self._make_raw_topics(raw))
            counts = await self._persist("topics", lambda: self._count_raw_partitions(raw))
            await self._writer.ask(lambda transactions: transactions.context.assigned(counts))
            topics |= counts
        wanted = frozenset((name, partition) for name, count in topics.items() for partition in range(count))
        begins = await self._persist("broker", lambda: self._bus.beginning_offsets(wanted))
        positions = self._writer.positions
        for tp in wanted:
            if tp in positions and begins[tp] > positions[tp]:
                self._miss(tp, positions[tp], begins[tp])
        starts = {tp: max(begins[tp], positions.get(tp, 0)) for tp in wanted}
        self._bus.assign(starts)
        self.partitions, self._ahead = wanted, set()
        self.control = frozenset(tp for tp in wanted if tp[0] in self._routes.control)
        self._raw_topics = frozenset(raw)
        self.settle(self.read())
        if not self.has_caught_up:
            self._bus.pause(wanted - self.control)
            ends = await self._persist("broker", lambda: self._bus.end_offsets(self.control))
            self.control_ends = {tp: end for tp, end in ends.items() if end > starts[tp]}

    def _miss(self, tp: TopicPartition, position: int, begin: int) -> None:
        topic, partition = tp
        if not self._settings.accept_gap:
            raise DataLoss(
                f"{topic}/{partition}: records {position}–{begin - 1} were deleted by retention before "
                f"{self._service} read them; set EVENKEEL_ACCEPT_GAP=true to go on without them"
            )
        log.error("records lost to retention", topic=topic, partition=partition, first=position, last=begin - 1)

    async def _make_raw_topics(self, raw: Mapping[str, int]) -> None:
        for name, partitions in raw.items():
            await self._bus.create_raw_topic(name, partitions)

    async def _count_raw_partitions(self, raw: Mapping[str, int]) -> dict[str, int]:
        counts = await self._bus.partition_counts(raw)
        for name in raw:
            if name not in counts:
                raise Retry(f"topic {name} does not exist yet")
        return counts

    async def assign_if_changed(self) -> None:
        """The facts of a batch may have named other raw topics."""
        if self._writer.kept.raw_topics.keys() != self._raw_topics:
            await self.assign()

    async def assign_anew(self) -> None:
        """After another instance was active: facts first, again."""
        self.has_caught_up = False
        await self.assign()

    def read(self) -> dict[TopicPartition, int]:
        """Up to where what is assigned was read and committed."""
        return {tp: position for tp, position in self._writer.positions.items() if tp in self.partitions}

    def settle(self, read: dict[TopicPartition, int]) -> None:
        """All that follows from what was read up to there is published."""
        self._settled = read

    async def fetch(self, max_records: int | None = None) -> dict[TopicPartition, Sequence[Record]]:
        wanted = self._settings.max_batch_records if max_records is None else max_records
        return await self._persist("broker", lambda: self._bus.getmany(timeout_ms=200, max_records=wanted))

    def is_fact(self, record: Record) -> bool:
        return record.topic in self._routes.control

    def read_first(self, tp: TopicPartition, full: Iterable[TopicPartition]) -> None:
        """While a store is rebuilt: this partition is wanted now, and of those enough is read for the time being."""
        self._bus.pause(list(full))
        self._bus.resume([tp])

    # -- who waits ----------------------------------------------------------------------------------------------------

    def check_caught_up(self) -> None:
        if all(self._writer.positions.get(tp, 0) >= end for tp, end in self.control_ends.items()):
            self.has_caught_up = True
            self._bus.resume(self.partitions - self.control)

    async def make_room(self, *, may_wait: bool) -> None:
        """With a full merge, read only what it waits for."""
        is_full = may_wait and self._writer.kept.held >= self._settings.max_pending_records
        if is_full != self._is_full:
            text = "the merge is full, reading only what it waits for" if is_full else "the merge has room again"
            log.warning(text, held=self._writer.kept.held)
            self._is_full = is_full
        ahead = await self._writer.ask(lambda transactions: transactions.merging.ahead()) if is_full else set()
        if ahead:
            self._bus.pause(ahead)
        if self._ahead - ahead:
            self._bus.resume(self._ahead - ahead)
        self._ahead = ahead

    async def facts_added(self, records: Sequence[Record]) -> tuple[Sequence[Record], dict[TopicPartition, int]]:
        """The same records with all that the control topics hold by now, and where these end. A fact is published before
        the first record that names it, so whatever these name is among them, or was never said; what is read beyond may
        name later ones."""
        ends = await self._persist("broker", lambda: self._bus.end_offsets(self.control))
        found = list(records)
        data = self.partitions - self.control
        self._bus.pause(data)
        try:
            while not reach(ends, self._writer.positions, found):
                batch = await self.fetch(1000)
                found += (record for partition in batch.values() for record in partition)
        finally:
            if self.has_caught_up:
                self._bus.resume(data)
        return found, ends

    # -- what others are told -----------------------------------------------------------------------------------------

    async def lag(self) -> dict[str, int]:
        """Records behind the end of each topic. Raises Retry."""
        ends = self._bus.ends()
        if self._ahead:  # what is not fetched does not say where it ends
            with contextlib.suppress(Retry, TimeoutError):
                ends |= await asyncio.wait_for(self._bus.end_offsets(self._ahead), ASK_SECONDS)
        behind: dict[str, int] = {}
        for tp, end in ends.items():
            behind[tp[0]] = behind.get(tp[0], 0) + max(0, end - self._settled.get(tp, 0))
        return behind

    async def has_read_all(self) -> bool:
        """Whether everything is read and committed that the topics hold now. Raises Retry."""
        ends = await self._bus.end_offsets(self.partitions)
        has_all = all(self._writer.positions.get(tp, 0) >= end for tp, end in ends.items())
        return has_all and self._writer.kept.raw_topics.keys() == self._raw_topics

    async def commit(self) -> bool:
        """Step 10; whether the broker has answered. Raises Retry."""
        return await self._bus.commit(self._settled)


def reach(
    ends: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int], records: Iterable[Record]
) -> bool:
    """Whether what is read already and these records go up to all of these ends."""
    reached = {tp: positions.get(tp, 0) for tp in ends}
    for record in records:
        tp = (record.topic, record.partition)
        if tp in reached:
            reached[tp] = max(reached[tp], record.offset + 1)
    return all(reached[tp] >= end for tp, end in ends.items())
