"""What monitor publishes."""

from __future__ import annotations

from pydantic import Field

from evenkeel.contracts.payload import Count, Fact, Finite, Identifier, Payload, Time, Word
from evenkeel.contracts.words import chance, count, span


class FeatureDrift(Payload):
    """What one statistic says of one feature's distance from the reference."""

    feature: str
    statistic: Word
    effect: Finite
    """How far they are apart, in the statistic's own unit; 0: not at all."""
    significance: Finite
    """p-value of seeing as much without any change."""
    n: Count
    """Rows that were compared."""


class WindowMeasured(Fact):
    """A closed window of one model: performance over labels that arrived in it, and its inputs against the profile.

    Epoch and version are the champion's at its end; `versions` says whose predictions the labels of it were about.
    """

    what = "window"

    model: Identifier
    window_start: Time
    window_end: Time
    epoch: Count | None = None
    version: Count | None = None
    labelled: Count
    predictions: Count
    vectors: Count = 0
    versions: dict[str, Count] = Field(default_factory=dict)
    """Version → labelled predictions."""
    metrics: dict[str, Finite | None]
    drift: list[FeatureDrift]
    """Every feature by every statistic of the policy, the furthest first."""

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        measured = [f"{name} {value:.4f}" for name, value in sorted(self.metrics.items()) if value is not None]
        quality = f", {', '.join(measured)}" if measured else ""
        under = "" if self.version is None else f" under version {self.version}"
        return (
            f"{span(self.window_start, self.window_end)}{under}: {count(self.vectors, 'vector')}, "
            f"{count(self.predictions, 'prediction')}, {self.labelled:,} of them labelled{quality}"
        )


class DriftDetected(Fact):
    what = "drift"

    model: Identifier
    detector: Word
    """A statistic that compares inputs with training, or a detector of change in the champion's errors."""
    epoch: Count
    version: Count
    window_start: Time
    window_end: Time
    effect: Finite
    """The furthest feature's, in the statistic's unit; or by how much the mean error rose."""
    significance: Finite
    """The furthest feature's p-value, or the rate of false alarms that the detector is set to."""
    n: Count
    """Vectors in the window, or labelled predictions since the change."""
    features: list[FeatureDrift]
    """The furthest first: those that are far enough, or, beside risen errors, those that may have to do with it."""
    detail: str

    def number(self, offset: int) -> int | None:
        return self.epoch

    def sentence(self) -> str:
        furthest = self.features[0] if self.features else None
        named = (
            "" if furthest is None else f"; furthest {furthest.feature} with {furthest.statistic} {furthest.effect:.3f}"
        )
        return (
            f"{self.detector} found drift of {self.effect:.3f} in {span(self.window_start, self.window_end)} under "
            f"version {self.version} (significance {chance(self.significance)}, n {self.n:,}){named}"
        )


class PerformanceDegraded(Fact):
    what = "decay"

    model: Identifier
    epoch: Count
    version: Count
    metric: Word
    baseline: Finite
    current: Finite
    effect: Finite
    """By how much it is worse than the baseline, in the metric's unit."""
    significance: Finite
    """p-value of that being within the tolerance."""
    n: Count
    """Labelled predictions in the window."""
    window_start: Time
    window_end: Time
    in_bake_period: bool = False
    detail: str

    def number(self, offset: int) -> int | None:
        return self.epoch

    def sentence(self) -> str:
        bake = ", in its bake period" if self.in_bake_period else ""
        return (
            f"{self.metric} of version {self.version} went from {self.baseline:.4f} to {self.current:.4f} in "
            f"{span(self.window_start, self.window_end)}{bake} (significance {chance(self.significance)}, n {self.n:,})"
        )


class AlertChanged(Fact):
    what = "alert"

    model: Identifier
    alert: Word
    state: Word
    """raised, cleared."""
    detail: str

    def number(self, offset: int) -> int | None:
        return None

    def sentence(self) -> str:
        return f"alert {self.alert} of {self.model} was {self.state}: {self.detail}"
