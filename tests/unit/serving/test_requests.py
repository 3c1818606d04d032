"""What a prediction request may hold, and what is said about everything else."""

from __future__ import annotations

from typing import Any

import pytest

from evenkeel.contracts.declaration import FieldSpec, StreamSpec
from evenkeel.libs.errors import Refused
from evenkeel.libs.features.scalars import category_reader
from evenkeel.services.serving.domain.requests import EventReader, RowReader, moment_us, record_id
from tests.record_ids import RECORD_IDS

READER = RowReader(["distance", "hour", "carrier"], {"carrier": category_reader(("AA", "UA"), None)})
SPEC = StreamSpec(
    topic="flights.scheduled",
    id="flight_id",
    time="scheduled",
    fields={
        "distance": FieldSpec(type="number", min=0, max=20_000, required=True),
        "minute": FieldSpec(type="integer", min=0, max=1439),
        "carrier": FieldSpec(type="category", values=("AA", "UA"), required=True),
        "tail": FieldSpec(type="string"),
        "is_cargo": FieldSpec(type="boolean"),
        "checked_in": FieldSpec(type="time"),
        "above": FieldSpec(type="number", min=1),
    },
)
EVENT = EventReader("flights", SPEC, ["carrier", "distance", "tail"])
GOOD = {"distance": 100, "carrier": "UA"}


def test_a_row_is_in_the_order_of_the_schema() -> None:
    assert READER.row({"carrier": 1, "hour": 5, "distance": 99.5}, "features") == [99.5, 5.0, 1.0]


def test_null_is_missing_and_booleans_are_numbers() -> None:
    assert READER.row({"carrier": None, "hour": True, "distance": 1}, "features") == [1.0, 1.0, None]


def test_a_category_may_be_its_text() -> None:
    assert READER.row({"carrier": "UA", "hour": 5, "distance": 1}, "features") == [1.0, 5.0, 1.0]
    assert READER.row({"carrier": "ZZ", "hour": 5, "distance": 1}, "features") == [1.0, 5.0, -1.0]


def test_one_feature_is_a_row_too() -> None:
    assert RowReader(["x"], {}).row({"x": 2}, "features") == [2.0]


@pytest.mark.parametrize(
    ("given", "field", "detail", "fix"),
    [
        ([1, 2, 3], "features", "[1, 2, 3]", "object"),
        (None, "features", "None", "object"),
        ({}, "features.distance", "'distance' is missing, and 2 more", "null"),
        ({"distance": 1, "hour": 2}, "features.carrier", "'carrier' is missing", "null"),
        ({"distance": 1, "hours": 2, "carrier": 1}, "features.hour", "'hour' is missing", "Rename 'hours' to 'hour'"),
        (
            {"distance": 1, "hour": 2, "carrier": 1, "origin": 1},
            "features.origin",
            "no feature 'origin'",
            "Leave it out",
        ),
        ({"distance": "1", "hour": 2, "carrier": 1}, "features.distance", "'1'", "a number, a boolean or null"),
        ({"distance": [1], "hour": 2, "carrier": 1}, "features.distance", "[1]", "a number"),
        ({"distance": 1, "hour": 2, "carrier": {}}, "features.carrier", "{}", "the category's text"),
        ({"distance": 1e39, "hour": 2, "carrier": 1}, "features.distance", "1e+39", "float32"),
        ({"distance": -(10**60), "hour": 2, "carrier": 1}, "features.distance", "beyond", "float32"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_field_and_fix(given: Any, field: str, detail: str, fix: str) -> None:
    with pytest.raises(Refused) as refusal:
        READER.row(given, "features")
    assert refusal.value.status == 422
    assert refusal.value.field == field
    assert detail in refusal.value.detail
    assert fix in (refusal.value.fix or "")


def test_an_event_needs_only_the_fields_that_features_need() -> None:
    assert EVENT.fields(GOOD) == GOOD
    every = GOOD | {
        "minute": 5.0,
        "tail": "N1",
        "is_cargo": False,
        "checked_in": "2013-01-01T05:15:00Z",
        "above": None,
        "flight_id": "f1",
        "scheduled": "2013-01-01T05:15:00Z",
    }
    assert EVENT.fields(every) == {name: value for name, value in every.items() if value is not None}


@pytest.mark.parametrize(
    ("given", "field", "detail", "fix"),
    [
        ("x", "event", "'x'", "object"),
        ({"distance": 1}, "event.carrier", "'carrier' is missing", "event.carrier"),
        (GOOD | {"carrier": None}, "event.carrier", "missing", "event.carrier"),
        (GOOD | {"minutes": 1}, "event.minutes", "no field 'minutes'", "Did you mean 'minute'"),
        (GOOD | {"distance": "9"}, "event.distance", "'9', not a JSON number", "a JSON number"),
        (GOOD | {"distance": True}, "event.distance", "not a JSON number", "a JSON number"),
        (GOOD | {"distance": 20_001}, "event.distance", "20001, not between 0 and 20000", "event.distance between"),
        (GOOD | {"above": 0.5}, "event.above", "0.5, not at least 1", "event.above at least 1"),
        (GOOD | {"minute": 5.5}, "event.minute", "not a whole JSON number", "whole"),
        (GOOD | {"carrier": "UAA"}, "event.carrier", "not declared. Did you mean UA?", "Send one of AA, UA"),
        (GOOD | {"carrier": 1}, "event.carrier", "not text", "text"),
        (GOOD | {"tail": 1}, "event.tail", "not text", "text"),
        (GOOD | {"is_cargo": 1}, "event.is_cargo", "not true or false", "true or false"),
        (GOOD | {"checked_in": "noon"}, "event.checked_in", "not an RFC 3339 time", "RFC 3339"),
        (GOOD | {"checked_in": "2013-01-01T05:15:00"}, "event.checked_in", "not an RFC 3339 time", "zone"),
        (GOOD | {"scheduled": 7}, "event.scheduled", "not RFC 3339", "RFC 3339"),
    ],
)
def test_an_event_that_breaks_its_contract_is_refused(given: Any, field: str, detail: str, fix: str) -> None:
    with pytest.raises(Refused) as refusal:
        EVENT.fields(given)
    assert (refusal.value.status, refusal.value.field) == (422, field)
    assert detail in refusal.value.detail
    assert fix in (refusal.value.fix or "")


def test_fields_that_are_not_declared_are_left_out_as_at_ingest() -> None:
    for given in (GOOD | {"pilot": "Ann"}, GOOD | {"minute": 5, "minutes": 5}, GOOD | {"minute": None, "minutes": 5}):
        declared = {
            name: value for name, value in given.items() if name not in ("pilot", "minutes") and value is not None
        }
        assert EVENT.fields(given) == declared


@pytest.mark.parametrize("value", ["", "a\n", "\x7f", "a" * 257, "é" * 129, 7, None])
def test_an_id_is_checked(value: object) -> None:
    with pytest.raises(Refused, match="event_id is .*, which cannot be an id"):
        record_id(value, "event_id")


@pytest.mark.parametrize("value", RECORD_IDS)
def test_an_id_is_any_text_of_the_client(value: str) -> None:
    assert record_id(value, "event_id") == value


@pytest.mark.parametrize("value", ["", "2013-13-01T00:00:00Z", "2013-01-01", 7, None, "9999-12-31T23:59:59-23:59"])
def test_a_time_is_checked(value: object) -> None:
    with pytest.raises(Refused):
        moment_us(value, "event_time")
