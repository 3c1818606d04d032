"""The decision threshold of a binary model."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.metrics.metric import Array, UndefinedMetricError, checked_binary


def best_f1_threshold(label: Array, score: Array) -> float:
    """The threshold t that maximises f1 of `score >= t`: midway between two scores, in [0, 1].

    Undefined without a positive row.

    >>> best_f1_threshold(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.4, 0.2, 0.8])) == (0.2 + 0.4) / 2
    True
    """
    label, score = checked_binary(label, score)
    if not label.any():
        raise UndefinedMetricError("a threshold needs positive rows; there are none")
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], np.cumsum(label[order])
    last_of_tie = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    value = 2.0 * hits[last_of_tie] / (last_of_tie + 1 + label.sum())
    best = int(last_of_tie[int(np.argmax(value))])
    below = ranked[best + 1] if best + 1 < len(ranked) else 0.0
    middle = float(ranked[best] + below) / 2
    return middle if below < middle else float(ranked[best])
