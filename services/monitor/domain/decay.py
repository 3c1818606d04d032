"""Is the champion worse than it was? Its metric on what it answered lately, against a baseline of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.clusters import clustered_standard_error
from evenkeel.libs.distributions import student_survival
from evenkeel.libs.metrics import DEFAULT_THRESHOLD, UndefinedMetricError, evaluate, metric_named
from evenkeel.services.monitor.domain.policy import Baseline, Policy
from evenkeel.services.monitor.domain.slots import Rows

SIGNIFICANCE: Final = 0.001
"""The question is asked again after every slot of an epoch, so that one answer must be this sure."""
MIN_SLOTS: Final = 3
"""Fewer slots say nothing of how slots differ."""


@dataclass(frozen=True, slots=True)
class Decay:
    """`effect`: how much worse than the baseline, in the metric's unit; `significance`: p-value of that being within the
    tolerance."""

    metric: str
    baseline: float
    current: float
    effect: float
    significance: float
    n: int


def measured(rows: Rows, policy: Policy) -> dict[str, float | None]:
    """Every metric of the task; None where these rows cannot tell."""
    return evaluate(policy.task, rows.label, rows.score, decisions(rows)) if len(rows) else {}


def decisions(rows: Rows) -> NDArray[np.float64]:
    """Each row's own decision, as a score that says it: rows of several champions had several thresholds."""
    return np.where(rows.decision < 0, rows.score >= DEFAULT_THRESHOLD, rows.decision).astype(np.float64)


def errors(rows: Rows) -> list[float]:
    """What is watched over time: the distance of score and label."""
    distance: list[float] = np.abs(rows.score - rows.label).tolist()
    return distance


def current(parts: Sequence[Rows], rows: Rows, name: str) -> tuple[float, float] | None:
    """The metric over `rows`, the concatenation of `parts` of a slot each, and its standard error; None if undefined."""
    metric = metric_named(name)
    score = decisions(rows) if metric.thresholded else rows.score
    try:
        influence = metric.influence(rows.label, score)
        return metric.value(rows.label, score), clustered_standard_error(influence, [len(part) for part in parts])
    except UndefinedMetricError:
        return None


def find_decay(parts: Sequence[Rows], rows: Rows, baseline: Baseline, policy: Policy) -> Decay | None:
    """The loss against the baseline if it is beyond the tolerance, and that is significant; one-sided t-test.

    The baseline's standard error is the window's, scaled to its rows: they come from the same stream.
    """
    found = current(parts, rows, policy.metric)
    if found is None:
        return None
    value, standard_error = found
    loss = metric_named(policy.metric).improvement(baseline.value, over=value)
    spread = standard_error * math.sqrt(1.0 + len(rows) / max(baseline.n, 1))
    if loss <= policy.monitoring.decay_tolerance or spread <= 0.0:
        return None
    degrees = len(parts) - 1 if len(parts) > 1 else len(rows) - 1
    significance = student_survival((loss - policy.monitoring.decay_tolerance) / spread, degrees)
    if significance > SIGNIFICANCE:
        return None
    return Decay(policy.metric, baseline.value, value, loss, significance, len(rows))
