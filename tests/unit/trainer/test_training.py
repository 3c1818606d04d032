"""A run is a pure function of request, table, champion and versions; what comes out is evidence one can trust."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from evenkeel.libs.clock import DAY_US, HOUR_US, format_us, parse_us
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.metrics import metric_named
from evenkeel.libs.packages.package import Package, read_package
from evenkeel.libs.packages.scorer import LinearModel, OnnxModel, Scorer
from evenkeel.services.trainer.domain.export import export
from evenkeel.services.trainer.domain.fitting import fit
from evenkeel.services.trainer.domain.job import Candidate, Refused, Task
from evenkeel.services.trainer.domain.training import train
from tests.tiny_packages import FEATURES, START_US, table_of, tiny_package, tiny_request, tiny_table, tiny_training

BOTH = (
    Candidate(estimator="logistic"),
    Candidate(estimator="hist_gradient_boosting", parameters={"max_iter": 20}),
)


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """Trained on the first half of the tiny table."""
    home = tmp_path_factory.mktemp("champion")
    ref = tiny_package(home / "artifacts", home / "keys", table=tiny_table(600))
    return read_package(home / "artifacts", ref.digest, verification_keys(home / "keys"))


@pytest.mark.parametrize("estimator", ["logistic", "hist_gradient_boosting"])
def test_the_same_run_gives_the_same_bytes(tmp_path: Path, estimator: str) -> None:
    first, second = (tiny_package(tmp_path / name / "artifacts", tmp_path / name / "keys", estimator) for name in "ab")
    assert first == second
    other_seed = tiny_package(tmp_path / "a" / "artifacts", tmp_path / "a" / "keys", estimator, seed=8)
    assert other_seed.digest != first.digest


@pytest.mark.parametrize("estimator", ["logistic", "hist_gradient_boosting"])
def test_what_is_known_after_the_cut_does_not_touch_the_model(estimator: str) -> None:
    table = tiny_table()
    original = tiny_training(estimator, table=table)
    cut = parse_us(original.contents.manifest.split.training_label_cut)
    later = table.label_time_us >= cut
    label = np.where(later, 1.0 - table.label, table.label)
    rows = np.where(later[:, None], table.rows[::-1], table.rows)
    changed = tiny_training(estimator, table=table_of(table.event_time_us, table.label_time_us, label, rows))
    assert changed.contents.model_onnx == original.contents.model_onnx
    assert changed.contents.profile == original.contents.profile
    assert changed.contents.manifest.threshold == original.contents.manifest.threshold
    assert changed.evidence.candidate != original.evidence.candidate


def test_evidence_is_computed_on_the_evaluation_rows_by_what_is_served() -> None:
    table, result = tiny_table(), tiny_training("hist_gradient_boosting")
    split = result.contents.manifest.split
    window = table.event_time_us >= parse_us(split.evaluation_from)
    window &= table.event_time_us < parse_us(split.evaluation_until)
    assert window.sum() == split.evaluation_rows == result.evidence.evaluation_rows
    served = OnnxModel(result.contents.model_onnx, result.contents.manifest.onnx, len(FEATURES))
    expected = metric_named("roc_auc").value(table.label[window], served.predict(table.rows[window]))
    assert result.evidence.candidate.metrics["roc_auc"] == expected
    assert result.evidence.no_comparison_because == "there is no champion"
    assert result.contents.metrics == result.evidence.model_dump(mode="json")


def test_champion_is_scored_on_the_same_rows(champion: Package) -> None:
    table = tiny_table(drift=0.9)
    result = tiny_training("hist_gradient_boosting", table=table, champion=champion)
    comparison, theirs = result.evidence.comparison, result.evidence.champion
    assert comparison is not None
    assert theirs is not None
    split = result.contents.manifest.split
    window = table.event_time_us >= parse_us(split.evaluation_from)
    window &= table.event_time_us < parse_us(split.evaluation_until)
    assert theirs.digest == champion.digest
    assert theirs.metrics["roc_auc"] == comparison.champion
    theirs = Scorer(champion).predict(table.rows[window])
    assert comparison.champion == metric_named("roc_auc").value(table.label[window], theirs)
    assert comparison.n == split.evaluation_rows
    assert comparison.improvement > comparison.improvement_lower
    assert comparison.confidence == 0.9


def test_a_champion_of_another_view_is_not_compared(champion: Package) -> None:
    result = tiny_training(champion=champion, view_version="sha256:other")
    assert result.evidence.champion is None
    assert result.evidence.comparison is None
    assert result.evidence.no_comparison_because is not None
    assert "another view" in result.evidence.no_comparison_because


def test_rows_that_the_champion_has_seen_are_no_evidence(champion: Package) -> None:
    """The champion of a later cut: the window starts behind what it was trained on."""
    seen_until = format_us(START_US + 23 * DAY_US)
    manifest = champion.manifest
    later = manifest.model_copy(update={"split": manifest.split.model_copy(update={"training_label_cut": seen_until})})
    result = tiny_training(champion=replace(champion, manifest=later), min_evaluation_rows=20)
    assert result.contents.manifest.split.evaluation_from == seen_until
    with pytest.raises(Refused, match="evaluation rows") as caught:
        tiny_training(champion=replace(champion, manifest=later), min_evaluation_rows=190)
    assert caught.value.reason == "too_few_rows"


def test_the_better_candidate_is_chosen_without_the_evaluation_rows() -> None:
    table = tiny_table(2400)
    interaction = ((table.rows[:, 1] > 0) ^ (table.rows[:, 3] > 2)).astype(float)
    curved = table_of(table.event_time_us, table.label_time_us, interaction, table.rows)
    assert tiny_training(table=table, candidates=BOTH).estimator == "logistic"
    result = tiny_training(table=curved, candidates=BOTH)
    assert result.estimator == "hist_gradient_boosting"
    assert [trial.estimator for trial in result.evidence.trials] == ["logistic", "hist_gradient_boosting"]
    values = [trial.value for trial in result.evidence.trials]
    assert values[0] is not None
    assert values[1] is not None
    assert values[0] < values[1]


def test_the_choice_uses_no_label_that_came_after_its_own_cut() -> None:
    """Labels of the rows before the validation rows come late: known to the final fit, unknown to the trial fits."""
    table = tiny_table()
    training = tiny_training(table=table).contents.manifest.split.training_rows
    validation_start = training - int(0.2 * training)
    late = slice(validation_start - 100, validation_start)
    label_time = table.label_time_us.copy()
    label_time[late] = table.event_time_us[validation_start] + HOUR_US
    flipped = table.label.copy()
    flipped[late] = 1.0 - flipped[late]
    first, second = (
        tiny_training(table=table_of(table.event_time_us, label_time, label, table.rows))
        for label in (table.label, flipped)
    )
    assert first.contents.manifest.split.training_rows == training
    assert first.evidence.trials == second.evidence.trials
    assert first.contents.manifest.threshold == second.contents.manifest.threshold
    assert first.contents.linear != second.contents.linear


def test_a_spent_budget_skips_all_but_the_first_candidate() -> None:
    table = tiny_table()
    request = tiny_request(table, candidates=BOTH, time_budget_seconds=10.0)
    result = train(request, table, None, {}, lambda: 6.0)
    assert [trial.value is None for trial in result.evidence.trials] == [False, True]
    assert result.estimator == "logistic"


def test_threshold_is_declared_or_chosen_on_training_rows() -> None:
    assert tiny_training(threshold=0.3).contents.manifest.threshold == 0.3
    chosen = tiny_training().contents.manifest.threshold
    assert chosen is not None
    assert 0.2 < chosen < 0.7
    assert tiny_training("linear", "regression").contents.manifest.threshold is None


def test_profile_and_golden_rows_describe_the_data() -> None:
    table, contents = tiny_table(), tiny_training().contents
    assert [feature.name for feature in contents.profile.features] == list(FEATURES)
    assert contents.profile.rows == contents.manifest.split.training_rows
    weather = contents.profile.features[2]
    assert 0.2 < weather.missing / contents.profile.rows < 0.3
    known = {tuple(row) for row in np.nan_to_num(table.rows, nan=-99.0).tolist()}
    golden = [tuple(-99.0 if value is None else value for value in row) for row in contents.golden.rows]
    assert sum(row in known for row in golden) == len(golden) - 1
    assert (-99.0,) * len(FEATURES) in golden
    linear = contents.linear
    assert linear is not None
    assert contents.golden.expected == tuple(LinearModel(linear).predict(contents.golden.matrix()).tolist())


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"min_training_rows": 5000}, "too_few_rows", "training rows of 1200"),
        ({"min_evaluation_rows": 5000}, "too_few_rows", "evaluation rows of 1200"),
        ({"as_of": "2013-01-05T00:00:00Z"}, "error", "past the decision's time"),
        ({"candidates": (Candidate(estimator="logistic", parameters={"depth": 3}),)}, "error", "no parameter depth"),
        ({"candidates": (Candidate(estimator="logistic", parameters={"C": -1.0}),)}, "error", "'C' parameter"),
    ],
)
def test_runs_that_cannot_give_a_model_say_why(changes: dict[str, object], reason: str, message: str) -> None:
    with pytest.raises(Refused, match=message) as caught:
        tiny_training(**changes)  # type: ignore[arg-type]
    assert caught.value.reason == reason


def _broken(kind: str) -> tuple[np.ndarray, np.ndarray]:
    table = tiny_table()
    label, rows = table.label.copy(), table.rows.copy()
    if kind == "one class":
        label[:] = 0.0
    elif kind == "three classes":
        label[5] = 2.0
    elif kind == "no label":
        label[5] = np.nan
    else:
        rows[5, 1] = np.inf
    return label, rows


@pytest.mark.parametrize(
    ("kind", "reason", "message"),
    [
        ("one class", "one_class", "training rows are positive"),
        ("three classes", "error", "must be 0 or 1"),
        ("no label", "error", "missing or infinite"),
        ("infinite", "error", "feature delay is infinite"),
    ],
)
def test_unusable_tables_are_refused(kind: str, reason: str, message: str) -> None:
    table = tiny_table()
    label, rows = _broken(kind)
    with pytest.raises(Refused, match=message) as caught:
        tiny_training(table=table_of(table.event_time_us, table.label_time_us, label, rows))
    assert caught.value.reason == reason


def test_a_champion_of_another_model_is_refused(champion: Package) -> None:
    with pytest.raises(Refused, match="is of model late, not early"):
        tiny_training(champion=champion, model="early")


@pytest.mark.parametrize(
    ("task", "estimator", "metric"),
    [("binary", "linear", "roc_auc"), ("regression", "logistic", "mae"), ("regression", "linear", "roc_auc")],
)
def test_request_must_fit_its_task(task: Task, estimator: str, metric: str) -> None:
    with pytest.raises(ValidationError, match="does not fit task"):
        tiny_request(tiny_table(), estimator, task, metric=metric)


def trees(**parameters: int) -> Candidate:
    return Candidate(estimator="hist_gradient_boosting", parameters=dict(parameters))


def test_values_one_float_apart_stay_on_their_sides_of_a_split() -> None:
    """The middle between two neighbouring float32 numbers rounds to one of them."""
    low = np.float32(1.0)
    sides = []
    for _ in range(8):
        high = np.nextafter(low, np.float32(2.0))
        rows = np.repeat(np.array([low, high], dtype=np.float32), 200)[:, None]
        fitted = fit(trees(max_iter=5), "binary", rows, np.repeat([0.0, 1.0], 200), seed=0)
        answers = export(fitted, "binary", rows).served.predict(rows)
        sides.append(answers[0] < 0.4 and answers[-1] > 0.6)
        low = high
    assert all(sides)


def test_a_graph_that_answers_otherwise_is_refused() -> None:
    table = tiny_table()
    fitted = fit(trees(), "binary", table.rows, table.label, seed=0)
    other = fit(trees(max_iter=149), "binary", table.rows, table.label, seed=0)
    with pytest.raises(Refused, match="differs from the trained one") as caught:
        export(replace(other, predict=fitted.predict), "binary", table.rows)
    assert caught.value.reason == "parity"
