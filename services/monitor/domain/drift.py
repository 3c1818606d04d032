"""Has what comes in changed? A window's inputs against the champion's profile, and the champion's errors over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.drift import SIGNIFICANCE, Verdict, detector_named, statistic_named
from evenkeel.libs.sketches.profile import Profile
from evenkeel.services.monitor.domain.slots import Slot

MIN_RISE: Final = 0.2
"""A change of the mean error is worth a signal if it rose by at least this share."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What inputs are compared with: k features by name and kind of profile, and int64[k, width] counts."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, profile: Profile) -> Reference:
        features = profile.features
        return cls(tuple(one.name for one in features), tuple(one.kind for one in features), profile.counts)


@dataclass(frozen=True, slots=True)
class FeatureShift:
    """What one statistic says of one feature, and from which effect on that is worth a signal."""

    feature: str
    verdict: Verdict
    threshold: float

    @property
    def excess(self) -> float:
        """The effect in units of its threshold: what effects of several statistics can be ordered by."""
        return self.verdict.effect / self.threshold


def feature_shifts(reference: Reference, slots: Sequence[Slot], statistics: Mapping[str, float]) -> list[FeatureShift]:
    """Every feature by every statistic (name → threshold), the furthest first. Rows of one slot are a cluster."""
    clusters = np.stack([slot.counts for slot in slots if slot.counts is not None])
    shifts = [
        FeatureShift(reference.names[place], verdict, threshold)
        for name, threshold in statistics.items()
        for place, verdict in statistic_named(name).verdicts(reference.kinds, reference.counts, clusters).items()
    ]
    return sorted(shifts, key=lambda shift: (-shift.excess, shift.feature, shift.verdict.statistic))


def shifted(shifts: Sequence[FeatureShift]) -> list[FeatureShift]:
    """Those that are both large and significant, after Bonferroni over all comparisons."""
    bound = SIGNIFICANCE / max(len(shifts), 1)
    return [
        shift for shift in shifts if shift.verdict.effect >= shift.threshold and shift.verdict.significance <= bound
    ]


class ErrorState(msgspec.Struct, array_like=True):
    """A detector's own state, and the rise that waits to be confirmed."""

    window: bytes
    rise: tuple[float, int, int] | None = None
    """(mean error before, rows before, when)."""


@dataclass(frozen=True, slots=True)
class ErrorRise:
    """The mean error before and since a change that a detector found. `significance`: its rate of false alarms."""

    detector: str
    significance: float
    before: float
    after: float
    n: int
    since_us: int

    @property
    def effect(self) -> float:
        return self.after - self.before


class ErrorWatch:
    """A detector of change over the champion's errors, one by one in release order.

    Errors come in bad days, and detectors take them as independent; so a rise counts once it has lasted into the next
    slot, with `min_samples` rows on either side.
    """

    def __init__(self, detector: str, parameters: Mapping[str, float], state: ErrorState | None = None) -> None:
        self.name = detector
        self.detector = detector_named(detector).new(parameters, None if state is None else state.window)
        self.rise: tuple[float, int, int] | None = None if state is None else state.rise

    def state(self) -> ErrorState:
        return ErrorState(self.detector.state(), self.rise)

    def update(self, errors: Sequence[float], at_us: int, min_samples: int) -> None:
        """Feed errors; a rise is dated `at_us`."""
        for change in self.detector.update(errors):
            if self.rise is None and change.dropped >= min_samples and change.after > change.before:
                self.rise = (change.before, change.dropped, at_us)

    def confirmed(self, start_us: int, latest: Sequence[float], min_samples: int) -> ErrorRise | None:
        """The rise, if it was found before the slot that starts at `start_us` and errors are still up: since then, and in
        that slot's own `latest` errors. If they are not, it is over."""
        width, mean = self.detector.width, self.detector.mean
        if self.rise is None or width < min_samples or not latest:
            return None
        before, _, since_us = self.rise
        if min(mean, sum(latest) / len(latest)) < before * (1.0 + MIN_RISE):
            self.rise = None
            return None
        if since_us >= start_us:
            return None
        return ErrorRise(self.name, self.detector.significance, before, mean, width, since_us)
