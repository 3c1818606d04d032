"""What monitor publishes."""

from __future__ import annotations

from pydantic import Field

from evenkeel.contracts.payload import Count, Finite, Identifier, Payload, Time, Word


class FeatureDrift(Payload):
    feature: str
    psi: Finite
    p_value: Finite


class WindowMeasured(Payload):
    """A closed window of one model: performance over labels that arrived in it, and its inputs against the profile.

    Epoch and version are the champion's at its end; `versions` says whose predictions the labels of it were about.
    """

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


class DriftDetected(Payload):
    model: Identifier
    detector: Word
    epoch: Count
    version: Count
    window_start: Time
    window_end: Time
    effect_size: Finite
    significance: Finite
    """p-value (psi) or the detector's delta (adwin)."""
    n: Count
    features: list[FeatureDrift]
    detail: str


class PerformanceDegraded(Payload):
    model: Identifier
    epoch: Count
    version: Count
    metric: Word
    baseline: Finite
    current: Finite
    effect_size: Finite
    significance: Finite
    n: Count
    window_start: Time
    window_end: Time
    in_bake_period: bool = False
    detail: str


class AlertChanged(Payload):
    model: Identifier
    alert: Word
    state: Word
    """raised, cleared."""
    detail: str
