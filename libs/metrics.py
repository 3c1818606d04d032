"""Quality of predictions, and whether one model is better than another on the same rows.

Arrays are one-dimensional with one element per row: `label` float64[n] (0 or 1 for a binary task), `score` float64[n]
(probability of class 1, or the regression's value). A metric that the rows cannot tell (one class only, nothing
predicted positive) raises `UndefinedMetricError`; malformed input raises `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, Final, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from contracts.trainer import Comparison

MetricName: TypeAlias = Literal["roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1", "mae", "rmse"]
Array: TypeAlias = NDArray[np.float64]

HIGHER_IS_BETTER: Final[dict[MetricName, bool]] = {
    "roc_auc": True,
    "log_loss": False,
    "brier": False,
    "accuracy": True,
    "precision": True,
    "recall": True,
    "f1": True,
    "mae": False,
    "rmse": False,
}
BINARY_METRICS: Final[tuple[MetricName, ...]] = (
    "roc_auc",
    "log_loss",
    "brier",
    "accuracy",
    "precision",
    "recall",
    "f1",
)
REGRESSION_METRICS: Final[tuple[MetricName, ...]] = ("mae", "rmse")


class UndefinedMetricError(ValueError):
    """These rows cannot tell this metric; the message says why."""


def roc_auc(label: Array, score: Array) -> float:
    """Area under the ROC curve in [0, 1]: the probability that a positive outranks a negative, ties counting half.

    Source: Hanley and McNeil (1982), through mid-ranks. Undefined when one class is missing.

    >>> roc_auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    label, score = _binary(label, score)
    positive = label == 1.0
    positives = int(positive.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        raise UndefinedMetricError(f"roc_auc needs both classes; {positives} of {len(label)} rows are positive")
    rank_sum = float(_mid_ranks(score)[positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def log_loss(label: Array, score: Array) -> float:
    """Mean negative log-likelihood in nats, in [0, 36.1]: probabilities are clipped to float64's epsilon.

    >>> round(log_loss(np.array([1.0, 0.0]), np.array([0.9, 0.2])), 6)
    0.164252
    """
    return float(_log_losses(*_binary(label, score)).mean())


def brier(label: Array, score: Array) -> float:
    """Mean squared difference between probability and label, in [0, 1]. Source: Brier (1950).

    >>> round(brier(np.array([1.0, 0.0]), np.array([0.9, 0.2])), 6)
    0.025
    """
    label, score = _binary(label, score)
    return float(np.square(score - label).mean())


def accuracy(label: Array, score: Array, threshold: float = 0.5) -> float:
    """Share of rows whose decision `score >= threshold` equals the label, in [0, 1].

    >>> accuracy(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.2, 0.3, 0.1]))
    0.75
    """
    label, score = _binary(label, score)
    return float(((score >= threshold) == (label == 1.0)).mean())


def precision(label: Array, score: Array, threshold: float = 0.5) -> float:
    """Share of positive decisions that are right, in [0, 1]. Undefined when nothing is decided positive.

    >>> precision(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.7, 0.3, 0.1]))
    0.5
    """
    return _ratio("precision", *_binary(label, score), threshold)


def recall(label: Array, score: Array, threshold: float = 0.5) -> float:
    """Share of positives that are decided positive, in [0, 1]. Undefined without a positive row.

    >>> recall(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.7, 0.3, 0.1]))
    0.5
    """
    return _ratio("recall", *_binary(label, score), threshold)


def f1(label: Array, score: Array, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall, in [0, 1]. Undefined when no row is or is decided positive.

    >>> f1(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.7, 0.3, 0.1]))
    0.5
    """
    return _ratio("f1", *_binary(label, score), threshold)


def mae(label: Array, score: Array) -> float:
    """Mean absolute error, in the label's unit.

    >>> mae(np.array([1.0, 4.0]), np.array([2.0, 2.0]))
    1.5
    """
    label, score = _checked(label, score)
    return float(np.abs(score - label).mean())


def rmse(label: Array, score: Array) -> float:
    """Root of the mean squared error, in the label's unit.

    >>> rmse(np.array([1.0, 9.0]), np.array([2.0, 2.0]))
    5.0
    """
    label, score = _checked(label, score)
    return float(np.sqrt(np.square(score - label).mean()))


def metric(name: MetricName, label: Array, score: Array, threshold: float = 0.5) -> float:
    """The metric of that name; `threshold` matters to accuracy, precision, recall and f1 only."""
    if name in _THRESHOLDED:
        return _THRESHOLDED[name](label, score, threshold)
    return _THRESHOLD_FREE[name](label, score)


def evaluate(
    names: tuple[MetricName, ...], label: Array, score: Array, threshold: float = 0.5
) -> dict[str, float | None]:
    """Several metrics of one model; None where these rows cannot tell."""
    values: dict[str, float | None] = {}
    for name in names:
        try:
            values[name] = metric(name, label, score, threshold)
        except UndefinedMetricError:
            values[name] = None
    return values


def compare(
    name: MetricName,
    label: Array,
    candidate: Array,
    champion: Array,
    *,
    confidence: float = 0.95,
    candidate_threshold: float = 0.5,
    champion_threshold: float = 0.5,
) -> Comparison:
    """Compare two models' scores, float64[n] each, on the same rows: the one place that knows which way a metric points.

    The standard error is that of the mean difference of the two models' influence values, row by row: DeLong, DeLong
    and Clarke-Pearson (1988) in the fast form of Sun and Xu (2014) for roc_auc, the plain paired difference for means
    (log_loss, brier, accuracy, mae), the delta method for rmse, precision, recall and f1. Bounds are normal, so `n`
    should be in the hundreds; rows that depend on each other (the same hour's weather) make the bound too narrow.
    Raises `UndefinedMetricError`, and `ValueError` for fewer than two rows or a confidence outside [0.5, 1).
    """
    if not 0.5 <= confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be at least 0.5 and below 1")
    if len(label) < 2:
        raise ValueError(f"a paired comparison needs two rows or more, not {len(label)}")
    ours, theirs = (
        metric(name, label, candidate, candidate_threshold),
        metric(name, label, champion, champion_threshold),
    )
    if name == "roc_auc":
        variance = _delong_variance(label, candidate, champion)
    else:
        influence = _influence(name, label, candidate, candidate_threshold)
        influence -= _influence(name, label, champion, champion_threshold)
        variance = float(influence.var(ddof=1)) / len(label)
    improvement = ours - theirs if HIGHER_IS_BETTER[name] else theirs - ours
    standard_error = float(np.sqrt(variance))
    reach = NormalDist().inv_cdf(confidence) * standard_error
    return Comparison(
        metric=name,
        n=len(label),
        candidate=ours,
        champion=theirs,
        improvement=improvement,
        standard_error=standard_error,
        improvement_lower=improvement - reach,
        improvement_upper=improvement + reach,
        confidence=confidence,
    )


def best_f1_threshold(label: Array, score: Array) -> float:
    """The threshold t that maximises f1 of `score >= t`: midway between two scores, in [0, 1].

    Undefined without a positive row.

    >>> best_f1_threshold(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.4, 0.2, 0.8])) == (0.2 + 0.4) / 2
    True
    """
    label, score = _binary(label, score)
    if not label.any():
        raise UndefinedMetricError("a threshold needs positive rows; there are none")
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], np.cumsum(label[order])
    last_of_tie = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    value = 2.0 * hits[last_of_tie] / (last_of_tie + 1 + label.sum())
    best = int(last_of_tie[int(np.argmax(value))])
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    middle = float(ranked[best] + below) / 2
    return middle if below < middle else float(ranked[best])


_THRESHOLD_FREE: Final[dict[MetricName, Callable[[Array, Array], float]]] = {
    "roc_auc": roc_auc,
    "log_loss": log_loss,
    "brier": brier,
    "mae": mae,
    "rmse": rmse,
}
_THRESHOLDED: Final[dict[MetricName, Callable[[Array, Array, float], float]]] = {
    "accuracy": accuracy,
    "precision": precision,
    "recall": recall,
    "f1": f1,
}
assert set(get_args(MetricName)) == set(HIGHER_IS_BETTER) == set(_THRESHOLD_FREE) | set(_THRESHOLDED)


def _checked(label: Array, score: Array) -> tuple[Array, Array]:
    label, score = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise ValueError(f"label {label.shape} and score {score.shape} must be one-dimensional and of one length")
    if not len(label):
        raise UndefinedMetricError("there are no rows")
    if not (np.isfinite(label).all() and np.isfinite(score).all()):
        raise ValueError("label and score must be finite")
    return label, score


def _binary(label: Array, score: Array) -> tuple[Array, Array]:
    label, score = _checked(label, score)
    if not ((label == 0.0) | (label == 1.0)).all():
        raise ValueError("a binary metric needs labels that are 0 or 1")
    return label, score


def _mid_ranks(values: Array) -> Array:
    """Ranks from 1, tied values sharing the middle of their ranks; float64[n]."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    lengths = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (lengths + 1) / 2, lengths)
    return ranks


def _placements(label: Array, score: Array) -> tuple[Array, Array]:
    """For each positive the share of negatives below it, for each negative the share of positives above it."""
    positive = label == 1.0
    ranks = _mid_ranks(score)
    above = (ranks[positive] - _mid_ranks(score[positive])) / float((~positive).sum())
    below = 1.0 - (ranks[~positive] - _mid_ranks(score[~positive])) / float(positive.sum())
    return above, below


def _delong_variance(label: Array, candidate: Array, champion: Array) -> float:
    ours, theirs = _placements(label, candidate), _placements(label, champion)
    variance = 0.0
    for candidate_side, champion_side in zip(ours, theirs, strict=True):
        if len(candidate_side) < 2:
            raise UndefinedMetricError("the bound of roc_auc needs two rows or more of each class")
        variance += float((candidate_side - champion_side).var(ddof=1)) / len(candidate_side)
    return variance


def _log_losses(label: Array, score: Array) -> Array:
    epsilon = float(np.finfo(np.float64).eps)
    clipped = np.clip(score, epsilon, 1.0 - epsilon)
    losses: Array = -(label * np.log(clipped) + (1.0 - label) * np.log1p(-clipped))
    return losses


def _parts(name: str, label: Array, score: Array, threshold: float) -> tuple[Array, Array]:
    """Rows' parts of numerator and denominator of precision, recall and f1."""
    decided = (score >= threshold).astype(np.float64)
    hit = decided * label
    if name == "precision":
        return hit, decided
    if name == "recall":
        return hit, label
    return 2.0 * hit, decided + label


def _ratio(name: str, label: Array, score: Array, threshold: float) -> float:
    numerator, denominator = _parts(name, label, score, threshold)
    if not denominator.any():
        raise UndefinedMetricError(f"{name} is 0/0 on these {len(label)} rows at threshold {threshold}")
    return float(numerator.sum() / denominator.sum())


def _influence(name: MetricName, label: Array, score: Array, threshold: float) -> Array:
    """Rows' influence on the metric, float64[n]: the metric's error is, to first order, the mean of these."""
    label, score = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    influence: Any
    if name == "log_loss":
        influence = _log_losses(label, score)
    elif name == "brier":
        influence = np.square(score - label)
    elif name == "accuracy":
        influence = ((score >= threshold) == (label == 1.0)).astype(np.float64)
    elif name == "mae":
        influence = np.abs(score - label)
    elif name == "rmse":
        root = rmse(label, score)
        influence = np.square(score - label) / (2.0 * root) if root else np.zeros(len(label))
    else:
        numerator, denominator = _parts(name, label, score, threshold)
        value = numerator.sum() / denominator.sum()
        influence = (numerator - value * denominator) / denominator.mean()
    return np.array(influence, dtype=np.float64)
