"""Every window aggregation there is. A new one is a file beside this one and a row here; its suite is
tests/suites/test_aggregations.py. Names stand in feature names and view versions: they never change."""

from __future__ import annotations

from typing import Final

from evenkeel.libs.features.aggregations import count, last, mean, std, time_since_last
from evenkeel.libs.features.aggregations import max as max_
from evenkeel.libs.features.aggregations import min as min_
from evenkeel.libs.features.aggregations import sum as sum_
from evenkeel.libs.features.aggregations.aggregation import Aggregation

AGGREGATIONS: Final[tuple[Aggregation, ...]] = (
    Aggregation("count", ("moments",), count.read, empty=0.0, of_records=True),
    Aggregation("sum", ("moments",), sum_.read, empty=0.0),
    Aggregation("mean", ("moments",), mean.read),
    Aggregation("std", ("moments", "spread"), std.read),
    Aggregation("min", ("extremes",), min_.read),
    Aggregation("max", ("extremes",), max_.read),
    Aggregation("last", (), last.read),
    Aggregation("time_since_last", (), time_since_last.read, of_records=True),
)
_BY_NAME: Final = {aggregation.name: aggregation for aggregation in AGGREGATIONS}


def aggregation_named(name: str) -> Aggregation:
    """The row of that name; raises `ValueError` when there is none."""
    if name not in _BY_NAME:
        raise ValueError(f"there is no aggregation {name!r}: it is one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
