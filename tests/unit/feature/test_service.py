"""The service over a log: restarts, the online view, declarations, failed batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from evenkeel.contracts.feature import VectorComputed, ViewUpdated
from evenkeel.contracts.ids import merged_as, view_stream
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.contracts.runtime import ClockAdvanced
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.errors import NotYet
from evenkeel.libs.features import FeatureState, compile_plan
from evenkeel.libs.service import Reply
from evenkeel.services.feature.domain.view import View
from evenkeel.services.feature.handlers import on_tick
from tests.feature_log import DAY_US, DECLARATION, HOUR_US, MINUTE_US, START_US, Feature, Log, accepted_id


@pytest.fixture
def log() -> Log:
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay", "load", "returned"])
    return log


@pytest.fixture
def feature(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Feature]:
    feature = Feature(tmp_path, **getattr(request, "param", {}))
    yield feature
    feature.close()


def flights(log: Log, count: int, first: int = 0, every_us: int = 20 * MINUTE_US) -> None:
    """Flights every 20 minutes, each landing 90 minutes later; weather on the hour; then the watermark."""
    for number in range(first, first + count):
        time_us = START_US + number * every_us
        fields = {"origin": "AB"[number % 2], "carrier": "xyz"[number % 3], "load": number / 7}
        log.event("flights", f"f{number}", time_us, fields, watermark_us=time_us)
        if number % 3 == 0:
            log.event("weather", f"w{number}", time_us, {"origin": "A", "wind": number % 11}, watermark_us=time_us)
        landed = number - 90 * MINUTE_US // every_us
        if landed >= 0:
            delay = {"origin": "AB"[landed % 2], "carrier": "xyz"[landed % 3], "delay": landed % 40 - 5.5}
            log.label("flights", f"f{landed}", time_us, delay, watermark_us=time_us)
    log.close(START_US + (first + count) * every_us)


def frozen(view: View, watermark_us: int | None = None) -> dict[str, Any]:
    """Everything that a view holds, at this watermark: one without records is not in the store."""
    view.advance(watermark_us or view.watermark_us)
    return {
        "entities": dict(view.state.snapshot()),
        "waiting": {one: (w.time_us, w.values.tobytes()) for one, w in view._waiting.items()},
        "matured": [(*row[:4], row.values.tobytes()) for row in view.matured],
        "cut": view.cut_us,
        "counts": replace(view.counts),
    }


@pytest.mark.parametrize("feature", [{"snapshot_records": 50}, {"snapshot_records": 10_000}], indirect=True)
def test_a_restart_gives_the_same_state_bit_for_bit(log: Log, feature: Feature) -> None:
    flights(log, 130)
    for start in range(0, len(log.records), 17):
        feature.consume(log.records[start : start + 17])
    end_us = START_US + 130 * 20 * MINUTE_US
    before = {model: frozen(view, end_us) for model, view in feature.context.views.items()}
    seen = (feature.context.last_event_id, feature.context.offsets)
    feature.restart()
    assert {model: frozen(view, end_us) for model, view in feature.context.views.items()} == before
    assert (feature.context.last_event_id, feature.context.offsets) == seen


@pytest.mark.parametrize("feature", [{"snapshot_records": 40}], indirect=True)
def test_the_journal_is_emptied_and_the_store_stays_small(log: Log, feature: Feature) -> None:
    flights(log, 400)
    largest = 0
    for start in range(0, len(log.records), 10):
        feature.consume(log.records[start : start + 10])
        with feature.store.begin() as tx:
            rows = tx.connection.exec_driver_sql("select coalesce(sum(records), 0), count(*) from journal").one()
            waiting = tx.connection.exec_driver_sql("select count(*) from waiting where model = 'delay'").scalar_one()
        largest = max(largest, rows[0])
    assert largest < 40 + 10
    assert waiting < 2 * 12 * 3  # no more than the horizon's flights


def test_the_published_view_is_the_state(log: Log, feature: Feature) -> None:
    flights(log, 100)
    for start in range(0, len(log.records), 23):
        feature.consume(log.records[start : start + 23])
        feature.clock.us += 10_000
    feature.clock.us += 60_000_000
    feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    live = feature.context.views["delay"]
    copy = FeatureState(live.plan, journal=False)
    for update in feature.slots("delay").values():
        copy.apply(update)
    fields = {"load": 1.0, "carrier": "x"}
    for origin in ("A", "B", "C"):
        asked = fields | {"origin": origin}
        at_us = live.watermark_us
        assert repr(copy.vector(asked, at_us)) == repr(live.state.vector(asked, at_us))
    stamps = [clock[live.stream] for clock in view_clocks(feature)]
    assert stamps == sorted(stamps)
    assert stamps[-1] == live.watermark_us


def view_clocks(feature: Feature) -> list[dict[str, int]]:
    """On one partition of the view's topic."""
    view = topic_of(ViewUpdated, "feature").name
    return [
        clock.data.times_us() for clock in feature.events(ClockAdvanced) if (clock.topic, clock.partition) == (view, 0)
    ]


@pytest.mark.parametrize("feature", [{"view_flush_ms": 60_000, "snapshot_records": 10_000}], indirect=True)
def test_a_view_at_rest_says_how_far_it_has_come_also_after_a_restart(log: Log, feature: Feature) -> None:
    """Of all views, since a compacted topic keeps only the last; and once."""
    flights(log, 10)
    feature.consume(log.records)
    log.records.clear()
    for hours in (20, 30):
        log.close(START_US + hours * HOUR_US)
    slots, before = len(feature.events(ViewUpdated)), len(view_clocks(feature))
    for record in log.records:
        feature.consume([record])
    assert len(view_clocks(feature)) == before, "put off"
    feature.restart()
    for _ in range(2):
        feature.clock.us += 60_000_000
        feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    (last,) = view_clocks(feature)[before:]
    views = feature.context.views.values()
    assert last == {view.stream: view.watermark_us for view in views}
    assert set(last.values()) == {START_US + 30 * HOUR_US}
    assert len(feature.events(ViewUpdated)) == slots, "no slot has changed"


@pytest.mark.parametrize("feature", [{"view_flush_ms": 60_000, "snapshot_records": 10_000}], indirect=True)
def test_view_changes_that_were_put_off_survive_a_restart(log: Log, feature: Feature) -> None:
    flights(log, 10)
    feature.consume(log.records)
    first = len(feature.events(ViewUpdated))
    assert first > 0
    log.records.clear()
    flights(log, 10, 10)
    feature.consume(log.records)
    assert len(feature.events(ViewUpdated)) == first
    live = feature.context.views["delay"]
    dirty = {update.slot for update in live.state.take_changes(live.watermark_us)}
    feature.restart()
    assert feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick") is None
    published = [event for event in feature.events(ViewUpdated)[first:] if event.data.view == "delay"]
    assert {event.data.slot for event in published} == dirty
    feature.clock.us += 60_000_000
    count = len(feature.said)
    feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    feature.restart()
    feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    assert len(feature.said) == count


@pytest.mark.parametrize("feature", [{"view_flush_ms": 0, "view_slots_per_second": 10}], indirect=True)
def test_many_slots_put_the_next_flush_off(log: Log, feature: Feature) -> None:
    flights(log, 20)
    feature.consume(log.records)
    slots = len(feature.events(ViewUpdated))
    log.records.clear()
    flights(log, 1, 20)
    feature.clock.us += slots * 100_000 - 1
    feature.consume(log.records)
    assert len(feature.events(ViewUpdated)) == slots
    feature.clock.us += 1
    feature.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")
    assert len(feature.events(ViewUpdated)) > slots


def test_a_vector_names_its_event_and_forwards_late(log: Log, feature: Feature) -> None:
    fields = {"origin": "A", "carrier": "x", "load": 1.5}
    log.event("flights", "a", START_US + HOUR_US, fields, watermark_us=START_US)
    log.event("flights", "b", START_US + 5, fields, watermark_us=START_US + HOUR_US + 1)
    log.close(START_US + DAY_US)
    feature.consume(log.records)
    first, late = [event for event in feature.events(VectorComputed) if event.data.model == "delay"]
    assert (first.data.event_id, first.data.late) == ("a", False)
    assert first.stream == late.stream == view_stream("delay", first.data.view_version)
    assert (late.data.event_id, late.data.late, late.time_us) == ("b", True, START_US + 5)
    assert late.order_us == START_US + HOUR_US + 1
    assert first.causation_id == accepted_id("flights", "a")
    assert late.causation_id == accepted_id("flights", "b")
    assert feature.context.views["delay"].counts.late == 1
    assert feature.watermarks[-1][1] == START_US + DAY_US
    assert {merged_as(stream) for stream, _ in feature.watermarks} == {"delay", "load", "returned"}


def test_merge_groups_are_the_connected_streams(log: Log, feature: Feature) -> None:
    feature.consume(log.records)
    flight_inputs = {(EventAccepted, "flights"), (LabelAccepted, "flights#label"), (EventAccepted, "weather")}
    assert set(feature.context.merge_groups()) == {
        frozenset(flight_inputs),
        frozenset({(EventAccepted, "sales"), (LabelAccepted, "sales#label")}),
    }


def test_an_event_checked_under_an_unknown_declaration_waits(log: Log, feature: Feature) -> None:
    feature.consume(log.records)
    fields = {"origin": "A", "carrier": "x", "load": 1.5}
    log.records.clear()
    log.event("flights", "a", START_US, fields, watermark_us=START_US, declaration=3)
    log.close(START_US + DAY_US)
    data = list(log.records)
    with pytest.raises(NotYet):
        feature.consume(data)
    assert not feature.events(VectorComputed)
    log.records.clear()
    log.declare(["flights"], [])
    feature.consume([*data, *log.records])
    assert feature.vectors("delay").keys() == {"a"}


def test_an_event_of_a_stream_that_is_not_known_yet_waits(feature: Feature) -> None:
    log = Log()
    log.event("flights", "a", START_US, {"origin": "A"}, watermark_us=START_US)
    first = list(log.records)
    with pytest.raises(NotYet):
        feature.consume(first)
    log.declare(["flights", "weather", "sales"], ["delay", "load", "returned"])
    log.close(START_US + DAY_US)
    feature.consume(log.records)
    assert feature.vectors("delay").keys() == {"a"}


def test_a_batch_that_fails_leaves_nothing_behind(log: Log, feature: Feature) -> None:
    flights(log, 40)
    feature.consume(log.records[:60])
    before = frozen(feature.context.views["delay"])
    published = len(feature.said)
    rest = log.records[60:]
    with closing(sqlite3.connect(feature.data_dir / "feature.db")) as database:
        database.execute("CREATE TRIGGER no_journal BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no more'); END")
        with pytest.raises(IntegrityError, match="no more"):
            feature.consume(rest)
        database.execute("DROP TRIGGER no_journal")
    assert frozen(feature.context.views["delay"]) == before
    assert len(feature.said) == published
    feature.consume(rest)
    assert len(feature.vectors("delay")) == 40


def test_a_model_declared_again_with_the_same_features_goes_on(log: Log, feature: Feature) -> None:
    flights(log, 30)
    feature.consume(log.records)
    before = frozen(feature.context.views["delay"])
    log.records.clear()
    log.declare([], ["delay"], load_declaration(DECLARATION.replace("horizon: 12h", "horizon: 13h"), "again.yaml"))
    feature.consume(log.records)
    view = feature.context.views["delay"]
    # Going on empties the journal: expired tiles go, and the rows so far are in a chunk.
    same = {"matured": [], "entities": frozen(view)["entities"]}
    assert frozen(view) == before | same
    assert dict(view.state.snapshot()).keys() == before["entities"].keys()
    assert (view.declaration, view.horizon_us) == (3, 13 * HOUR_US)
    feature.restart()
    assert frozen(feature.context.views["delay"]) == before | same
    assert feature.context.views["delay"].declaration == 3


def test_a_model_declared_with_another_label_keeps_its_windows_and_begins_its_table_anew(
    log: Log, feature: Feature
) -> None:
    flights(log, 30)
    feature.consume(log.records)
    at_us = feature.context.views["delay"].watermark_us

    def vectors() -> list[str]:
        state = feature.context.views["delay"].state
        return [repr(state.vector({"origin": o, "carrier": c, "load": 1.0}, at_us)) for o in "AB" for c in "xyz"]

    before = vectors()
    log.records.clear()
    log.declare([], ["delay"], load_declaration(DECLARATION.replace("delay > 15", "delay > 20"), "again.yaml"))
    feature.consume(log.records)
    view = feature.context.views["delay"]
    assert vectors() == before
    assert (view.waiting, view.matured, view.counts.vectors) == (0, [], 0)
    feature.restart()
    assert vectors() == before


def test_a_model_declared_with_other_features_begins_anew(log: Log, feature: Feature) -> None:
    flights(log, 100)
    feature.consume(log.records)
    assert len(feature.staged_rows("delay")) == 1
    log.records.clear()
    log.declare([], ["delay"], load_declaration(DECLARATION.replace("[last, max]", "[last, mean]"), "again.yaml"))
    flights(log, 100, 100)
    feature.consume(log.records)
    view = feature.context.views["delay"]
    declared = log.declaration.models["delay"]
    assert view.plan.view_version == compile_plan(declared, log.declaration.streams).view_version
    assert view.counts.vectors == 100
    rows = [row for _, commit in feature.staged_rows("delay") for row in commit]
    assert rows
    assert min(row.event_time_us for row in rows) >= START_US + 100 * 20 * MINUTE_US
    assert len(feature.context.views["load"].state.plan.names) == 2
    assert feature.context.views["load"].counts.vectors == 200
    end_us = view.watermark_us
    before = {model: frozen(one, end_us) for model, one in feature.context.views.items()}
    feature.restart()
    assert {model: frozen(one, end_us) for model, one in feature.context.views.items()} == before
