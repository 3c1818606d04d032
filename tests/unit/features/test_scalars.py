"""Fields of a record: every kind, and everything that is missing or wrong."""

from __future__ import annotations

import math

import pytest

from evenkeel.contracts.declaration import TimePart
from evenkeel.libs.features.scalars import category_reader, key_reader, number, time_part, time_us


@pytest.mark.parametrize(("value", "expected"), [(1, 1.0), (True, 1.0), (False, 0.0), (-2.5, -2.5), (10**100, 1e100)])
def test_numbers(value: object, expected: float) -> None:
    assert number(value) == expected


@pytest.mark.parametrize("value", [None, "1", math.nan, math.inf, -math.inf, 10**400, 1e200, [1], {}])
def test_what_is_no_number_is_missing(value: object) -> None:
    assert math.isnan(number(value))


def test_categories() -> None:
    code = category_reader(("EWR", "JFK"), None)
    assert [code("EWR"), code("JFK"), code("LHR")] == [0.0, 1.0, -1.0]
    assert math.isnan(code(None))
    hashed = category_reader(None, 8)
    assert hashed("LHR") == hashed("LHR") == int(hashed("LHR")) % 8
    assert math.isnan(hashed(None))


@pytest.mark.parametrize(
    ("text", "part", "expected"),
    [
        ("2013-01-01T05:15:00-05:00", "hour", 10),
        ("2013-01-01T10:15:59Z", "minute_of_day", 615),
        ("2013-01-01T10:15:00Z", "weekday", 1),
        ("2013-12-31T23:59:59Z", "month", 12),
        ("1969-12-31T23:00:00Z", "hour", 23),
        ("1969-12-31T23:00:00Z", "weekday", 2),
    ],
)
def test_time_parts_are_of_utc(text: str, part: TimePart, expected: int) -> None:
    moment_us = time_us(text)
    assert moment_us is not None
    assert time_part(part)(moment_us) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "2013-13-01T00:00:00Z", "2013-01-01"])
def test_what_is_no_time_is_missing(text: str) -> None:
    assert time_us(text) is None


def test_different_keys_have_different_texts() -> None:
    read = key_reader(("a", "b"))
    texts = {read({"a": a, "b": b}) for a in ("x", "x|1", "", "1|x") for b in ("y", "1|y", "", "|")}
    assert len(texts) == 16


def test_keys_of_every_type_and_without_one() -> None:
    read = key_reader(("a",))
    assert [read({"a": value}) for value in ("7", 7, 7.0, True, 7.5, None, [7])] == [
        "7",
        "7",
        "7",
        "true",
        None,
        None,
        None,
    ]
    assert key_reader(())({}) == ""
    assert key_reader(("a", "b"))({"a": "x"}) is None
