"""Jensen–Shannon distance of features from a reference.

The root of the mean information, in bits, that one row tells about whether it is of the reference or of the actual rows:
0 for equal shares, 1 if no bin has rows of both. It is a metric (Endres and Schindelin, 2003), always finite, and rare bins
do not blow it up. Missing values are a bin of their own. Without any change it is not zero: its square is
about (bins - 1)(1/m + 1/n) / (8 ln 2) for m reference and n actual rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.drift.homogeneity import p_values
from evenkeel.libs.drift.statistic import Counts, Measured, checked


def measure(reference: Counts, clusters: Counts) -> Measured:
    """The distance in [0, 1], and its significance by `homogeneity.p_values`. See `Statistic.measure`. Source: Lin (1991).

    >>> halves = np.array([[50, 50]])
    >>> measure(halves, np.array([[[100, 0]]])).effect.round(4).tolist()
    [0.5579]
    >>> measure(np.array([[100, 0]]), np.array([[[0, 100]]])).effect.tolist()
    [1.0]
    """
    actual = checked(reference, clusters)
    m, n = reference.sum(axis=1), actual.sum(axis=1)
    expected = reference / np.maximum(m, 1)[:, None]
    observed = actual / np.maximum(n, 1)[:, None]
    middle = (expected + observed) / 2.0
    divergence = (_information(expected, middle) + _information(observed, middle)) / 2.0
    known = (m > 0) & (n > 0)
    distance = np.sqrt(np.clip(np.where(known, divergence, 0.0), 0.0, 1.0))
    return Measured(distance, p_values(reference, clusters))


def _information(share: NDArray[np.float64], middle: NDArray[np.float64]) -> NDArray[np.float64]:
    """Kullback–Leibler divergence in bits, float64[k]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bits: NDArray[np.float64] = np.where(share > 0.0, share * np.log2(share / middle), 0.0).sum(axis=1)
    return bits
