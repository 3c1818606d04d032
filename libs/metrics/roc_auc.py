"""Area under the ROC curve: the probability that a positive outranks a negative, ties counting half."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, UndefinedMetricError, checked_binary


def value(label: Array, score: Array) -> float:
    """In [0, 1]. Undefined when one class is missing. Source: Hanley and McNeil (1982), through mid-ranks.

    >>> value(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    label, score = checked_binary(label, score)
    positive = label == 1.0
    positives = int(positive.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        raise UndefinedMetricError(f"roc_auc needs both classes; {positives} of {len(label)} rows are positive")
    rank_sum = float(_mid_ranks(score)[positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def influence(label: Array, score: Array) -> Array:
    """Placements: the share of the other class that a row is ranked right against, less the area; scaled by the class.

    Source: DeLong, DeLong and Clarke-Pearson (1988), in the fast form of Sun and Xu (2014).

    >>> influence(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8])).tolist()
    [0.25, -0.25, -0.25, 0.25]
    """
    area = value(label, score)
    label, score = checked_binary(label, score)
    positive = label == 1.0
    positives, negatives = int(positive.sum()), int((~positive).sum())
    ranks = _mid_ranks(score)
    above = (ranks[positive] - _mid_ranks(score[positive])) / negatives
    below = 1.0 - (ranks[~positive] - _mid_ranks(score[~positive])) / positives
    out = np.empty(len(label))
    out[positive] = (above - area) * len(label) / positives
    out[~positive] = (below - area) * len(label) / negatives
    return out


def _mid_ranks(values: Array) -> Array:
    """Ranks from 1, tied values sharing the middle of their ranks; float64[n]."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    starts = np.flatnonzero(np.append(True, ranked[1:] != ranked[:-1]))
    lengths = np.diff(np.append(starts, len(values)))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (lengths + 1) / 2, lengths)
    return ranks
