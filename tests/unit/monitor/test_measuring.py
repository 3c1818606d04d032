"""One model's measuring: windows, episodes, cooldowns, champions, jumps of time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evenkeel.contracts.declaration import MonitoringPolicy
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.features import parse_label
from evenkeel.libs.metrics import metric_named
from evenkeel.libs.sketches.profile import build_profile
from evenkeel.services.monitor.domain.measuring import (
    AlertCleared,
    Decayed,
    ErrorsRose,
    Finding,
    InputsShifted,
    Measured,
    Measuring,
)
from evenkeel.services.monitor.domain.policy import Baseline, Champion, Policy
from tests.makers import label_accepted, prediction_made, vector_computed

MONITORING = MonitoringPolicy.model_validate({"windows": ["24h", "7d"], "min_samples": 100, "cooldown": "14d"})
POLICY = Policy(
    task="binary",
    metric="roc_auc",
    label=parse_label("late > 0"),
    horizon_us=2 * DAY_US,
    monitoring=MONITORING,
    bake_us=7 * DAY_US,
)
HOUR = DAY_US // 24
PER_DAY = 200
PROFILE = build_profile(["x"], np.random.default_rng(0).normal(size=(20_000, 1)))


def policy(metric: str = "roc_auc", **monitoring: object) -> Policy:
    """The usual one, but for these."""
    return replace(POLICY, metric=metric, monitoring=MONITORING.model_copy(update=monitoring))


def champion(epoch: int, baseline: float | None = 0.85, **more: object) -> Champion:
    evidence = None if baseline is None else Baseline(baseline, 2000)
    return replace(Champion(epoch, epoch + 10, "view", PROFILE, evidence), **more)  # type: ignore[arg-type]


def model(*champions: Champion, policy: Policy = POLICY) -> Measuring:
    return Measuring("m", {0: policy}, {one.epoch: one for one in champions})


def event(cause: str, at: int, payload: Any) -> Event[Any]:
    return Event(payload, cause, at, "t", 0, 0, {})


def changed(one: Event[Any], **changes: Any) -> Event[Any]:
    return event(one.id, one.time_us, one.data.model_copy(update=changes))


def one_day(number: int, epoch: int | None = 1, *, x: float = 0.0, skill: float = 2.0) -> list[Event[Any]]:
    """A day from midnight of day `number`; labels come an hour later, so the last ones on the next day."""
    random = np.random.default_rng([number, 5])
    late = random.random(PER_DAY) < 0.4
    scores = 1 / (1 + np.exp(-(skill * (late - 0.4) + random.normal(size=PER_DAY))))
    values = (x + random.normal(size=PER_DAY)).tolist()
    records: list[Event[Any]] = []
    for i, (is_late, score, value) in enumerate(zip(late.tolist(), scores.tolist(), values, strict=True)):
        at = number * DAY_US + i * (DAY_US // PER_DAY)
        event_id = f"{number}-{i}"
        records.append(event(f"v{event_id}", at, vector_computed(values=[value], view_version="view")))
        if epoch is not None:
            answer = prediction_made(event_id=event_id, score=score, decision=score >= 0.5, epoch=epoch)
            records.append(event(f"p{event_id}", at, answer))
        records.append(
            event(f"l{event_id}", at + HOUR, label_accepted(event_id=event_id, fields={"late": int(is_late)}))
        )
    return records


def run(measuring: Measuring, records: list[Event[Any]], until_day: int) -> list[Finding]:
    """Release what lies before midnight of day `until_day`; what lies behind it is lost."""
    released = [record for record in records if record.order_us < until_day * DAY_US]
    released.sort(key=lambda record: (record.order_us, record.id))
    return measuring.fold(released, until_day * DAY_US).findings


def days(first: int, last: int, epoch: int | None = 1, **more: float) -> list[Event[Any]]:
    return [record for number in range(first, last) for record in one_day(number, epoch, **more)]


def signals(found: list[Finding]) -> list[tuple[str, int]]:
    """(kind, day of the window's end)."""
    told = (InputsShifted, ErrorsRose, Decayed)
    return [(type(one).__name__, one.span.end_us // DAY_US) for one in found if isinstance(one, told)]


# -- windows --------------------------------------------------------------------------------------------------------


def test_a_window_has_the_labels_that_came_in_it() -> None:
    found = [one for one in run(model(champion(1)), days(0, 3), 3) if isinstance(one, Measured)]
    assert [(one.span.start_us // DAY_US, one.span.end_us // DAY_US) for one in found] == [(0, 1), (1, 2), (2, 3)]
    late = 8  # of the labels of a day, those of its last hour come on the next one
    assert [one.labelled for one in found] == [PER_DAY - late, PER_DAY, PER_DAY]
    assert [(one.predictions, one.vectors) for one in found] == [(PER_DAY, PER_DAY)] * 3
    assert found[0].versions == {11: PER_DAY - late}
    assert found[0].span.cause.split("-")[0] in ("v0", "p0", "l0")


def test_the_metrics_of_a_window_are_those_of_its_joined_rows() -> None:
    records = days(0, 1)
    (found,) = [one for one in run(model(champion(1)), records, 1) if isinstance(one, Measured)]
    known = [r.data for r in records if r.order_us < DAY_US]
    labels = {one.event_id: one.fields["late"] for one in known if isinstance(one, LabelAccepted)}
    answers = [one for one in known if isinstance(one, PredictionMade) and one.event_id in labels]
    pairs = [(labels[one.event_id], one.score) for one in answers]
    late, scores = np.array([one for one, _ in pairs], float), np.array([score for _, score in pairs])
    expected = metric_named("roc_auc").value(late, scores)
    assert found.metrics["roc_auc"] == expected


def test_longer_windows_are_measured_when_they_end() -> None:
    found = [one for one in run(model(champion(1)), days(0, 15), 15) if isinstance(one, Measured)]
    weeks = [one for one in found if one.span.end_us - one.span.start_us == 7 * DAY_US]
    assert [one.span.end_us // DAY_US for one in weeks] == [7, 14]
    assert weeks[1].labelled == 7 * PER_DAY


def test_before_the_first_champion_only_vectors_are_counted() -> None:
    found = [one for one in run(model(), days(0, 2, None), 2) if isinstance(one, Measured)]
    assert [(one.vectors, one.labelled, one.metrics, one.span.epoch) for one in found] == [(PER_DAY, 0, {}, 0)] * 2


def test_a_jump_of_time_ends_what_is_open_and_does_not_count_the_empty_years() -> None:
    measuring = model(champion(1))
    found = [one for one in run(measuring, days(0, 3), 365_000) if isinstance(one, Measured)]
    assert sorted(one.span.end_us // DAY_US for one in found) == [1, 2, 3, 4, 7]
    assert not measuring.joins.open
    assert measuring.open is None
    again = run(measuring, days(365_000, 365_002), 365_002)
    assert [one.labelled for one in again if isinstance(one, Measured)][:1] == [PER_DAY - 8]


def test_a_label_that_never_comes_leaves_no_trace_but_an_open_prediction_until_the_horizon() -> None:
    measuring = model(champion(1))
    lost: list[Event[Any]] = [record for record in days(0, 1) if not isinstance(record.data, LabelAccepted)]
    run(measuring, lost + days(1, 2), 2)
    assert len(measuring.joins.open) == PER_DAY + 8
    run(measuring, days(2, 4), 4)
    assert len(measuring.joins.open) == 8, "only those whose label is under way"


def test_vectors_of_other_features_are_not_compared() -> None:
    other = [
        changed(r, view_version="other", values=[9.0]) if isinstance(r.data, VectorComputed) else r for r in days(0, 1)
    ]
    (found,) = [one for one in run(model(champion(1)), other, 1) if isinstance(one, Measured)]
    assert (found.vectors, found.shifts) == (PER_DAY, [])


def test_without_a_usable_profile_quality_is_still_measured() -> None:
    (found,) = [one for one in run(model(champion(1, profile=None)), days(0, 1), 1) if isinstance(one, Measured)]
    assert found.shifts == []
    assert found.metrics["roc_auc"] is not None


# -- episodes -------------------------------------------------------------------------------------------------------


def test_a_steady_stream_gives_no_signal_in_half_a_year() -> None:
    assert signals(run(model(champion(1, 0.92)), days(0, 180), 180)) == []


def test_shifted_inputs_are_signalled_once_an_episode() -> None:
    measuring = model(champion(1))
    found = run(measuring, days(0, 20) + days(20, 45, x=1.0), 45)
    (first, again) = [one for one in found if isinstance(one, InputsShifted)]
    assert 21 <= first.span.end_us // DAY_US <= 25
    assert again.span.end_us - first.span.end_us == MONITORING.cooldown_us
    assert first.shifts[0].feature == "x"
    assert first.shifts[0].verdict.effect >= 0.2
    assert first.n == 7 * PER_DAY
    assert set(measuring.state.raised) == {"drift"}


def test_a_new_champion_ends_the_episode_and_its_cooldown_starts_anew() -> None:
    measuring = model(champion(1), champion(2))
    before = run(measuring, days(0, 26, x=1.0), 26)
    assert signals(before) == [("InputsShifted", 14)]
    after = run(measuring, days(26, 45, 2, x=1.0), 45)
    (cleared,) = [one for one in after if isinstance(one, AlertCleared)]
    assert (cleared.alert, cleared.span.end_us, cleared.span.version) == ("drift", 26 * DAY_US, 12)
    assert signals(after) == [("InputsShifted", 40)]


def test_drift_is_over_for_people_when_it_is_no_longer_found() -> None:
    found = run(model(champion(1)), days(0, 20) + days(20, 30, x=1.0) + days(30, 60), 60)
    (cleared,) = [one for one in found if isinstance(one, AlertCleared)]
    assert 34 <= cleared.span.end_us // DAY_US <= 38


def test_drift_is_judged_on_a_window_that_is_all_the_champions() -> None:
    """Inputs move with the new champion on day 10, and no cooldown holds the signal back: its first whole window does."""
    measuring = model(champion(1), champion(2), policy=policy(cooldown_us=0))
    found = run(measuring, days(0, 10) + days(10, 20, 2, x=1.0), 20)
    assert [day for kind, day in signals(found) if kind == "InputsShifted"][:1] == [17]


def test_a_policy_without_statistics_or_detectors_looks_at_none() -> None:
    measuring = model(champion(1, None), policy=policy(statistics={}, detectors={}))
    found = run(measuring, days(0, 20) + days(20, 45, x=1.0), 45)
    assert signals(found) == []
    assert all(one.shifts == [] for one in found if isinstance(one, Measured))
    assert measuring.state.errors == {}


def test_a_policy_may_choose_another_statistic() -> None:
    measuring = model(champion(1), policy=policy(statistics={"jensen_shannon": {"threshold": 0.3}}))
    found = run(measuring, days(0, 20) + days(20, 45, x=1.0), 45)
    first = next(one for one in found if isinstance(one, InputsShifted))
    verdict = first.shifts[0].verdict
    assert verdict.statistic == "jensen_shannon"
    assert verdict.effect >= 0.3
    assert verdict.detail.startswith("Jensen–Shannon distance 0.3")


def test_a_detector_that_a_new_policy_keeps_goes_on_and_a_changed_one_begins_anew() -> None:
    for detectors, kept in (({"adwin": {}}, True), ({"adwin": {"delta": 0.01}}, False), ({}, False)):
        other = policy(decay_tolerance=0.5, detectors=detectors)
        measuring = Measuring("m", {0: POLICY, 5: other}, {1: champion(1)})
        named = [changed(r, declaration=5) if isinstance(r.data, VectorComputed) else r for r in days(3, 6)]
        run(measuring, days(0, 3) + named, 6)
        widths = [watch.detector.width for watch in measuring._errors.values()]
        assert widths == ([] if not detectors else [1192 if kept else 400]), detectors


def test_a_champion_inputs_are_compared_with_its_own_profile() -> None:
    moved = build_profile(["x"], np.random.default_rng(0).normal(1.0, size=(20_000, 1)))
    found = run(model(champion(1), champion(2, profile=moved)), days(0, 10, 1, x=1.0) + days(10, 40, 2, x=1.0), 40)
    assert signals(found) == []
    last = [one for one in found if isinstance(one, Measured)][-1]
    assert last.shifts[0].verdict.effect < 0.2


def test_in_the_slot_of_a_change_only_vectors_since_then_are_compared() -> None:
    moved = build_profile(["x"], np.random.default_rng(0).normal(5.0, size=(20_000, 1)))
    noon = DAY_US // 2
    half = [r for r in one_day(0, 1) if r.order_us < noon] + [r for r in one_day(0, 2, x=5.0) if r.order_us >= noon]
    (found,) = [
        one for one in run(model(champion(1), champion(2, profile=moved)), half, 1) if isinstance(one, Measured)
    ]
    assert found.span.epoch == 2
    assert found.shifts[0].verdict.effect < 0.3


def test_a_champion_that_gets_worse_is_signalled_and_not_again_within_the_cooldown() -> None:
    found = run(model(champion(1, 0.92)), days(0, 20) + days(20, 34, skill=0.2), 34)
    (first,) = [one for one in found if isinstance(one, Decayed)]
    assert 21 <= first.span.end_us // DAY_US <= 29
    assert not first.in_bake_period
    assert first.decay.baseline == 0.92
    assert first.decay.effect > 0.1


def test_a_champion_that_is_bad_from_the_start_is_found_in_its_bake_period() -> None:
    """Input drift waits for its cooldown after a promotion; decay does not."""
    found = run(model(champion(1, 0.92), champion(2, 0.9)), days(0, 3) + days(3, 12, 2, skill=-1.0), 12)
    first = next(one for one in found if isinstance(one, Decayed))
    assert first.in_bake_period
    assert (first.span.epoch, first.span.version) == (2, 12)


def test_a_champion_does_not_answer_for_the_one_before_it() -> None:
    records = days(0, 10, skill=-9.0) + days(10, 17, 2)
    found = run(model(champion(1, None), champion(2, 0.92)), records, 17)
    assert [one.span.epoch for one in found if isinstance(one, Decayed)] == []


def test_without_evidence_the_first_window_is_the_baseline() -> None:
    found = run(model(champion(1, None)), days(0, 20) + days(20, 34, skill=0.2), 34)
    first = next(one for one in found if isinstance(one, Decayed))
    assert first.decay.baseline == pytest.approx(0.92, abs=0.02)


def test_errors_that_rise_for_good_are_signalled() -> None:
    """The scores still rank, and the inputs are the same: only the errors tell."""
    calm = [
        changed(r, score=r.data.score**0.2) if number >= 20 and isinstance(r.data, PredictionMade) else r
        for number in range(50)
        for r in one_day(number)
    ]
    (first, *_) = [
        one
        for one in run(model(champion(1, None), policy=policy("log_loss", decay_tolerance=10.0)), calm, 50)
        if isinstance(one, ErrorsRose)
    ]
    assert 21 <= first.span.end_us // DAY_US <= 30
    assert first.rise.after > first.rise.before * 1.2
    assert first.rise.since_us // DAY_US >= 20


def test_one_episode_one_drift_signal_and_one_decay_signal() -> None:
    """Inputs move, errors rise and quality falls at once: a drift detector and decay speak, the other one does not."""
    found = run(model(champion(1, 0.92)), days(0, 20) + days(20, 33, x=1.0, skill=-1.0), 33)
    kinds = [kind for kind, _ in signals(found)]
    assert kinds.count("Decayed") == 1
    assert len(kinds) <= 2


def test_decay_holds_back_a_drift_signal_that_comes_after_it() -> None:
    found = run(model(champion(1, 0.92)), days(0, 16, skill=-1.0) + days(16, 24, x=1.0, skill=-1.0), 24)
    kinds = [kind for kind, _ in signals(found)]
    assert kinds[0] == "Decayed"
    assert "InputsShifted" not in kinds


def test_a_new_declaration_counts_from_the_next_slot() -> None:
    strict = policy(statistics={"psi": {"threshold": 100.0}})
    measuring = Measuring("m", {0: POLICY, 5: strict}, {1: champion(1)})
    named = [changed(r, declaration=5) if isinstance(r.data, VectorComputed) else r for r in days(10, 30, x=1.0)]
    assert signals(run(measuring, days(0, 10, x=1.0) + named, 30)) == []
    assert measuring.policy is strict


def test_other_windows_start_from_nothing() -> None:
    hourly = policy(windows_us=(DAY_US // 2,))
    measuring = Measuring("m", {0: POLICY, 5: hourly}, {1: champion(1)})
    named = [changed(r, declaration=5) if isinstance(r.data, VectorComputed) else r for r in days(3, 5)]
    found = [one for one in run(measuring, days(0, 3) + named, 5) if isinstance(one, Measured)]
    assert [one.span.end_us / DAY_US for one in found] == [1, 2, 3, 4, 4.5, 5]
