"""Population stability index (PSI) of features against a reference, with its significance.

PSI = sum over bins of (a - e) ln(a / e), where e and a are the bin's shares of the reference and of the actual rows.
Missing values are a bin of their own. Bins empty on one side would make it infinite, so each occupied bin gets
`PSEUDO_COUNT` extra rows on both sides; bins empty on both sides are left out. Without any change PSI is not zero:
its mean is about (bins - 1)(1/m + 1/n) for m reference and n actual rows, so judge effect size *and* significance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

PSEUDO_COUNT: Final = 0.5
MODERATE: Final = 0.1
"""Usual reading: below this nothing has changed."""
MAJOR: Final = 0.25
"""Usual reading: from here on the population has changed."""
SIGNIFICANCE: Final = 0.01
"""Default bound of the p-value, after Bonferroni over the features looked at."""


@dataclass(frozen=True, slots=True)
class Psi:
    """Per feature, float64[k]: the index (0 and up) and the p-value of seeing as much without any change."""

    index: NDArray[np.float64]
    p_value: NDArray[np.float64]


def psi(reference: NDArray[np.int64], actual: NDArray[np.int64]) -> Psi:
    """PSI of k features from two count tables, int64[k, width] each, as `Binning.count` makes them.

    The p-value uses the large-sample law of Yurdakul (2018, "Statistical properties of population stability index"):
    PSI / (1/m + 1/n) is chi-square with (occupied bins - 1) degrees of freedom. It assumes independent rows. A feature
    without rows on one side gets index 0 and p-value 1. Raises `ValueError` for tables of different shapes.

    >>> same = np.array([[50, 50, 0]])
    >>> shifted = psi(same, np.array([[90, 10, 0]]))
    >>> round(float(shifted.index[0]), 4), bool(shifted.p_value[0] < 0.001)
    (0.8531, True)
    """
    if reference.shape != actual.shape or reference.ndim != 2:
        raise ValueError(
            f"count tables have shapes {reference.shape} and {actual.shape}: they must be [k, width] alike"
        )
    occupied = (reference > 0) | (actual > 0)
    bins = occupied.sum(axis=1)
    m, n = reference.sum(axis=1), actual.sum(axis=1)
    known = (m > 0) & (n > 0)
    padding = PSEUDO_COUNT * occupied
    expected = (reference + padding) / np.maximum(m + PSEUDO_COUNT * bins, 1.0)[:, None]
    observed = (actual + padding) / np.maximum(n + PSEUDO_COUNT * bins, 1.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(occupied, (observed - expected) * np.log(observed / expected), 0.0)
        index = np.where(known, terms.sum(axis=1), 0.0)
        statistic = np.where(known, index / (1.0 / m + 1.0 / n), 0.0)
    p_value = [chi_square_survival(float(x), int(k) - 1) for x, k in zip(statistic, bins, strict=True)]
    return Psi(index, np.array(p_value))


def chi_square_survival(x: float, degrees: int) -> float:
    """P(X > x) of a chi-square variable with a whole number of degrees of freedom, by its finite series; 1 for none.

    Source: Abramowitz and Stegun (1964), 26.4.4 and 26.4.5.

    >>> round(chi_square_survival(3.841458820694124, 1), 10)
    0.05
    """
    if degrees < 1 or x <= 0.0:
        return 1.0
    half = x / 2.0
    survival = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    shape = 0.5 if degrees % 2 else 1.0
    log_half = math.log(half)
    while shape < degrees / 2.0:
        survival += math.exp(shape * log_half - half - math.lgamma(shape + 1.0))
        shape += 1.0
    return min(survival, 1.0)
