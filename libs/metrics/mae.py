"""Mean absolute error."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, centred, checked


def value(label: Array, score: Array) -> float:
    """In the label's unit, 0 and up.

    >>> value(np.array([1.0, 4.0]), np.array([2.0, 2.0]))
    1.5
    """
    label, score = checked(label, score)
    return float(np.abs(score - label).mean())


def influence(label: Array, score: Array) -> Array:
    """Of a mean: each row's absolute error less their mean.

    >>> influence(np.array([1.0, 4.0]), np.array([2.0, 2.0])).tolist()
    [-0.5, 0.5]
    """
    label, score = checked(label, score)
    return centred(np.abs(score - label))
