"""Is the champion worse than it was? Its metric on what it answered lately, against a baseline of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from libs.metrics import (
    BINARY_METRICS,
    HIGHER_IS_BETTER,
    REGRESSION_METRICS,
    MetricName,
    UndefinedMetricError,
    evaluate,
    metric,
)
from services.monitor.domain.records import Baseline, Policy
from services.monitor.domain.slots import Rows
from services.monitor.domain.statistics import clustered_standard_error, student_survival

SIGNIFICANCE: Final = 0.001
"""The question is asked again after every slot of an epoch, so that one answer must be this sure."""
MIN_SLOTS: Final = 3
"""Fewer slots say nothing of how slots differ."""
_THRESHOLDED: Final = ("accuracy", "precision", "recall", "f1")


@dataclass(frozen=True, slots=True)
class Decay:
    """`effect`: how much worse than the baseline, in the metric's unit; `p_value`: of that being within the tolerance."""

    metric: MetricName
    baseline: float
    current: float
    effect: float
    p_value: float
    n: int


def measured(rows: Rows, policy: Policy) -> dict[str, float | None]:
    """Every metric of the task; None where these rows cannot tell."""
    if policy.task == "multiclass" or not len(rows):
        return {}
    if policy.task == "regression":
        return dict(evaluate(REGRESSION_METRICS, rows.label, rows.score))
    ranked = tuple(name for name in BINARY_METRICS if name not in _THRESHOLDED)
    decided = tuple(name for name in BINARY_METRICS if name in _THRESHOLDED)
    return {**evaluate(ranked, rows.label, rows.score), **evaluate(decided, rows.label, decisions(rows))}


def decisions(rows: Rows) -> NDArray[np.float64]:
    """Each row's own decision, as a score that says it: rows of several champions had several thresholds."""
    return np.where(rows.decision < 0, rows.score >= 0.5, rows.decision).astype(np.float64)


def errors(rows: Rows) -> list[float]:
    """What ADWIN watches: the distance of score and label."""
    distance: list[float] = np.abs(rows.score - rows.label).tolist()
    return distance


def current(parts: Sequence[Rows], rows: Rows, name: MetricName) -> tuple[float, float] | None:
    """The metric over `rows`, the concatenation of `parts` of a slot each, and its standard error; None if undefined."""
    score = decisions(rows) if name in _THRESHOLDED else rows.score
    try:
        value = metric(name, rows.label, score)
        return value, clustered_standard_error(influence(name, rows.label, score, value), [len(p) for p in parts])
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
    loss = baseline.value - value if HIGHER_IS_BETTER[policy.metric] else value - baseline.value
    spread = standard_error * math.sqrt(1.0 + len(rows) / max(baseline.n, 1))
    if loss <= policy.decay_tolerance or spread <= 0.0:
        return None
    degrees = len(parts) - 1 if len(parts) > 1 else len(rows) - 1
    p_value = student_survival((loss - policy.decay_tolerance) / spread, degrees)
    return Decay(policy.metric, baseline.value, value, loss, p_value, len(rows)) if p_value <= SIGNIFICANCE else None


def influence(
    name: MetricName, label: NDArray[np.float64], score: NDArray[np.float64], value: float
) -> NDArray[np.float64]:
    """Rows' influence on the metric, float64[n] with mean zero: to first order, its error is the mean of these.

    Placements for roc_auc (DeLong et al., 1988), the ratio's linearisation for f1, precision and recall.
    """
    if name == "roc_auc":
        return _placements(label, score, value)
    if name == "log_loss":
        epsilon = float(np.finfo(np.float64).eps)
        clipped = np.clip(score, epsilon, 1.0 - epsilon)
        each = -np.where(label == 1.0, np.log(clipped), np.log1p(-clipped))
    elif name == "mae":
        each = np.abs(score - label)
    elif name in ("brier", "rmse"):
        each = np.square(score - label) / (2.0 * value if name == "rmse" and value else 1.0)
    elif name == "accuracy":
        each = (score == label).astype(np.float64)
    else:
        hit = score * label
        parts = {"precision": (hit, score), "recall": (hit, label), "f1": (2.0 * hit, score + label)}
        numerator, denominator = parts[name]
        each = (numerator - value * denominator) / denominator.mean()
    centred: NDArray[np.float64] = each - each.mean()
    return centred


def _placements(label: NDArray[np.float64], score: NDArray[np.float64], value: float) -> NDArray[np.float64]:
    positive = label == 1.0
    above, below = np.sort(score[positive]), np.sort(score[~positive])
    n = len(label)
    out = np.empty(n)
    out[positive] = (_rank(below, score[positive]) / len(below) - value) * n / len(above)
    out[~positive] = (1.0 - _rank(above, score[~positive]) / len(above) - value) * n / len(below)
    return out


def _rank(ordered: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    return (ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right")) / 2.0
