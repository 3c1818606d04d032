"""Population stability index (PSI) of features against a reference.

PSI = sum over bins of (a - e) ln(a / e), where e and a are the bin's shares of the reference and of the actual rows.
Missing values are a bin of their own. Bins empty on one side would make it infinite, so each occupied bin gets
`PSEUDO_COUNT` extra rows on both sides; bins empty on both sides are left out. Without any change PSI is not zero:
its mean is about (bins - 1)(1/m + 1/n) for m reference and n actual rows, so judge effect size *and* significance.
The usual reading: below 0.1 nothing has changed, from 0.25 on the population has.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.distributions import chi_square_survival
from evenkeel.libs.drift.homogeneity import p_values
from evenkeel.libs.drift.statistic import Counts, Measured, checked

PSEUDO_COUNT: Final = 0.5


def measure(reference: Counts, clusters: Counts) -> Measured:
    """The index, 0 and up, and its significance. See `Statistic.measure`.

    With several clusters the p-value is that of `homogeneity.p_values`: PSI itself has a longer tail there, because a bin
    that few clusters happened to leave empty blows it up. With one cluster it uses the large-sample law of Yurdakul (2018,
    "Statistical properties of population stability index"): PSI / (1/m + 1/n) is chi-square with (occupied bins - 1)
    degrees of freedom.

    >>> same = np.array([[50, 50, 0]])
    >>> shifted = measure(same, np.array([[[90, 10, 0]]]))
    >>> round(float(shifted.effect[0]), 4), bool(shifted.significance[0] < 0.001)
    (0.8531, True)
    """
    actual = checked(reference, clusters)
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
    if len(clusters) > 1:
        return Measured(index, p_values(reference, clusters))
    independent = [chi_square_survival(float(x), int(k) - 1) for x, k in zip(statistic, bins, strict=True)]
    significance: NDArray[np.float64] = np.array(independent)
    return Measured(index, significance)
