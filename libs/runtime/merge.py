"""The event-time merge: several topics, one order that depends on neither partitions nor batches nor crashes.

Each input (topic, partition, stream) has a watermark, made by ingest and carried in band by clock records: nothing of that
stream with an earlier order follows on that partition. A group of streams is released up to the smallest watermark of its
inputs, strictly: records with `order_us < watermark` leave in the order (order_us, stream, event id). Ingest fixes the order
of each event it accepts: the later of event time and the stream's watermark of that moment, so a late record has a place in
the order too, and no record can come below a watermark that was announced on its partition before it.

The streams of a model's views are one input: on each partition a view begins where the one before it ends, so the watermark
of the next one holds for all of them.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.ids import merged_as
from evenkeel.contracts.payload import Payload

Group = frozenset[tuple[type[Payload], str]]
InputKey = tuple[str, int, str]
"""(topic, partition, stream)."""
_Entry = tuple[int, str, str, str, int, int, Event[Any]]


class EventTimeMerge:
    """Holds what may not be released yet. Pure: the runtime stores what it holds and replays it after a restart."""

    def __init__(self, partitions: dict[str, int], topic_of: dict[type[Payload], str]) -> None:
        self._partitions, self._topic_of = partitions, topic_of
        self._watermarks: dict[InputKey, int] = {}
        self._changed: dict[InputKey, int] = {}
        self._heaps: defaultdict[Group, list[_Entry]] = defaultdict(list)
        self._group_of: dict[tuple[str, str], Group] = {}
        self._inputs: dict[Group, list[InputKey]] = {}
        self.late = 0
        """Records that came below what had been released: only ones without an ingest stamp, such as request predictions."""
        self._released_us: dict[Group, int] = {}

    def regroup(self, groups: Iterable[Group]) -> list[Event[Any]]:
        """Take the groups as they are now; returns the held events that no group wants any more."""
        wanted = set(groups)
        if wanted == set(self._inputs):
            return []
        held = [entry[-1] for heap in self._heaps.values() for entry in heap]
        self._heaps.clear()
        self._group_of = {(self._topic_of[payload], stream): group for group in wanted for payload, stream in group}
        self._inputs = {
            group: [
                (self._topic_of[payload], partition, stream)
                for payload, stream in group
                for partition in range(self._partitions[self._topic_of[payload]])
            ]
            for group in wanted
        }
        self._released_us = {group: us for group, us in self._released_us.items() if group in wanted}
        return [event for event in held if not self.add(event)]

    def group_of(self, event: Event[Any]) -> Group | None:
        """The group that wants an event's stream."""
        return self._group_of.get((event.topic, merged_as(event.stream)))

    def released_us(self, group: Group) -> int | None:
        """Everything before this has been released; None: nothing yet, since these groups were made."""
        return self._released_us.get(group)

    def restore(self, watermarks: dict[InputKey, int]) -> None:
        """After a restart: whatever lay below the stored watermarks was released in the transaction that stored them."""
        self._watermarks = dict(watermarks)
        self._changed = {}
        released = ((group, self.watermark_us(group)) for group in self._inputs)
        self._released_us = {group: us for group, us in released if us is not None}

    def observe(self, topic: str, partition: int, stream: str, watermark_us: int) -> None:
        """A watermark was read; it never goes back."""
        key = (topic, partition, merged_as(stream))
        if watermark_us > self._watermarks.get(key, -(2**63)):
            self._watermarks[key] = self._changed[key] = watermark_us

    def changed_watermarks(self) -> dict[InputKey, int]:
        changed, self._changed = self._changed, {}
        return changed

    def add(self, event: Event[Any]) -> bool:
        """Hold an event; False if no group wants its stream."""
        group = self.group_of(event)
        if group is None:
            return False
        order_us = event.order_us
        if order_us < self._released_us.get(group, order_us):
            order_us = self._released_us[group]
            self.late += 1
        entry = (order_us, merged_as(event.stream), event.id, event.topic, event.partition, event.offset, event)
        heapq.heappush(self._heaps[group], entry)
        return True

    def watermark_us(self, group: Group) -> int | None:
        """The smallest watermark of the group's inputs; None while one of them has not been heard of."""
        values = [self._watermarks.get(key) for key in self._inputs[group]]
        return min(v for v in values if v is not None) if values and None not in values else None

    def ahead(self) -> set[tuple[str, int]]:
        """The (topic, partition) from which reading can wait: on each, every stream is further than its group's watermark."""
        ahead: set[tuple[str, int]] = set()
        behind: set[tuple[str, int]] = set()
        for group, inputs in self._inputs.items():
            lowest_us = self.watermark_us(group)
            for topic, partition, stream in inputs:
                mark_us = self._watermarks.get((topic, partition, stream))
                is_ahead = mark_us is not None and (lowest_us is None or mark_us > lowest_us)
                (ahead if is_ahead else behind).add((topic, partition))
        return ahead - behind

    def clear(self) -> None:
        """Forget what is held; the runtime adds it again from the store."""
        self._heaps.clear()

    def release(self) -> Iterator[tuple[Group, int, list[Event[Any]]]]:
        """Per group whose watermark has moved: the watermark and the events before it, in order."""
        for group in sorted(self._inputs, key=name_of):
            watermark_us = self.watermark_us(group)
            if watermark_us is None or watermark_us <= self._released_us.get(group, -(2**63)):
                continue
            heap, events = self._heaps[group], []
            while heap and heap[0][0] < watermark_us:
                events.append(heapq.heappop(heap)[-1])
            self._released_us[group] = watermark_us
            yield group, watermark_us, events

    @property
    def held(self) -> int:
        return sum(len(heap) for heap in self._heaps.values())


def name_of(group: Group) -> str:
    """A stable name of a group, which is its shard."""
    return "merge:" + ",".join(sorted(f"{payload.__name__}/{stream}" for payload, stream in group))
