"""Data whose rows are not independent: what happens within one slot of time happens together.

Bad weather delays a thousand flights at once, so a thousand rows of one day are not a thousand observations. Slots are
taken as clusters, and variances come from how slots differ.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


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
