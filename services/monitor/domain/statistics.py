"""Tests for data whose rows are not independent: what happens within one slot of time happens together.

Bad weather delays a thousand flights at once, so a thousand rows of one day are not a thousand observations. Slots are
taken as clusters, and variances come from how slots differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_MAX_STEPS: Final = 300
_EPSILON: Final = 1e-15
_TINY: Final = 1e-300


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1].

    Source: Abramowitz and Stegun (1964), 26.5.8, evaluated by Lentz's method.

    >>> round(incomplete_beta(2.0, 3.0, 0.5), 10)
    0.6875
    """
    if not 0.0 <= x <= 1.0 or a <= 0.0 or b <= 0.0:
        raise ValueError(f"I_x(a, b) needs a, b > 0 and x in [0, 1], got a={a}, b={b}, x={x}")
    if x in (0.0, 1.0):
        return x
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _MAX_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        step = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            step = c * d
            fraction *= step
        if abs(step - 1.0) < _EPSILON:
            break
    return math.exp(log_front) * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def student_survival(t: float, degrees: float) -> float:
    """P(T > t) of Student's distribution.

    >>> round(student_survival(2.015048373, 5), 6)
    0.05
    """
    tail = 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t))
    return tail if t >= 0.0 else 1.0 - tail


def f_survival(f: float, numerator: float, denominator: float) -> float:
    """P(F > f) of the F distribution with these degrees of freedom; 1 for f <= 0.

    >>> round(f_survival(3.325834530, 5, 10), 6)
    0.05
    """
    if f <= 0.0:
        return 1.0
    return incomplete_beta(denominator / 2.0, numerator / 2.0, denominator / (denominator + numerator * f))


def design_effects(tables: NDArray[np.int64]) -> NDArray[np.float64]:
    """By how much clustering inflates the variance of k histograms' shares; float64[k], 1 or more.

    `tables`: int64[c, k, width], the counts of each of c > 1 clusters. The mean over bins of the between-cluster
    variance of the counts over the multinomial one: Rao and Scott (1981, 1984). A feature that is constant in all
    clusters tells nothing about it; each cluster then counts as one observation.
    """
    clusters = len(tables)
    sizes = tables.sum(axis=2)
    rows = sizes.sum(axis=0)
    total = tables.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = total / rows[:, None]
        residual = tables - sizes[:, :, None] * share
        variance = np.square(residual).sum(axis=0) * clusters / (clusters - 1)
        ratio = np.where(total > 0, variance / (rows[:, None] * share), 0.0).sum(axis=1)
        bins = (total > 0).sum(axis=1)
        effect = np.where(bins > 1, ratio / np.maximum(bins - 1, 1), rows / clusters)
    bounded: NDArray[np.float64] = np.maximum(np.nan_to_num(effect, nan=1.0), 1.0)
    return bounded


def clustered_standard_error(influence: NDArray[np.float64], sizes: Sequence[int]) -> float:
    """Standard error of a mean of influence values, float64[n], whose rows come in clusters of these sizes.

    The influence values have mean zero. With one cluster rows are taken as independent. Source: Liang and Zeger (1986).
    """
    n = len(influence)
    if len(sizes) < 2:
        return float(influence.std(ddof=1)) / math.sqrt(n)
    starts = np.cumsum([0, *sizes[:-1]])
    sums = np.add.reduceat(influence, starts)
    clusters = len(sizes)
    return float(np.sqrt(np.square(sums).sum() * clusters / (clusters - 1))) / n
