"""What every window aggregation of the catalogue must show. One that tests/invariants/naive_windows.py cannot compute from
the plain records turns the first test red."""

from __future__ import annotations

import doctest
import math
import re
import struct
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest

from evenkeel.contracts.declaration import HOUR_US, MINUTE_US, Declaration
from evenkeel.contracts.payload import WORD_PATTERN
from evenkeel.libs.features import FeatureState, PlanError, compile_plan
from evenkeel.libs.features.aggregations import AGGREGATIONS, Aggregation, aggregation_named
from tests.invariants.naive_windows import Naive, aggregate, differences

START_US: Final = 1_400_000_040_000_000
STREAM: Final = {
    "topic": "meters",
    "id": "id",
    "time": "at",
    "fields": {"meter": {"type": "string"}, "watts": {"type": "number"}},
}
every_aggregation: Final = pytest.mark.parametrize("row", AGGREGATIONS, ids=lambda row: row.name)


def declared(*names: str, of: str = "meters.watts") -> Declaration:
    window = {"of": of, "by": ["meter"], "compute": names, "over": ["2m", "3h"]}
    model = {"task": "binary", "stream": "meters", "label": "x > 0", "features": [window]}
    return Declaration.model_validate({"streams": {"meters": STREAM}, "models": {"m": model}})


def vectors(declaration: Declaration, records: Sequence[tuple[int, dict[str, Any]]]) -> list[list[float]]:
    """One vector before each record, and two long after the last one: in half of the windows, and in none."""
    state = FeatureState(compile_plan(declaration.models["m"], declaration.streams), journal=False)
    out = []
    for number, (time_us, fields) in enumerate(records):
        out.append(state.vector(fields, time_us))
        state.fold("meters", time_us, f"r{number}", fields)
    last_us = records[-1][0]
    return [*out, *(state.vector(records[-1][1], last_us + later_us) for later_us in (HOUR_US, 4 * HOUR_US))]


def expected(declaration: Declaration, records: Sequence[tuple[int, dict[str, Any]]]) -> list[list[float]]:
    spec = declaration.model_dump(mode="json", by_alias=True)
    naive = Naive(spec["models"]["m"], spec["streams"])
    out = []
    for number, (time_us, fields) in enumerate(records):
        out.append(naive.vector(fields, time_us))
        event = SimpleNamespace(stream="meters", time_us=time_us, data={"event_id": f"r{number}", "fields": fields})
        naive.fold(event)  # type: ignore[arg-type]
    last_us = records[-1][0]
    return [*out, *(naive.vector(records[-1][1], last_us + later_us) for later_us in (HOUR_US, 4 * HOUR_US))]


def made(seed: int) -> list[tuple[int, dict[str, Any]]]:
    """Three meters in time order: gaps longer than the short window, equal times, values that are missing or far off."""
    generator = np.random.default_rng(seed)
    time_us, records = START_US, []
    for _ in range(300):
        time_us += int(generator.choice([0, 1_000_000, 20_000_000, 5 * MINUTE_US], p=[0.2, 0.4, 0.35, 0.05]))
        watts = None if generator.random() < 0.1 else float(np.round(generator.normal(-3.0, 40.0), 3))
        records.append((time_us, {"meter": f"m{generator.integers(3)}", "watts": watts}))
    return records


def bits(vector: Sequence[float]) -> list[bytes | None]:
    return [None if math.isnan(value) else struct.pack("<d", value) for value in vector]


def test_every_aggregation_has_a_naive_twin_and_a_name_of_its_own() -> None:
    names = [row.name for row in AGGREGATIONS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(WORD_PATTERN, name) for name in names)
    for name in names:
        assert isinstance(aggregate(name, [(START_US, "r", 2.0)], START_US), float)


@every_aggregation
def test_its_example_holds(row: Aggregation) -> None:
    assert ">>> " in (row.read.__doc__ or "")
    assert doctest.testmod(sys.modules[row.read.__module__]).failed == 0


@every_aggregation
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_equals_its_naive_twin_with_what_it_says_it_needs(row: Aggregation, seed: int) -> None:
    declaration, records = declared(row.name), made(seed)
    for ours, theirs in zip(vectors(declaration, records), expected(declaration, records), strict=True):
        assert differences(theirs, ours) == []


@every_aggregation
def test_its_bits_do_not_depend_on_what_else_is_computed(row: Aggregation) -> None:
    records = made(4)
    names = [one.name for one in AGGREGATIONS]
    place = names.index(row.name)
    alone, beside = vectors(declared(row.name), records), vectors(declared(*names), records)
    assert [bits(vector) for vector in alone] == [bits(vector[place :: len(names)]) for vector in beside]


@every_aggregation
def test_an_empty_window_has_the_value_that_its_row_says(row: Aggregation) -> None:
    (before, *_) = vectors(declared(row.name), made(5))
    assert differences([row.empty, row.empty], before) == []
    assert differences([aggregate(row.name, [], START_US)], [row.empty]) == []


@every_aggregation
def test_records_without_a_field_have_it_only_if_that_makes_sense(row: Aggregation) -> None:
    declaration, records = declared(row.name, of="meters"), made(6)
    if row.of_records:
        for ours, theirs in zip(vectors(declaration, records), expected(declaration, records), strict=True):
            assert differences(theirs, ours) == []
    else:
        with pytest.raises(PlanError, match="compute only .*count.* and "):
            vectors(declaration, records)


def test_an_unknown_word_is_refused_when_the_plan_is_compiled() -> None:
    with pytest.raises(PlanError, match=r"no aggregation 'coutn' \(did you mean 'count'\?\)"):
        vectors(declared("mean", "coutn"), made(7))
    with pytest.raises(ValueError, match=r"no aggregation 'median': it is one of count, sum"):
        aggregation_named("median")
