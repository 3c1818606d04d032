"""Root of the mean squared error."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, centred, checked


def value(label: Array, score: Array) -> float:
    """In the label's unit, 0 and up.

    >>> value(np.array([1.0, 9.0]), np.array([2.0, 2.0]))
    5.0
    """
    label, score = checked(label, score)
    return float(np.sqrt(np.square(score - label).mean()))


def influence(label: Array, score: Array) -> Array:
    """By the delta method: each row's squared error less their mean, over twice the root. Without any error it is zero.

    >>> influence(np.array([1.0, 9.0]), np.array([2.0, 2.0])).tolist()
    [-2.4, 2.4]
    """
    root = value(label, score)
    label, score = checked(label, score)
    return centred(np.square(score - label)) / (2.0 * root) if root else np.zeros(len(label))
