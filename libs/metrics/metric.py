"""What a metric is: a row of the catalogue, and what every metric asks of its arrays.

Arrays are one-dimensional with one element per row: `label` float64[n] (0 or 1 for a binary task), `score` float64[n]
(probability of class 1, or the regression's value). A thresholded metric takes decisions, 0 or 1, in the place of scores.
A metric that the rows cannot tell (one class only, nothing predicted positive) raises `UndefinedMetricError`; malformed
input raises `ValueError`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float64]

DEFAULT_THRESHOLD: Final = 0.5


class UndefinedMetricError(ValueError):
    """These rows cannot tell this metric; the message says why."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the catalogue.

    `value(label, score)`: the metric, in its unit. `influence(label, score)`: float64[n] with mean zero, how much each row
    moves it: to first order the metric's error is the mean of these (Hampel, 1974), which is what standard errors are
    made of. `thresholded`: both take decisions (0 or 1) for `score`. `stratified`: the metric compares the classes with
    each other, so that its variance is that within each class.
    """

    name: str
    tasks: tuple[str, ...]
    higher_is_better: bool
    value: Callable[[Array, Array], float]
    influence: Callable[[Array, Array], Array]
    thresholded: bool = False
    stratified: bool = False

    def judged(self, score: Array, threshold: float = DEFAULT_THRESHOLD) -> Array:
        """What `value` and `influence` take for these scores: the scores, or the decisions under a threshold."""
        return decisions(score, threshold) if self.thresholded else score

    def improvement(self, value: float, over: float) -> float:
        """How much better one value is than another, in the metric's unit: positive means better, whichever way it points."""
        return value - over if self.higher_is_better else over - value


def decisions(score: Array, threshold: float = DEFAULT_THRESHOLD) -> Array:
    """Decisions `score >= threshold` as float64[n] of 0 and 1.

    >>> decisions(np.array([0.2, 0.5, 0.9])).tolist()
    [0.0, 1.0, 1.0]
    """
    return (np.asarray(score, dtype=np.float64) >= threshold).astype(np.float64)


def checked(label: Array, score: Array) -> tuple[Array, Array]:
    """Both as float64[n]; raises `ValueError` for other shapes or values that are not finite."""
    label, score = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if label.ndim != 1 or label.shape != score.shape:
        raise ValueError(f"label {label.shape} and score {score.shape} must be one-dimensional and of one length")
    if not len(label):
        raise UndefinedMetricError("there are no rows")
    if not (np.isfinite(label).all() and np.isfinite(score).all()):
        raise ValueError("label and score must be finite")
    return label, score


def checked_binary(label: Array, score: Array) -> tuple[Array, Array]:
    """As `checked`, and every label is 0 or 1."""
    label, score = checked(label, score)
    if not _is_zero_or_one(label):
        raise ValueError("a binary metric needs labels that are 0 or 1")
    return label, score


def checked_decisions(label: Array, decision: Array) -> tuple[Array, Array]:
    """As `checked_binary`, and every decision is 0 or 1, too."""
    label, decision = checked_binary(label, decision)
    if not _is_zero_or_one(decision):
        raise ValueError("a thresholded metric needs decisions that are 0 or 1: see `decisions`")
    return label, decision


def _is_zero_or_one(values: Array) -> bool:
    return bool(((values == 0.0) | (values == 1.0)).all())


def centred(each: Array) -> Array:
    """The influence of rows on the mean of `each`, float64[n]: their distance from it."""
    influence: Array = each - each.mean()
    return influence
