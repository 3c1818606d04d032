"""What every metric of the catalogue must show. A row without an oracle here turns the first test red."""

from __future__ import annotations

import doctest
import re
import sys
from collections.abc import Callable
from typing import Final

import numpy as np
import pytest
import sklearn.metrics as oracle
from numpy.typing import NDArray

from evenkeel.contracts.payload import IDENTIFIER_PATTERN
from evenkeel.libs.metrics import (
    METRICS,
    Metric,
    UndefinedMetricError,
    compare,
    decisions,
    evaluate,
    metric_named,
    metrics_of,
)

Array = NDArray[np.float64]

ORACLES: Final[dict[str, Callable[[Array, Array], float]]] = {
    "roc_auc": oracle.roc_auc_score,
    "log_loss": lambda label, score: oracle.log_loss(label, score, labels=[0.0, 1.0]),
    "brier": oracle.brier_score_loss,
    "accuracy": oracle.accuracy_score,
    "precision": oracle.precision_score,
    "recall": oracle.recall_score,
    "f1": oracle.f1_score,
    "mae": oracle.mean_absolute_error,
    "rmse": oracle.root_mean_squared_error,
}
UNDEFINED: Final[dict[str, set[tuple[float, float]]]] = {
    "roc_auc": {(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)},
    "precision": {(0.0, 0.0), (1.0, 0.0)},
    "recall": {(0.0, 0.0), (0.0, 1.0)},
    "f1": {(0.0, 0.0)},
}
"""Metrics that cannot be told from rows that all have the same label and the same score, by these."""
every_metric: Final = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


def rows(metric: Metric, n: int, seed: int, digits: int = 9) -> tuple[Array, Array, Array]:
    """Labels and what two models answer, the first of them better, as the metric takes them; few digits make ties."""
    generator = np.random.default_rng(seed)
    if "regression" in metric.tasks:
        label = generator.normal(200, 30, n)
        good, worse = label + generator.normal(0, 5, n), label + generator.normal(0, 15, n)
        return np.round(label, digits), np.round(good, digits), np.round(worse, digits)
    label = (generator.random(n) < 0.3).astype(float)
    good = 1 / (1 + np.exp(-(2.0 * label - 1.5 + generator.normal(size=n))))
    worse = 1 / (1 + np.exp(-(1.2 * label - 1.3 + generator.normal(size=n))))
    good, worse = np.round(good, digits), np.round(worse, digits)
    return label, metric.judged(good, 0.4), metric.judged(worse, 0.4)


def test_every_metric_has_an_oracle_and_a_name_of_its_own() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    assert set(ORACLES) == set(names)
    assert all(re.fullmatch(IDENTIFIER_PATTERN, name) for name in names)
    assert all(metric.tasks for metric in METRICS)


@every_metric
def test_its_examples_hold(metric: Metric) -> None:
    found = doctest.testmod(sys.modules[metric.value.__module__])
    assert all(">>> " in (function.__doc__ or "") for function in (metric.value, metric.influence))
    assert found.failed == 0


@every_metric
@pytest.mark.parametrize("digits", [9, 2, 1])
def test_it_equals_its_oracle(metric: Metric, digits: int) -> None:
    label, score, _ = rows(metric, 800, seed=1, digits=digits)
    assert metric.value(label, score) == pytest.approx(ORACLES[metric.name](label, score), abs=1e-12)


@every_metric
def test_it_points_the_way_it_says(metric: Metric) -> None:
    label, good, worse = rows(metric, 2000, seed=6)
    better, less = metric.value(label, good), metric.value(label, worse)
    assert metric.improvement(better, over=less) == pytest.approx(abs(better - less))
    assert metric.improvement(less, over=better) == pytest.approx(-abs(better - less))
    assert abs(better - less) > 0.001


@every_metric
def test_influence_is_what_a_row_more_changes(metric: Metric) -> None:
    """Finite differences: one more copy of a row, beside 500 of each, moves the metric by its share of the influence."""
    label, score, _ = rows(metric, 40, seed=5, digits=2)
    value, influence = metric.value(label, score), metric.influence(label, score)
    assert influence.shape == label.shape
    assert influence.mean() == pytest.approx(0.0, abs=1e-9)
    many_labels, many_scores = np.tile(label, 500), np.tile(score, 500)
    scale = float(np.abs(influence).max())
    for row in range(0, 40, 3):
        moved = metric.value(np.append(many_labels, label[row]), np.append(many_scores, score[row])) - value
        assert moved * (len(many_labels) + 1) == pytest.approx(influence[row], abs=2e-3 * scale)


@every_metric
def test_the_standard_error_agrees_with_the_bootstrap(metric: Metric) -> None:
    label, candidate, champion = rows(metric, 600, seed=4)
    generator = np.random.default_rng(5)
    differences = []
    for _ in range(600):
        chosen = generator.integers(0, len(label), len(label))
        ours, theirs = metric.value(label[chosen], candidate[chosen]), metric.value(label[chosen], champion[chosen])
        differences.append(ours - theirs)
    found = compare(metric.name, label, candidate, champion, confidence=0.9)
    assert found.standard_error == pytest.approx(np.std(differences), rel=0.12)
    assert found.improvement_lower == pytest.approx(found.improvement - 1.2815515655 * found.standard_error)
    assert found.improvement_upper == pytest.approx(found.improvement + 1.2815515655 * found.standard_error)


@every_metric
def test_a_comparison_is_oriented_whatever_the_metric(metric: Metric) -> None:
    label, good, worse = rows(metric, 2000, seed=6)
    forward, backward = compare(metric.name, label, good, worse), compare(metric.name, label, worse, good)
    assert forward.improvement > 0 > backward.improvement
    assert forward.improvement == pytest.approx(-backward.improvement)
    assert (forward.candidate > forward.champion) is metric.higher_is_better


@every_metric
def test_a_model_against_itself_differs_by_nothing(metric: Metric) -> None:
    label, score, _ = rows(metric, 300, seed=7)
    found = compare(metric.name, label, score, score.copy())
    told = found.improvement, found.standard_error, found.improvement_lower, found.improvement_upper
    assert told == (0.0, 0.0, 0.0, 0.0)


@every_metric
@pytest.mark.parametrize("same_label", [0.0, 1.0])
@pytest.mark.parametrize("same_score", [0.0, 1.0])
def test_what_rows_cannot_tell_is_undefined(metric: Metric, same_label: float, same_score: float) -> None:
    label, score = np.full(5, same_label), np.full(5, same_score)
    told = evaluate(metric.tasks[0], label, score, score)[metric.name]
    if (same_label, same_score) in UNDEFINED.get(metric.name, ()):
        assert told is None
        for function in (metric.value, metric.influence):
            with pytest.raises(UndefinedMetricError, match=metric.name):
                function(label, score)
    else:
        assert told is not None
        assert np.isfinite([told, *metric.influence(label, score)]).all()


@every_metric
def test_no_rows_are_undefined(metric: Metric) -> None:
    for function in (metric.value, metric.influence):
        with pytest.raises(UndefinedMetricError, match="no rows"):
            function(np.empty(0), np.empty(0))


@every_metric
def test_nonsense_is_refused(metric: Metric) -> None:
    nonsense: list[tuple[list[float], list[float], str]] = [
        ([1.0, 0.0], [1.0], "one length"),
        ([1.0, float("nan")], [1.0, 0.0], "finite"),
        ([1.0, 0.0], [1.0, float("inf")], "finite"),
    ]
    if "binary" in metric.tasks:
        nonsense.append(([1.0, 2.0], [1.0, 0.0], "0 or 1"))
    if metric.thresholded:
        nonsense.append(([1.0, 0.0], [0.7, 0.2], "0 or 1"))
    for label, score, message in nonsense:
        for function in (metric.value, metric.influence):
            with pytest.raises(ValueError, match=message):
                function(np.array(label), np.array(score))


def test_a_threshold_makes_decisions_where_a_metric_takes_them() -> None:
    label, score = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.7, 0.3, 0.1])
    f1, area = metric_named("f1"), metric_named("roc_auc")
    assert f1.value(label, f1.judged(score, 0.2)) == pytest.approx(0.8)
    assert decisions(score, 0.7).tolist() == [1.0, 1.0, 0.0, 0.0]
    assert area.judged(score, 0.2) is score


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no metric 'auc': it is one of roc_auc, log_loss"):
        metric_named("auc")
    assert metrics_of("cooking") == ()
    assert all("regression" in metric.tasks for metric in metrics_of("regression"))
    assert {"mae", "rmse"} <= {metric.name for metric in metrics_of("regression")}
