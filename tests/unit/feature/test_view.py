"""One model's view: what waits, what is joined, where a commit ends."""

from __future__ import annotations

from array import array
from typing import Any

import pytest

from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.features import compile_plan, parse_label
from evenkeel.services.feature.domain.rows import (
    Folded,
    TrainingRow,
    pack_folded,
    pack_rows,
    unpack_folded,
    unpack_rows,
)
from evenkeel.services.feature.domain.view import NEVER_US, View, components
from tests.feature_log import DAY_US, DECLARATION, HOUR_US, START_US


@pytest.fixture
def view() -> View:
    declaration = load_declaration(DECLARATION, "view.yaml")
    spec = declaration.models["delay"]
    return View("delay", 0, compile_plan(spec, declaration.streams), parse_label(spec.label), 12 * HOUR_US)


FIELDS: dict[str, Any] = {"origin": "A", "carrier": "x", "load": 2.5}


def flight(event_id: str, time_us: int, order_us: int | None = None) -> Folded:
    return Folded("flights", order_us or time_us, time_us, event_id, None, FIELDS)


def landing(event_id: str, time_us: int, delay: float | None = 20.0, order_us: int | None = None) -> Folded:
    return Folded("flights#label", order_us or time_us, time_us, event_id, event_id, FIELDS | {"delay": delay})


def test_a_vector_is_evaluated_before_its_own_event_is_folded(view: View) -> None:
    position = view.plan.names.index("load_by_origin_count_1h")
    first, second = view.fold(flight("a", START_US)), view.fold(flight("b", START_US + 1))
    assert first is not None
    assert second is not None
    assert (first[position], second[position]) == (0.0, 1.0)


def test_a_label_joins_its_event_and_keeps_the_vector(view: View) -> None:
    vector = view.fold(flight("a", START_US))
    assert view.waiting == 1
    assert view.fold(landing("a", START_US + HOUR_US)) is None
    assert view.waiting == 0
    (row,) = view.matured
    assert row[:4] == ("a", START_US, START_US + HOUR_US, 1.0)
    assert vector is not None
    assert pack_rows([row._replace(values=array("d", vector))]) == pack_rows([row])


def test_a_late_label_counts_from_its_turn(view: View) -> None:
    view.fold(flight("a", START_US))
    view.fold(landing("a", START_US + 1, order_us=START_US + 2 * HOUR_US))
    assert view.matured[0].label_time_us == START_US + 2 * HOUR_US


def test_a_label_without_a_value_leaves_the_vector_waiting(view: View) -> None:
    view.fold(flight("a", START_US))
    view.fold(landing("a", START_US + 1, None))
    view.fold(landing("a", START_US + 2, -4.0))
    assert [row.label for row in view.matured] == [0.0]


def test_only_the_first_label_of_an_event_counts(view: View) -> None:
    view.fold(flight("a", START_US))
    view.fold(landing("a", START_US + 1, 20.0))
    view.fold(landing("a", START_US + 2, -4.0))
    assert [row.label for row in view.matured] == [1.0]
    assert view.counts.unmatched == 1


def test_a_label_before_its_event_makes_no_row(view: View) -> None:
    """The event's vector sees the label in its windows: as a training row it would show the model the future."""
    view.fold(landing("a", START_US))
    vector = view.fold(flight("a", START_US, START_US + 1))
    assert vector is not None
    assert vector[view.plan.names.index("delay_by_origin_count_1h")] == 1.0
    assert view.matured == []


def test_a_label_beyond_the_horizon_makes_no_row(view: View) -> None:
    view.fold(flight("a", START_US))
    view.fold(flight("b", START_US))
    view.fold(landing("a", START_US + 12 * HOUR_US))
    view.fold(landing("b", START_US + 12 * HOUR_US + 1))
    assert [row.event_id for row in view.matured] == ["a"]


def test_the_watermark_ends_the_waiting(view: View) -> None:
    for number in range(4):
        view.fold(flight(f"f{number}", START_US + number))
    view.advance(START_US + 12 * HOUR_US + 2)
    assert (view.waiting, view.counts.expired) == (2, 2)


def test_a_commit_ends_at_the_midnight_after_its_first_label(view: View) -> None:
    assert view.cut_us == NEVER_US
    view.fold(flight("a", START_US))
    view.fold(landing("a", START_US + 5 * HOUR_US))
    assert view.cut_us == START_US + DAY_US
    assert [row.event_id for row in view.close_cut()] == ["a"]
    assert (view.matured, view.cut_us) == ([], NEVER_US)


def test_what_is_stored_of_the_waiting_vectors_is_what_changed(view: View) -> None:
    view.fold(flight("a", START_US))
    view.fold(flight("b", START_US))
    gone, added = view.take_waiting()
    assert (gone, [event_id for event_id, _ in added]) == ([], ["a", "b"])
    view.fold(flight("c", START_US))
    view.fold(landing("c", START_US + 1))
    view.fold(landing("a", START_US + 1))
    view.fold(flight("b", START_US + 2))
    gone, added = view.take_waiting()
    assert (gone, [event_id for event_id, _ in added]) == (["a", "b"], ["b"])


def test_journal_and_rows_survive_packing_bit_for_bit() -> None:
    values = array("d", [0.1, float("nan"), -0.0, float("inf"), 1e-320])
    rows = [TrainingRow("a", -5, 7, 0.3, values), TrainingRow("é", 2**62, 8, -1.0, array("d", reversed(values)))]
    assert [(*row[:4], row.values.tobytes()) for row in unpack_rows(pack_rows(rows))] == [
        (*row[:4], row.values.tobytes()) for row in rows
    ]
    assert unpack_rows(pack_rows([])) == []
    records = [Folded("s", 2, 1, "a", None, {"x": 1, "y": 1.0, "z": True, "n": None, "t": "é"}), landing("b", START_US)]
    again = unpack_folded(pack_folded(records))
    assert again == records
    assert [type(value) for value in again[0].fields.values()] == [int, float, bool, type(None), str]


def test_components_join_through_others() -> None:
    sets = [frozenset("ab"), frozenset("cd"), frozenset("bc"), frozenset("e")]
    assert sorted(map(sorted, components(sets))) == [["a", "b", "c", "d"], ["e"]]
