"""While a store is rebuilt: the order in which its inputs are read again."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from evenkeel.contracts.envelope import Record
from evenkeel.libs.bus.protocol import TopicPartition
from evenkeel.libs.runtime.assignment import Assignment
from evenkeel.libs.runtime.rebuild import Rebuilding
from evenkeel.libs.runtime.waiting import StopSignal

Process = Callable[[Sequence[Record]], Awaitable[None]]


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


class Rereading:
    """The first pass over the inputs of a store that is rebuilt. Belongs to the event loop."""

    def __init__(
        self, rebuilding: Rebuilding, assignment: Assignment, process: Process, batch_records: int, stop: StopSignal
    ) -> None:
        self._rebuilding, self._assignment, self._process = rebuilding, assignment, process
        self._batch_records, self._stop = batch_records, stop

    async def run(self) -> None:
        """What the service wants in a certain order, then the control topics as they were written."""
        await self._read_ordered()
        await self._assignment.assign()
        await self._read_facts()

    async def _read_ordered(self) -> None:
        batch: list[Record] = []
        read, full, assignment = InOrder(), 2 * self._batch_records, self._assignment
        for topic, partition, count in self._rebuilding.order_left(assignment.read()):
            tp, wanted = (topic, partition), count
            while wanted and not self._stop.is_set:
                taken = read.take(tp, wanted)
                if taken and batch and tp in assignment.control and not assignment.is_fact(batch[-1]):
                    await self._process(batch)  # in one batch, what is a fact would go first
                    batch = []
                batch += taken
                wanted -= len(taken)
                if wanted:
                    assignment.read_first(tp, [other for other in assignment.partitions if read.held(other) > full])
                    read.add(await assignment.fetch())
            while len(batch) >= self._batch_records:
                await self._process_some(batch[: self._batch_records])
                del batch[: self._batch_records]
        if batch and not self._stop.is_set:
            await self._process(batch)

    async def _read_facts(self) -> None:
        facts: list[Record] = []
        reached: dict[TopicPartition, int] = {}
        ends = self._assignment.control_ends
        while any(reached.get(tp, 0) < end for tp, end in ends.items()) and not self._stop.is_set:
            for tp, records in (await self._assignment.fetch()).items():
                facts += records
                reached[tp] = records[-1].offset + 1
        ordered = as_written(facts)
        for first in range(0, len(ordered), self._batch_records):
            await self._process_some(ordered[first : first + self._batch_records])

    async def _process_some(self, records: Sequence[Record]) -> None:
        await self._process(records)
        await self._rebuilding.go_on(may_finish=False)
