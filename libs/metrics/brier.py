"""Brier score: mean squared difference between probability and label."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, centred, checked_binary


def value(label: Array, score: Array) -> float:
    """In [0, 1] for probabilities. Source: Brier (1950).

    >>> round(value(np.array([1.0, 0.0]), np.array([0.9, 0.2])), 6)
    0.025
    """
    label, score = checked_binary(label, score)
    return float(np.square(score - label).mean())


def influence(label: Array, score: Array) -> Array:
    """Of a mean: each row's squared difference less their mean.

    >>> influence(np.array([1.0, 0.0]), np.array([0.9, 0.2])).round(6).tolist()
    [-0.015, 0.015]
    """
    label, score = checked_binary(label, score)
    return centred(np.square(score - label))
