"""From declaration to plan: names, sharing, versions, and what cannot be computed."""

from __future__ import annotations

from typing import Any

import pytest

from evenkeel.contracts.declaration import Declaration
from evenkeel.libs.features import PlanError, compile_plan
from evenkeel.libs.features.plan import FeaturePlan, resolve_source

STREAMS: dict[str, Any] = {
    "flights": {
        "topic": "flights",
        "id": "id",
        "time": "at",
        "fields": {
            "origin": {"type": "category", "values": ["EWR", "JFK"]},
            "carrier": {"type": "string"},
            "distance": {"type": "number"},
        },
        "label": {
            "topic": "arrivals",
            "id": "id",
            "joins": "id",
            "time": "at",
            "horizon": "2d",
            "fields": {"origin": {"type": "string"}, "delay": {"type": "number"}},
        },
    },
    "flights.eu": {"topic": "eu", "id": "id", "time": "at", "fields": {"delay": {"type": "number"}}},
    "weather": {
        "topic": "weather",
        "id": "id",
        "time": "at",
        "fields": {"station": {"type": "string"}, "temp": {"type": "number"}, "level": {"type": "number"}},
    },
}


def _plan(*features: dict[str, Any], **others: Any) -> FeaturePlan:
    model = {"task": "binary", "stream": "flights", "label": "delay > 15", "features": features, **others}
    declaration = Declaration.model_validate({"streams": STREAMS, "models": {"m": model}})
    return compile_plan(declaration.models["m"], declaration.streams)


def _window(**changes: Any) -> dict[str, Any]:
    return {"of": "flights.label.delay", "by": ["origin"], "compute": ["mean"], "over": ["1h"], **changes}


def test_names_and_order_are_those_written() -> None:
    plan = _plan(
        {"time": "at", "parts": ["weekday", "hour"]},
        {"fields": ["distance"]},
        {"categories": ["origin"]},
        _window(compute=["count", "mean"], over=["1h", "24h", "90d"], name="delay"),
        _window(by=[]),
        {"of": "flights", "by": ["origin", "carrier"], "compute": ["count"], "over": ["5m"]},
        {"of": "flights.label", "by": ["origin"], "compute": ["count"], "over": ["48h"]},
        {"of": "weather.temp", "by": {"station": "origin"}, "compute": ["last", "time_since_last"], "over": ["3h"]},
    )
    assert plan.names == (
        "at_weekday",
        "at_hour",
        "distance",
        "origin",
        "delay_by_origin_count_1h",
        "delay_by_origin_mean_1h",
        "delay_by_origin_count_24h",
        "delay_by_origin_mean_24h",
        "delay_by_origin_count_90d",
        "delay_by_origin_mean_90d",
        "delay_mean_1h",
        "flights_by_origin_carrier_count_5m",
        "flights_label_by_origin_count_2d",
        "temp_by_origin_last_3h",
        "temp_by_origin_time_since_last_3h",
    )
    assert plan.sources == ("flights", "flights#label", "weather")
    assert plan.categorical == ("origin",)
    assert plan.request_fields == ("at", "carrier", "distance", "origin")


def test_aggregates_of_one_field_key_and_window_share_their_tiles() -> None:
    plan = _plan(_window(compute=["mean", "count"]), _window(compute=["std", "last"], over=["60m", "2h"], name="b"))
    assert len(plan.series) == 2


def test_view_version_names_what_the_values_depend_on() -> None:
    plain = _plan(_window(), {"categories": ["origin"]})
    assert plain.view_version == _plan(_window(), {"categories": ["origin"]}, label="delay > 30").view_version
    assert plain.view_version == _plan(_window(over=["60m"]), {"categories": ["origin"]}).view_version
    others = [
        _plan({"categories": ["origin"]}, _window()),
        _plan(_window(over=["2h"]), {"categories": ["origin"]}),
        _plan(_window(), {"categories": ["origin"], "values": ["JFK", "EWR"]}),
        _plan(_window(), {"categories": ["origin"], "buckets": 2}),
        _plan(_window(by={"origin": "carrier"}), {"categories": ["origin"]}),
    ]
    assert len({plain.view_version, *(other.view_version for other in others)}) == len(others) + 1


def test_the_longest_stream_name_wins() -> None:
    streams = Declaration.model_validate({"streams": STREAMS}).streams
    found = [resolve_source(of, streams) for of in ("flights.label.delay", "flights.eu.delay", "flights.distance")]
    assert [source and (source.stream, source.field) for source in found] == [
        ("flights#label", "delay"),
        ("flights.eu", "delay"),
        ("flights", "distance"),
    ]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ({"fields": ["distnce"]}, "named 'distnce' \\(did you mean 'distance'"),
        ({"fields": ["carrier"]}, "'carrier' is of type string"),
        ({"time": "origin", "parts": ["hour"]}, "'origin' is of type category"),
        ({"categories": ["carrier"]}, "values of 'carrier' are not known"),
        ({"categories": ["distance"]}, "'distance' is of type number"),
        ({"categories": ["origin"], "values": ["EWR"], "buckets": 4}, "both given"),
        (_window(of="arrivals.delay"), "no stream behind 'arrivals.delay'"),
        (_window(of="flights.label.dely"), "did you mean 'delay'"),
        (_window(of="flights.carrier"), "'carrier' is of type string"),
        (_window(of="weather.label.x", by=[]), "no field in stream 'weather' named 'label.x'"),
        (_window(of="weather.label", by=[], compute=["count"]), "stream 'weather' has no label"),
        (_window(of="flights.label"), "can only be counted"),
        (_window(by=["carrier"]), "no field in stream 'flights#label' named 'carrier'"),
        (_window(of="weather.temp", by=["station"]), "no field in stream 'flights' named 'station'"),
        (_window(of="weather.temp", by={"level": "origin"}), "'level' is of type number"),
        (_window(over=["59s"]), "window 59s is out of range"),
        (_window(over=["91d"]), "window 91d is out of range"),
        (_window(over=["61s"]), "window 61s is out of range"),
        (_window(over=["1h", "60m"]), "two features are named 'delay_by_origin_mean_1h'"),
    ],
)
def test_what_cannot_be_computed_says_what_to_do(feature: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        _plan(feature)


def test_a_feature_cannot_take_the_name_of_a_column_of_the_training_table() -> None:
    streams = {"s": {"topic": "t", "id": "id", "time": "at", "fields": {"Label": {"type": "number"}}}}
    model = {"task": "binary", "stream": "s", "label": "x > 1", "features": [{"fields": ["Label"]}]}
    declaration = Declaration.model_validate({"streams": streams, "models": {"m": model}})
    with pytest.raises(PlanError, match="column of every training table"):
        compile_plan(declaration.models["m"], declaration.streams)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(PlanError) as caught:
        _plan({"fields": ["a", "b"]}, _window(over=["1s", "1h"]))
    assert [problem.path for problem in caught.value.problems] == [
        ("features", 0, "fields", 0),
        ("features", 0, "fields", 1),
        ("features", 1, "over", 0),
    ]
