"""The engine by example; `tests/properties/test_windows.py` has the general case."""

from __future__ import annotations

import math
from typing import Any

import pytest

from evenkeel.contracts.declaration import DAY_US, HOUR_US, MINUTE_US, Declaration, ModelSpec
from evenkeel.libs.features import FeatureState, SlotUpdate, compile_plan

START_US = 1_357_020_000 * 1_000_000
STREAMS: dict[str, Any] = {
    "flights": {
        "topic": "flights",
        "id": "id",
        "time": "at",
        "fields": {"origin": {"type": "string"}, "tail": {"type": "integer"}, "distance": {"type": "number"}},
        "label": {
            "topic": "arrivals",
            "id": "id",
            "joins": "id",
            "time": "at",
            "horizon": "2d",
            "fields": {"origin": {"type": "string"}, "tail": {"type": "integer"}, "delay": {"type": "number"}},
        },
    }
}


def _state(*features: dict[str, Any], journal: bool = True) -> FeatureState:
    declaration = Declaration.model_validate({"streams": STREAMS})
    model = ModelSpec.model_validate(
        {"task": "binary", "stream": "flights", "label": "delay > 15", "features": features}
    )
    return FeatureState(compile_plan(model, declaration.streams), journal=journal)


def _delay(*compute: str, over: str = "1h", by: tuple[str, ...] = ("origin",)) -> dict[str, Any]:
    return {"of": "flights.label.delay", "by": by, "compute": compute, "over": [over]}


def _arrive(state: FeatureState, minutes: float, delay: object, origin: str | None = "JFK", **more: object) -> None:
    time_us = START_US + round(minutes * MINUTE_US)
    state.fold("flights#label", time_us, f"e{minutes}", {"origin": origin, "delay": delay, **more})


def _at(minutes: float) -> int:
    return START_US + round(minutes * MINUTE_US)


def test_every_aggregate_by_hand() -> None:
    state = _state(_delay("count", "sum", "mean", "std", "min", "max", "last", "time_since_last"))
    for minutes, delay in [(0, 10.0), (1, -4), (1.5, 30.0), (2, None)]:
        _arrive(state, minutes, delay)
    vector = state.vector({"origin": "JFK"}, _at(30))
    assert vector == [3.0, 36.0, 12.0, pytest.approx(math.sqrt(292.0)), -4.0, 30.0, 30.0, 28.5 * 60]


def test_no_record_no_key_and_no_value() -> None:
    state = _state(
        _delay("count", "sum", "mean", "std", "min", "max", "last", "time_since_last"), {"fields": ["distance"]}
    )
    _arrive(state, 0, None)
    _arrive(state, 0, 5.0, origin=None)
    vector = state.vector({"origin": "JFK", "distance": "far"}, _at(1))
    assert vector[:2] == [0.0, 0.0]
    assert all(map(math.isnan, vector[2:]))
    assert all(map(math.isnan, state.vector({}, _at(1))))
    assert state.entities == 0


def test_records_leave_the_window_with_their_tile() -> None:
    state = _state(_delay("count", "mean", "last"))
    _arrive(state, 0.9, 10.0)
    _arrive(state, 1.1, 20.0)
    assert state.vector({"origin": "JFK"}, _at(60) - 1) == [2.0, 15.0, 20.0]
    assert state.vector({"origin": "JFK"}, _at(60)) == [1.0, 20.0, 20.0]
    assert state.vector({"origin": "JFK"}, _at(61))[0] == 0.0
    assert state.vector({"origin": "JFK"}, _at(60) - 1) == [2.0, 15.0, 20.0], "reading changes nothing"


def test_an_event_does_not_see_itself_and_a_later_one_does() -> None:
    state = _state({"of": "flights.distance", "by": ["origin"], "compute": ["count"], "over": ["1h"]})
    event = {"origin": "JFK", "distance": 100}
    assert state.vector(event, START_US) == [0.0]
    state.fold("flights", START_US, "a", event)
    assert state.vector(event, START_US) == [1.0]


def test_a_late_record_still_counts_and_does_not_become_the_last() -> None:
    state = _state(_delay("count", "mean", "last"))
    expected = [(10, 10.0, [1, 10, 10]), (30, 30.0, [2, 20, 30]), (10.5, 50.0, [3, 30, 30]), (5, 70.0, [4, 40, 30])]
    for minutes, delay, vector in expected:
        _arrive(state, minutes, delay)
        assert state.vector({"origin": "JFK"}, _at(30)) == vector
    _arrive(state, -31, 1e6)
    assert state.vector({"origin": "JFK"}, _at(30))[0] == 4.0


def test_the_last_value_of_an_entity_and_its_age_over_days() -> None:
    state = _state(_delay("last", "time_since_last", over="7d", by=("tail",)))
    _arrive(state, 0, 12, tail=77)
    assert state.vector({"tail": 77}, START_US + DAY_US) == [12.0, 86_400.0]
    assert all(map(math.isnan, state.vector({"tail": 77}, START_US + 7 * DAY_US)))


def test_a_ring_slot_is_overwritten_and_an_old_tile_is_known_by_its_start() -> None:
    live, view = _state(_delay("count", "mean")), _state(_delay("count", "mean"), journal=False)
    _arrive(live, 0, 10.0)
    (old,) = live.take_changes(_at(0))
    _arrive(live, 60, 20.0)
    (new,) = live.take_changes(_at(60))
    assert old.slot == new.slot
    for updates in ([old, new], [new, old]):
        for update in updates:
            view.apply(update)
        assert view.vector({"origin": "JFK"}, _at(60)) == [1.0, 20.0]


def test_changes_are_conflated_and_expired_tiles_are_not_sent() -> None:
    state = _state(_delay("count"), _delay("mean", over="24h"))
    for minutes in (0, 0.1, 0.2, 5):
        _arrive(state, minutes, 1.0)
    assert len(state.take_changes(_at(5))) == 3
    assert state.take_changes(_at(5)) == []
    _arrive(state, 6, 1.0)
    assert [update.slot.split("|")[:2] for update in state.take_changes(_at(6 + 60))] == [["1", "JFK"]]


def test_eviction_forgets_entities_and_says_so() -> None:
    state = _state(_delay("count"))
    _arrive(state, 0, 1.0)
    assert [key for key, blob in state.take_snapshots() if blob] == ["0|JFK"]
    assert state.evict(_at(0) + HOUR_US) == 1
    assert state.take_snapshots() == [("0|JFK", None)]
    assert state.take_changes(_at(60)) == []


def test_entities_are_looked_through_once_a_window() -> None:
    """What expired since the last look waits for the next one: the cost per record stays constant."""
    state = _state(_delay("count"))
    _arrive(state, 0, 1.0)
    _arrive(state, 50, 1.0, "SFO")
    assert state.evict(_at(70)) == 1
    assert state.evict(_at(129)) == 0, "SFO expired at 110 and is not looked at before 130"
    assert state.evict(_at(130)) == 1


@pytest.mark.parametrize("slot", ["9|JFK|0", "x|JFK|0", "", "²|JFK|0"])
def test_an_update_of_another_view_is_refused(slot: str) -> None:
    state = _state(_delay("count"))
    with pytest.raises(ValueError, match="is not of view"):
        state.apply(SlotUpdate(slot, [0, 1, 1.0, 0.0, 1.0, 1.0, 0, "a", 1.0]))


def test_a_snapshot_of_another_view_is_refused() -> None:
    one, two = _state(_delay("count")), _state(_delay("count"), _delay("mean", over="2h"))
    _arrive(one, 0, 1.0)
    with pytest.raises(ValueError, match="has 1 windows, the view has 2"):
        two.restore(one.snapshot())
    with pytest.raises(ValueError, match="is not of view"):
        one.restore([("7|JFK", b"\x90")])
