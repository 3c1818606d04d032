"""Accuracy: the share of decisions that equal the label."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, centred, checked_decisions


def value(label: Array, decision: Array) -> float:
    """In [0, 1].

    >>> value(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0]))
    0.75
    """
    label, decision = checked_decisions(label, decision)
    return float((decision == label).mean())


def influence(label: Array, decision: Array) -> Array:
    """Of a mean: 1 for a right decision and 0 for a wrong one, less their mean.

    >>> influence(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0, 0.0])).tolist()
    [0.25, 0.25, -0.75, 0.25]
    """
    label, decision = checked_decisions(label, decision)
    return centred((decision == label).astype(np.float64))
