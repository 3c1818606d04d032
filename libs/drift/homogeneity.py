"""How likely two histograms of one distribution differ as much: Pearson's chi-square test, for rows that come in clusters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.clusters import design_effects
from evenkeel.libs.distributions import chi_square_survival, f_survival
from evenkeel.libs.drift.statistic import Counts, checked


def p_values(reference: Counts, clusters: Counts) -> NDArray[np.float64]:
    """P-value per feature, float64[k], of int64[k, width] against the sum of int64[c, k, width]; 1 without rows.

    With several clusters chi-square is divided by the design effect and F-distributed under no change: Rao and Scott
    (1984). The reference is taken to be as clustered. One cluster alone says nothing of how clusters differ: its rows
    count as independent, and chi-square has its own distribution.

    >>> p_values(np.array([[50, 50]]), np.array([[[60, 40]]])).round(4).tolist()
    [0.1552]
    """
    actual = checked(reference, clusters)
    m, n = reference.sum(axis=1), actual.sum(axis=1)
    pooled = reference + actual
    several = len(clusters) > 1
    effects = design_effects(clusters) if several else np.ones(len(n))
    with np.errstate(divide="ignore", invalid="ignore"):
        difference = actual / n[:, None] - reference / m[:, None]
        terms = np.where(pooled > 0, np.square(difference) * (m + n)[:, None] / pooled, 0.0)
        statistic = terms.sum(axis=1) / (1.0 / m + 1.0 / n) / effects
    out = np.ones(len(n))
    for j, degrees in enumerate(((pooled > 0).sum(axis=1) - 1).tolist()):
        if degrees > 0 and m[j] and n[j]:
            x = float(statistic[j])
            out[j] = (
                f_survival(x / degrees, degrees, degrees * (len(clusters) - 1))
                if several
                else chi_square_survival(x, degrees)
            )
    return out
