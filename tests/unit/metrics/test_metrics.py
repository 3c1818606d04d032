"""Metrics against scikit-learn, and paired comparisons against plain definitions and the bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle

from libs.metrics import (
    BINARY_METRICS,
    HIGHER_IS_BETTER,
    REGRESSION_METRICS,
    MetricName,
    UndefinedMetricError,
    best_f1_threshold,
    compare,
    evaluate,
    metric,
    roc_auc,
)


def _binary(n: int, seed: int, digits: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a good score and a worse one; few digits make ties."""
    generator = np.random.default_rng(seed)
    label = (generator.random(n) < 0.3).astype(float)
    good = 1 / (1 + np.exp(-(2.0 * label - 1.5 + generator.normal(size=n))))
    worse = 1 / (1 + np.exp(-(1.2 * label - 1.3 + generator.normal(size=n))))
    return label, np.round(good, digits), np.round(worse, digits)


@pytest.mark.parametrize("digits", [9, 2, 1])
def test_binary_metrics_equal_scikit_learn(digits: int) -> None:
    label, score, _ = _binary(800, seed=1, digits=digits)
    decided = score >= 0.4
    found = evaluate(BINARY_METRICS, label, score, 0.4)
    assert found == pytest.approx(
        {
            "roc_auc": oracle.roc_auc_score(label, score),
            "log_loss": oracle.log_loss(label, score),
            "brier": oracle.brier_score_loss(label, score),
            "accuracy": oracle.accuracy_score(label, decided),
            "precision": oracle.precision_score(label, decided),
            "recall": oracle.recall_score(label, decided),
            "f1": oracle.f1_score(label, decided),
        },
        abs=1e-12,
    )


def test_certain_and_wrong_is_a_finite_log_loss() -> None:
    label, score = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert metric("log_loss", label, score) == pytest.approx(oracle.log_loss(label, score), rel=1e-9)


def test_regression_metrics_equal_scikit_learn() -> None:
    generator = np.random.default_rng(2)
    label = generator.normal(10, 30, 500)
    score = label + generator.normal(0, 5, 500)
    assert evaluate(REGRESSION_METRICS, label, score) == pytest.approx(
        {
            "mae": oracle.mean_absolute_error(label, score),
            "rmse": oracle.root_mean_squared_error(label, score),
        },
        abs=1e-12,
    )


def test_delong_standard_error_equals_its_definition_over_all_pairs() -> None:
    label, candidate, champion = _binary(150, seed=3, digits=1)

    def components(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positive, negative = score[label == 1][:, None], score[label == 0][None, :]
        kernel = (positive > negative) + 0.5 * (positive == negative)
        return kernel.mean(axis=1), kernel.mean(axis=0)

    variance = 0.0
    for ours, theirs in zip(components(candidate), components(champion), strict=True):
        covariance = np.cov(ours, theirs)
        variance += (covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]) / len(ours)
    found = compare("roc_auc", label, candidate, champion)
    assert found.standard_error == pytest.approx(np.sqrt(variance), rel=1e-9)
    assert found.improvement == pytest.approx(roc_auc(label, candidate) - roc_auc(label, champion), abs=1e-12)


@pytest.mark.parametrize("name", [*BINARY_METRICS, *REGRESSION_METRICS])
def test_standard_error_agrees_with_the_bootstrap(name: MetricName) -> None:
    label, candidate, champion = _binary(600, seed=4)
    generator = np.random.default_rng(5)
    differences = []
    for _ in range(600):
        rows = generator.integers(0, len(label), len(label))
        pair = metric(name, label[rows], candidate[rows], 0.4), metric(name, label[rows], champion[rows], 0.3)
        differences.append(pair[0] - pair[1])
    found = compare(name, label, candidate, champion, candidate_threshold=0.4, champion_threshold=0.3, confidence=0.9)
    assert found.standard_error == pytest.approx(np.std(differences), rel=0.12)
    assert found.improvement_lower == pytest.approx(found.improvement - 1.2815515655 * found.standard_error)
    assert found.improvement_upper == pytest.approx(found.improvement + 1.2815515655 * found.standard_error)


@pytest.mark.parametrize("name", [*BINARY_METRICS, *REGRESSION_METRICS])
def test_a_positive_improvement_is_better_whatever_the_metric(name: MetricName) -> None:
    label, good, worse = _binary(2000, seed=6)
    forward, backward = compare(name, label, good, worse), compare(name, label, worse, good)
    assert forward.improvement > 0 > backward.improvement
    assert forward.improvement == pytest.approx(-backward.improvement)
    assert (forward.candidate > forward.champion) is HIGHER_IS_BETTER[name]


@pytest.mark.parametrize("name", [*BINARY_METRICS, *REGRESSION_METRICS])
def test_a_model_against_itself_differs_by_nothing(name: MetricName) -> None:
    label, score, _ = _binary(300, seed=7)
    found = compare(name, label, score, score.copy())
    assert (found.improvement, found.standard_error, found.improvement_lower, found.improvement_upper) == (
        0.0,
        0.0,
        0.0,
        0.0,
    )


def test_the_bound_of_equal_models_errs_as_often_as_it_says() -> None:
    generator = np.random.default_rng(8)
    wrong = 0
    for _ in range(500):
        label = (generator.random(400) < 0.3).astype(float)
        signal = label + generator.normal(size=400)
        candidate, champion = (signal + generator.normal(size=400) for _ in range(2))
        wrong += compare("roc_auc", label, candidate, champion, confidence=0.9).improvement_lower > 0
    assert 0.06 <= wrong / 500 <= 0.14


def test_best_f1_threshold_is_the_best_of_all() -> None:
    for seed, digits in ((9, 9), (10, 1), (11, 2)):
        label, score, _ = _binary(200, seed=seed, digits=digits)
        best = max(oracle.f1_score(label, score >= cut) for cut in np.unique(score))
        threshold = best_f1_threshold(label, score)
        assert metric("f1", label, score, threshold) == pytest.approx(best)
        assert 0.0 <= threshold <= 1.0


@pytest.mark.parametrize(
    ("name", "label", "score", "message"),
    [
        ("roc_auc", [1.0, 1.0], [0.1, 0.2], "both classes"),
        ("precision", [1.0, 0.0], [0.1, 0.2], "0/0"),
        ("recall", [0.0, 0.0], [0.9, 0.2], "0/0"),
        ("f1", [0.0, 0.0], [0.1, 0.2], "0/0"),
        ("mae", [], [], "no rows"),
    ],
)
def test_what_rows_cannot_tell_is_undefined(
    name: MetricName, label: list[float], score: list[float], message: str
) -> None:
    with pytest.raises(UndefinedMetricError, match=message):
        metric(name, np.array(label), np.array(score))
    assert evaluate((name,), np.array(label), np.array(score)) == {name: None}


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        ([1.0, 0.0], [0.5], "one length"),
        ([1.0, float("nan")], [0.5, 0.5], "finite"),
        ([1.0, 0.0], [0.5, float("inf")], "finite"),
        ([1.0, 2.0], [0.5, 0.5], "0 or 1"),
    ],
)
def test_malformed_input_is_refused(label: list[float], score: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric("roc_auc", np.array(label), np.array(score))


def test_confidence_and_size_of_a_comparison_are_checked() -> None:
    label, score, _ = _binary(50, seed=12)
    with pytest.raises(ValueError, match="confidence"):
        compare("mae", label, score, score, confidence=1.0)
    with pytest.raises(ValueError, match="two rows"):
        compare("mae", label[:1], score[:1], score[:1])
