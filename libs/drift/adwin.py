"""ADWIN, adaptive windowing: Bifet and Gavaldà (2007), by River's engine.

A window of values is cut wherever two parts of it have means that differ by more than chance would with probability
`delta`. Its memory grows with the logarithm of the window's length.

River's engine is imported from where it lies: `river.drift` brings along scipy, pandas and scikit-learn, 190 MB.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from river._river_rust.drift import AdaptiveWindowing

from evenkeel.libs.drift.detector import Change

CLOCK: Final = 32
MAX_BUCKETS: Final = 5
MIN_SIDE: Final = 5
GRACE: Final = 10
"""River's defaults: how often it looks, buckets per size, shortest side of a cut, rows before the first look."""


def new(parameters: Mapping[str, float], state: bytes | None) -> Adwin:
    """`delta`: the rate of false alarms, in (0, 1). `state` is River's own plain binary one.

    >>> detector = new({"delta": 0.002}, None)
    >>> [change] = detector.update([0.0] * 64 + [1.0] * 32)
    >>> change.dropped, change.before, round(change.after, 3), detector.width
    (40, 0.0, 0.571, 56)
    """
    return Adwin(parameters["delta"], state)


class Adwin:
    """One window."""

    def __init__(self, delta: float, state: bytes | None) -> None:
        self.significance = delta
        self._window = AdaptiveWindowing(delta, CLOCK, MAX_BUCKETS, MIN_SIDE, GRACE)
        if state is not None:
            self._window.__setstate__(state)

    @property
    def width(self) -> int:
        return int(self._window.get_width())

    @property
    def mean(self) -> float:
        width = self.width
        return self._window.get_total() / width if width else 0.0

    def update(self, values: Sequence[float]) -> list[Change]:
        window = self._window
        total, width = window.get_total(), self.width
        changes = []
        for value in values:
            total += value
            width += 1
            if window.update(value):
                now_width, now_total = self.width, window.get_total()
                dropped = width - now_width
                if dropped:
                    changes.append(Change(dropped, (total - now_total) / dropped, now_total / max(now_width, 1)))
                total, width = now_total, now_width
        return changes

    def state(self) -> bytes:
        return bytes(self._window.__getstate__())
