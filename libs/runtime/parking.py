"""Parked records: what an ordered handler could not take, and whatever came behind it with the same key.

A merge promises an order, so a record that its handler failed on three times cannot be left out while later ones of the
same key go on. It is parked instead, in the transaction that would have folded it, and the later ones queue up behind it.
Releasing a key folds all of them, in the order in which the merge released them, in one transaction: at the present
watermark, as late events, so that every consumer behind gets them in an order that it can keep.

Pure: the batch processor stores what is parked, and loads it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from evenkeel.contracts.envelope import Event, format_us
from evenkeel.libs.runtime.merge import Group
from evenkeel.libs.store.protocol import ParkedRecord

QueueKey = tuple[Group | None, bytes]
"""(group of the merge, record key); None: no group wants the record's stream any more."""


class _Stored(msgspec.Struct, array_like=True):
    """A parked record on disk."""

    number: int
    key: bytes
    reason: str
    since_us: int
    record: bytes


@dataclass(frozen=True, slots=True)
class Parked:
    """One record in the queue of its key."""

    number: int
    """Grows in the order in which the merge released them."""
    key: bytes
    reason: str
    """What its handler said; "" for one that waits behind another."""
    since_us: int
    """Wall time."""
    event: Event[Any]
    record: bytes
    """As held.py stores it."""

    @property
    def stored(self) -> ParkedRecord:
        event, blob = self.event, _Stored(self.number, self.key, self.reason, self.since_us, self.record)
        return ParkedRecord(event.topic, event.partition, event.offset, msgspec.msgpack.encode(blob))

    def at(self, watermark_us: int) -> Event[Any]:
        """The event as it takes its turn now: what is earlier than the watermark has had it."""
        event = self.event
        stamped = {**event.attributes, "ce_ordertime": format_us(watermark_us).encode()}
        return Event(event.data, event.id, event.time_us, event.topic, event.partition, event.offset, stamped)


def read_parked(stored: ParkedRecord, decode: Callable[[bytes], Event[Any]]) -> Parked:
    found = msgspec.msgpack.decode(stored.blob, type=_Stored)
    event = decode(found.record)
    return Parked(found.number, found.key, found.reason, found.since_us, event, found.record)


class ParkedQueues:
    """All that is parked: a queue for each key of each group."""

    def __init__(self) -> None:
        self._queues: dict[QueueKey, list[Parked]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __contains__(self, key: QueueKey) -> bool:
        return key in self._queues

    def __iter__(self) -> Iterator[tuple[Group | None, list[Parked]]]:
        """Each queue with its group, the longest parked first."""
        ordered = sorted(self._queues.items(), key=lambda item: item[1][0].number)
        return iter([(group, list(queue)) for (group, _), queue in ordered])

    @property
    def records(self) -> int:
        return sum(map(len, list(self._queues.values())))

    @property
    def next_number(self) -> int:
        return 1 + max((queue[-1].number for queue in self._queues.values()), default=0)

    def add(self, group: Group | None, parked: Parked) -> None:
        self._queues.setdefault((group, parked.key), []).append(parked)

    def take(self, key: QueueKey) -> list[Parked]:
        """The queue of a key, which is no longer parked."""
        return self._queues.pop(key, [])

    def arrange(self, parked: Iterable[Parked], group_of: Callable[[Event[Any]], Group | None]) -> None:
        """Queue these by the groups as they are now."""
        self._queues.clear()
        for one in sorted(parked, key=lambda p: p.number):
            self.add(group_of(one.event), one)
