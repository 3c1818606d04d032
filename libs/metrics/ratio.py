"""Metrics that are a ratio of two sums over rows: precision, recall and f1."""

from __future__ import annotations

from evenkeel.libs.metrics.metric import Array, UndefinedMetricError


def ratio(name: str, numerator: Array, denominator: Array) -> float:
    """Sum of one over sum of the other, float64[n] each and not negative; undefined as 0/0.

    >>> import numpy as np
    >>> ratio("recall", np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    0.5
    """
    if not denominator.any():
        raise UndefinedMetricError(f"{name} is 0/0 on these {len(denominator)} rows")
    return float(numerator.sum() / denominator.sum())


def ratio_influence(name: str, numerator: Array, denominator: Array) -> Array:
    """Rows' influence on the ratio by its linearisation, the delta method. Source: Cochran (1977), section 2.11.

    >>> import numpy as np
    >>> ratio_influence("recall", np.array([1.0, 0.0]), np.array([1.0, 1.0])).tolist()
    [0.5, -0.5]
    """
    value = ratio(name, numerator, denominator)
    influence: Array = (numerator - value * denominator) / denominator.mean()
    return influence
