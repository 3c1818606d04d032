"""The handlers on a real store: facts that are waited for, packages that cannot be used, what is counted and told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.monitor import AlertChanged, DriftDetected, WindowMeasured
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.errors import NotYet, Retry
from evenkeel.libs.service import Derived, Released, Reply
from evenkeel.services.monitor import queries
from evenkeel.services.monitor.context import MonitorContext
from evenkeel.services.monitor.handlers import (
    on_released,
)
from tests.makers import event_rejected, run_failed
from tests.unit.monitor.scenes import (
    MODEL,
    START,
    Monitor,
    champion,
    day,
    declared,
    in_order,
    label,
    package,
    prediction,
    run,
    steady_rows,
    told,
    traffic,
    vector,
)


@pytest.fixture
def monitor(tmp_path: Path) -> Iterator[Monitor]:
    one = Monitor(tmp_path)
    yield one
    one.close()


@pytest.fixture
def ready(monitor: Monitor, tmp_path: Path) -> Monitor:
    """A declared model with a champion."""
    monitor.declare()
    monitor.promote(package(tmp_path, steady_rows()))
    return monitor


def query(monitor: Monitor, ask: Any, *given: Any) -> Any:
    with monitor.store.reading() as connection:
        return ask(connection, *given)


def pair(number: int, at: float, epoch: int = 1) -> list[Any]:
    return [prediction(number, day(at), 0.8, epoch=epoch), label(number, day(at) + 5, 1.0)]


# -- facts ----------------------------------------------------------------------------------------------------------


def test_a_prediction_of_an_epoch_not_read_yet_is_waited_for(ready: Monitor) -> None:
    with pytest.raises(NotYet, match="epoch 2"):
        ready.release(pair(1, 0.1, epoch=2), day(0.2))
    assert ready.context.models[MODEL].state.epoch is None, "nothing was folded"


def test_a_champion_whose_run_was_not_read_yet_is_waited_for(monitor: Monitor, tmp_path: Path) -> None:
    monitor.declare()
    ref = package(tmp_path, steady_rows())
    monitor.hear(champion(ref), START)
    with pytest.raises(NotYet, match="run-1"):
        monitor.release(pair(1, 0.1), day(0.2))
    monitor.hear(run(ref), START)
    monitor.release(pair(1, 0.1), day(0.2))


def test_a_vector_of_a_declaration_not_read_yet_is_waited_for(ready: Monitor) -> None:
    with pytest.raises(NotYet, match="declaration 3"):
        ready.release([vector(1, day(0.1), [0.0, 0.0], declaration=3)], day(0.2))


def test_a_package_that_is_not_there_yet_is_waited_for(monitor: Monitor, tmp_path: Path) -> None:
    monitor.declare()
    ref = package(tmp_path, steady_rows())
    (tmp_path / ref.uri).rename(tmp_path / "elsewhere")
    monitor.promote(ref)
    with pytest.raises(Retry, match="no package"):
        monitor.release(pair(1, 0.1), day(0.2))
    (tmp_path / "elsewhere").rename(tmp_path / ref.uri)
    monitor.release(pair(1, 0.1), day(0.2))


def test_an_altered_package_is_told_and_quality_is_measured_without_it(monitor: Monitor, tmp_path: Path) -> None:
    monitor.declare()
    ref = package(tmp_path, steady_rows())
    profile = tmp_path / ref.uri / "profile.json"
    profile.write_bytes(profile.read_bytes().replace(b"20000", b"20001"))
    monitor.promote(ref)
    outputs = monitor.release(traffic(range(1), per_day=50)[:100], day(1))
    (alert,) = told(outputs, AlertChanged)
    assert (alert.alert, alert.state) == ("profile", "raised")
    (window,) = told(outputs, WindowMeasured)
    assert window.drift == []
    assert window.labelled > 0
    monitor.restart()
    assert told(monitor.release(pair(9_999_999, 1.5), day(1.6)), AlertChanged) == []


# -- joins through the store ------------------------------------------------------------------------------------------


def test_joins_survive_a_restart_on_both_sides(ready: Monitor) -> None:
    ready.release([prediction(1, day(0.1), 0.8), label(2, day(0.1), 1.0)], day(0.2))
    ready.restart()
    outputs = ready.release(in_order([label(1, day(0.3), 1.0), prediction(2, day(0.3), 0.2)]), day(1))
    (window,) = told(outputs, WindowMeasured)
    assert (window.labelled, window.versions) == (2, {"1": 2})


def test_what_is_past_the_horizon_leaves_the_store(ready: Monitor) -> None:
    ready.release([prediction(n, day(0.1) + n, 0.8) for n in range(10)], day(0.2))
    for number in range(1, 6):
        ready.release(pair(100 + number, number), day(number + 0.5))
    assert query(ready, queries.models)[0].open_predictions == 0
    with ready.store.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM joins").scalar_one() <= 4
    ready.restart()
    assert not ready.context.models[MODEL].joins.open


def test_a_label_without_the_field_is_no_label(ready: Monitor) -> None:
    outputs = ready.release([prediction(1, day(0.1), 0.8), label(1, day(0.2), None)], day(1))
    assert told(outputs, WindowMeasured)[0].labelled == 0


def test_a_late_label_counts_when_it_arrived(ready: Monitor) -> None:
    late = label(1, day(0.2), 1.0, order=day(1.5))
    outputs = ready.release([prediction(1, day(0.1), 0.8), late], day(2))
    assert [(w.window_start, w.labelled) for w in told(outputs, WindowMeasured)] == [
        ("2026-01-01T00:00:00Z", 0),
        ("2026-01-02T00:00:00Z", 1),
    ]


def test_requests_and_shadows_are_kept_apart(ready: Monitor) -> None:
    events = [
        prediction(1, day(0.1), 0.8),
        prediction(2, day(0.1) + 1, 0.8, origin="request", epoch=7),
        prediction(3, day(0.1) + 2, 0.8, role="shadow", epoch=8),
        label(2, day(0.2), 1.0),
    ]
    (window,) = told(ready.release(events, day(1)), WindowMeasured)
    assert (window.predictions, window.labelled) == (1, 0)
    assert query(ready, queries.models)[0].request_predictions == 1


def test_two_models_of_one_stream_share_its_labels(ready: Monitor, tmp_path: Path) -> None:
    twin = declared().model_copy(update={"name": "twin"})
    ready.declare(twin)
    ready.promote(package(tmp_path, steady_rows()))
    ref = package(tmp_path, steady_rows())
    for payload in (run(ref), champion(ref)):
        ready.hear(payload.model_copy(update={"model": "twin"}), START)
    one, other = prediction(1, day(0.1), 0.8), prediction(1, day(0.1), 0.3)
    assert isinstance(other.data, PredictionMade)
    other.data = other.data.model_copy(update={"model": "twin"})
    outputs = ready.release([one, other, label(1, day(0.2), 1.0)], day(1))
    assert {w.model: w.labelled for w in told(outputs, WindowMeasured)} == {MODEL: 1, "twin": 1}
    assert len({o.id for o in outputs}) == len(outputs)


# -- what is told -----------------------------------------------------------------------------------------------------


def test_a_signal_names_features_and_starts_a_turn(ready: Monitor) -> None:
    outputs = ready.release([e for e in traffic(range(24), per_day=60, season=1.5) if e.time_us < day(24)], day(24))
    (drift,) = [o for o in outputs if isinstance(o.payload, DriftDetected)]
    payload = drift.payload
    assert isinstance(payload, DriftDetected)
    assert payload.features[0].feature == "season"
    assert payload.effect == payload.features[0].effect > 0.2
    assert payload.window_end == "2026-01-16T00:00:00Z"
    assert "season (PSI" in payload.detail
    assert (drift.cause.time_us, drift.cause.correlation_id) == (day(15), drift.id)
    (raised,) = [o for o in outputs if isinstance(o.payload, AlertChanged)]
    assert (raised.cause.id, raised.cause.correlation_id) == (drift.id, drift.id)
    (kept,) = query(ready, queries.signalled, MODEL, "drift", 10)
    assert kept == {"id": drift.id} | payload.model_dump(mode="json")


def test_a_failed_run_is_told_once_until_one_completes(ready: Monitor, tmp_path: Path) -> None:
    failed = run_failed(model=MODEL, run_id="run-2", reason="crashed", detail="exit code 1")
    told_ = [ready.hear(failed, format_us(day(i))) for i in range(2)]
    assert [[(a.alert, a.state) for a in alerts] for alerts in told_] == [[("training", "raised")], []]
    ref = package(tmp_path, steady_rows())
    completed = [ready.hear(run(ref), format_us(day(3))) for _ in range(2)]
    assert [[a.state for a in alerts] for alerts in completed] == [["cleared"], []]


def test_rejections_are_counted_by_day_and_rule(ready: Monitor) -> None:
    for at, rule in ((0.1, "type"), (0.2, "type"), (1.1, "range"), (0.9, "type")):
        ready.hear(event_rejected(stream="visits", rule=rule), format_us(day(at)))
    counted = query(ready, queries.rejected, "visits", 10)
    assert [(one.day, one.kind, one.rule, one.count) for one in counted] == [
        ("2026-01-02", "event", "range", 1),
        ("2026-01-01", "event", "type", 3),
    ]


def test_a_failed_transaction_leaves_nothing_behind(ready: Monitor) -> None:
    """The runtime rolls back and loads again: the same records then give the same outputs."""
    ready.release(pair(1, 0.1), day(0.2))
    events = [*pair(2, 0.3), *pair(3, 0.6)]

    first: list[Derived] = []

    def broken(released: Released, ctx: MonitorContext) -> list[Derived]:
        first.extend(o for o in on_released(released, ctx) if isinstance(o, Derived))
        raise RuntimeError("the disk is full")

    (group,) = ready.context.merge_groups()
    with pytest.raises(RuntimeError, match="disk"):
        ready.command(lambda ctx: Reply(broken(Released(events, day(1), group), ctx)))
    ready.restart()
    again = ready.release(events, day(1))
    assert [(o.id, o.payload) for o in again] == [(o.id, o.payload) for o in first]
