"""Who was champion when: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

ClockName = Literal["event", "wall"]


@dataclass(frozen=True, slots=True)
class Reign:
    """An epoch of a model, and when it began on either clock (microseconds)."""

    epoch: int
    event_us: int
    wall_us: int

    def since(self, clock: ClockName) -> int:
        return self.event_us if clock == "event" else self.wall_us


def reign_at(reigns: Sequence[Reign], at_us: int | None, clock: ClockName) -> tuple[Reign, int | None] | None:
    """Of all epochs that had begun by `at_us` the highest, and when a higher one began; None: the latest of all.

    On the event clock an epoch that began no later than one before it has never reigned.

    >>> first, second = Reign(1, 100, 5), Reign(2, 200, 6)
    >>> reign_at([first, second], 199, "event") == (first, 200)
    True
    >>> reign_at([first, second], 199, "wall") == (second, None)
    True
    """
    begun = [reign for reign in reigns if at_us is None or reign.since(clock) <= at_us]
    if not begun:
        return None
    found = max(begun, key=lambda reign: reign.epoch)
    later = [r.since(clock) for r in reigns if r.epoch > found.epoch]
    return found, min(later, default=None)
