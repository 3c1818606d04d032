"""Mean negative log-likelihood of a binary label, in nats."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, centred, checked_binary


def value(label: Array, score: Array) -> float:
    """In [0, 36.1]: probabilities are clipped to float64's epsilon. Source: Good (1952).

    >>> round(value(np.array([1.0, 0.0]), np.array([0.9, 0.2])), 6)
    0.164252
    """
    return float(_losses(*checked_binary(label, score)).mean())


def influence(label: Array, score: Array) -> Array:
    """Of a mean: each row's loss less the mean loss.

    >>> influence(np.array([1.0, 0.0]), np.array([0.9, 0.2])).round(6).tolist()
    [-0.058892, 0.058892]
    """
    return centred(_losses(*checked_binary(label, score)))


def _losses(label: Array, score: Array) -> Array:
    epsilon = float(np.finfo(np.float64).eps)
    clipped = np.clip(score, epsilon, 1.0 - epsilon)
    losses: Array = -(label * np.log(clipped) + (1.0 - label) * np.log1p(-clipped))
    return losses
