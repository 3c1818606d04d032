"""Sample standard deviation of the field's values in the window."""

from __future__ import annotations

import math

from evenkeel.libs.features.aggregations.aggregation import NAN
from evenkeel.libs.features.tiles import Summary, Tile


def read(summary: Summary, newest: Tile, at_us: int) -> float:
    """In the field's unit, with n − 1; NaN for one record. Source: Welford (1962), Chan, Golub and LeVeque (1979).

    >>> newest = Tile(0, 7_000_000, "b", 4.0)
    >>> read(Summary(n=2, mean=3.0, m2=2.0, min=2.0, max=4.0), newest, 10_000_000)
    1.4142135623730951
    """
    return math.sqrt(summary.m2 / (summary.n - 1)) if summary.n > 1 else NAN
