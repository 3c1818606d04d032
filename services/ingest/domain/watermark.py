"""The watermark of one stream: nothing earlier than this will come (guarantees.md, section 5).

It is the smallest, over the partitions of the stream's raw topic, of the largest event time seen there minus the declared
disorder. A heartbeat counts in full. A partition from which nothing was heard holds the watermark back, until the stream
has waited for it for the declared time of wall clock; then it is left out of the minimum until it speaks again.
The watermark never goes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

STALL_US: Final = 60_000_000
"""Added to the wait when a partition's end lies beyond what was read although nothing arrives: transaction markers,
records deleted by retention, or, for a moment, a fetch that is still on its way."""
_LONGEST_LOOK_US: Final = 2_000_000
"""More than this between two looks means that nobody was listening: it does not count as waiting."""


class StreamClock:
    """The partitions of one stream and the watermark that follows from them. Times are microseconds since the epoch."""

    __slots__ = ("heard", "left_out", "marks", "watermark_us")

    def __init__(self, marks: Mapping[int, int | None] | None = None, watermark_us: int | None = None) -> None:
        self.marks: dict[int, int | None] = dict(marks or {})
        """Per partition: nothing earlier is expected there; None as long as nothing was heard from it."""
        self.watermark_us = watermark_us
        self.left_out: set[int] = set()
        self.heard: dict[int, int] = {}
        """How often each partition spoke, since the start."""

    def partitions(self, count: int) -> None:
        """There are `count` partitions, also those that have not spoken yet."""
        for partition in range(count):
            self.marks.setdefault(partition, None)

    def advance(self, partition: int, mark_us: int) -> None:
        """The partition spoke: nothing earlier than `mark_us` is expected from it."""
        self.heard[partition] = self.heard.get(partition, 0) + 1
        self.left_out.discard(partition)
        before = self.marks.get(partition)
        if before is not None and mark_us <= before:
            return
        self.marks[partition] = mark_us
        if before is None or self.watermark_us is None or before <= self.watermark_us:
            self._settle()

    def holding(self) -> list[int]:
        """The partitions that hold the watermark back: others are further."""
        furthest_us = max((mark for mark in self.marks.values() if mark is not None), default=None)
        if furthest_us is None:
            return []
        return [
            partition
            for partition, mark in self.marks.items()
            if (mark is None or mark < furthest_us) and partition not in self.left_out
        ]

    def leave_out(self, partitions: Iterable[int]) -> list[int]:
        """Do not wait for these any longer, until they speak; returns those that really held the watermark back."""
        given_up = [partition for partition in partitions if partition in self.holding()]
        self.left_out.update(given_up)
        self._settle()
        return given_up

    def _settle(self) -> None:
        lowest_us: int | None = None
        for partition, mark in self.marks.items():
            if partition in self.left_out:
                continue
            if mark is None:
                return
            if lowest_us is None or mark < lowest_us:
                lowest_us = mark
        if lowest_us is not None and (self.watermark_us is None or lowest_us > self.watermark_us):
            self.watermark_us = lowest_us


@dataclass(slots=True)
class _Wait:
    heard: int
    position: int
    waited_us: int = 0


class Patience:
    """How long a stream has waited, by the wall clock, for each partition that holds it back.

    Only time in which the broker answered and had nothing unread counts, so an outage of ours is no silence of theirs.
    """

    def __init__(self) -> None:
        self._waits: dict[int, _Wait] = {}
        self._looked_us: int | None = None

    def interrupted(self) -> None:
        """The broker did not answer."""
        self._looked_us = None

    def look(
        self, clock: StreamClock, positions: Mapping[int, int], ends: Mapping[int, int], wait_us: int, now_us: int
    ) -> list[int]:
        """The partitions that have been waited for long enough.

        `positions`: what was read of each partition; `ends`: where the broker says that it ends (both as next offset).
        """
        elapsed_us = 0 if self._looked_us is None else max(0, min(now_us - self._looked_us, _LONGEST_LOOK_US))
        self._looked_us = now_us
        waits: dict[int, _Wait] = {}
        enough: list[int] = []
        for partition in clock.holding():
            heard, position = clock.heard.get(partition, 0), positions.get(partition, 0)
            wait = self._waits.get(partition)
            if wait is None or wait.heard != heard or partition not in ends:
                wait = _Wait(heard, position)
            elif position >= ends[partition]:
                wait.waited_us += elapsed_us
                if wait.waited_us > wait_us:
                    enough.append(partition)
            elif position == wait.position:
                wait.waited_us += elapsed_us
                if wait.waited_us > wait_us + STALL_US:
                    enough.append(partition)
            wait.position = position
            waits[partition] = wait
        self._waits = waits
        return enough
