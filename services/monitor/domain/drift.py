"""Has what comes in changed? Inputs against the champion's profile (PSI), and the champion's errors over time (ADWIN)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray
from river._river_rust.drift import AdaptiveWindowing

from evenkeel.libs.sketches.psi import SIGNIFICANCE, psi
from evenkeel.services.monitor.domain.slots import Slot
from evenkeel.services.monitor.domain.statistics import design_effects, f_survival

CLOCK: Final = 32
MAX_BUCKETS: Final = 5
MIN_SIDE: Final = 5
GRACE: Final = 10
"""River's defaults of ADWIN: how often it looks, buckets per size, shortest side of a cut, rows before the first look."""
MIN_RISE: Final = 0.2
"""A change of the mean error is worth a signal if it rose by at least this share."""


@dataclass(frozen=True, slots=True)
class FeatureShift:
    """One feature's distance from the profile; `p_value` of seeing as much without a change."""

    feature: str
    psi: float
    p_value: float


def feature_shifts(names: Sequence[str], reference: NDArray[np.int64], slots: Sequence[Slot]) -> list[FeatureShift]:
    """All features, the furthest first. Rows of one slot are a cluster (statistics.design_effects).

    The p-value is of Pearson's chi-square between window and reference over the design effect, which is F-distributed
    under no change: Rao and Scott (1984). The reference is taken to be as clustered as the window. (PSI itself, the effect
    size, has a longer tail: a bin that few clusters happened to leave empty blows it up.) One slot alone has no clusters:
    its rows count as independent.
    """
    tables = np.stack([slot.counts for slot in slots if slot.counts is not None])
    actual = tables.sum(axis=0)
    measured = psi(reference, actual)
    p_values = measured.p_value if len(tables) < 2 else _clustered_p_values(reference, actual, tables)
    shifts = [FeatureShift(*one) for one in zip(names, measured.index.tolist(), p_values.tolist(), strict=True)]
    return sorted(shifts, key=lambda shift: (-shift.psi, shift.feature))


def _clustered_p_values(
    reference: NDArray[np.int64], actual: NDArray[np.int64], tables: NDArray[np.int64]
) -> NDArray[np.float64]:
    m, n = reference.sum(axis=1), actual.sum(axis=1)
    pooled = reference + actual
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = actual / n[:, None] - reference / m[:, None]
        terms = np.where(pooled > 0, np.square(difference) * (m + n)[:, None] / pooled, 0.0)
        statistic = terms.sum(axis=1) / (1.0 / m + 1.0 / n) / design_effects(tables)
    p_values = np.ones(len(n))
    for j, degrees in enumerate(((pooled > 0).sum(axis=1) - 1).tolist()):
        if degrees > 0 and m[j] and n[j]:
            p_values[j] = f_survival(float(statistic[j]) / degrees, degrees, degrees * (len(tables) - 1))
    return p_values


def shifted(shifts: Sequence[FeatureShift], threshold: float) -> list[FeatureShift]:
    """Those that are both large and significant, after Bonferroni over all features."""
    bound = SIGNIFICANCE / max(len(shifts), 1)
    return [shift for shift in shifts if shift.psi >= threshold and shift.p_value <= bound]


class ErrorState(msgspec.Struct, array_like=True):
    """ADWIN's window, as River's own plain binary state, and the rise that waits to be confirmed."""

    window: bytes
    rise: tuple[float, int, int] | None = None
    """(mean error before, rows before, when)."""


@dataclass(frozen=True, slots=True)
class ErrorRise:
    """The mean error before and since a change that ADWIN found."""

    before: float
    after: float
    n: int
    since_us: int

    @property
    def effect(self) -> float:
        return self.after - self.before


class ErrorWatch:
    """ADWIN over the champion's errors, one by one in release order: Bifet and Gavaldà (2007).

    River's engine is imported from where it lies: `river.drift` brings along scipy, pandas and scikit-learn, 190 MB.

    Errors come in bad days, and ADWIN takes them as independent; so a rise counts once it has lasted into the next slot,
    with `min_samples` rows on either side.
    """

    def __init__(self, delta: float, state: ErrorState | None = None) -> None:
        self._window = AdaptiveWindowing(delta, CLOCK, MAX_BUCKETS, MIN_SIDE, GRACE)
        self.rise: tuple[float, int, int] | None = None
        if state is not None:
            self._window.__setstate__(state.window)
            self.rise = state.rise

    def state(self) -> ErrorState:
        return ErrorState(self._window.__getstate__(), self.rise)

    @property
    def width(self) -> int:
        return int(self._window.get_width())

    @property
    def mean(self) -> float:
        width = self.width
        return self._window.get_total() / width if width else 0.0

    def update(self, errors: Sequence[float], at_us: int, min_samples: int) -> None:
        """Feed errors; a rise is dated `at_us`."""
        window = self._window
        total, width = window.get_total(), self.width
        for error in errors:
            total += error
            width += 1
            if window.update(error):
                now_width, now_total = self.width, window.get_total()
                dropped = width - now_width
                if dropped >= min_samples:
                    before, after = (total - now_total) / dropped, now_total / max(now_width, 1)
                    if self.rise is None and after > before:
                        self.rise = (before, dropped, at_us)
                total, width = now_total, now_width

    def confirmed(self, start_us: int, latest: Sequence[float], min_samples: int) -> ErrorRise | None:
        """The rise, if it was found before the slot that starts at `start_us` and errors are still up: since then, and in
        that slot's own `latest` errors. If they are not, it is over."""
        if self.rise is None or self.width < min_samples or not latest:
            return None
        before, _, since_us = self.rise
        if min(self.mean, sum(latest) / len(latest)) < before * (1.0 + MIN_RISE):
            self.rise = None
            return None
        return ErrorRise(before, self.mean, self.width, since_us) if since_us < start_us else None
