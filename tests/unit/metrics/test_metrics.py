"""Paired comparisons against plain definitions, and the best threshold. What each metric must show is in tests/suites."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics as oracle

from evenkeel.libs.metrics import UndefinedMetricError, best_f1_threshold, compare, metric_named


def _binary(n: int, seed: int, digits: int = 9) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, a good score and a worse one; few digits make ties."""
    generator = np.random.default_rng(seed)
    label = (generator.random(n) < 0.3).astype(float)
    good = 1 / (1 + np.exp(-(2.0 * label - 1.5 + generator.normal(size=n))))
    worse = 1 / (1 + np.exp(-(1.2 * label - 1.3 + generator.normal(size=n))))
    return label, np.round(good, digits), np.round(worse, digits)


def test_certain_and_wrong_is_a_finite_log_loss() -> None:
    label, score = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    assert metric_named("log_loss").value(label, score) == pytest.approx(oracle.log_loss(label, score), rel=1e-9)


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
    areas = [metric_named("roc_auc").value(label, score) for score in (candidate, champion)]
    assert found.improvement == pytest.approx(areas[0] - areas[1], abs=1e-12)


def test_the_standard_error_of_a_mean_is_that_of_the_paired_differences() -> None:
    label, candidate, champion = _binary(90, seed=13)
    paired = np.square(candidate - label) - np.square(champion - label)
    expected = paired.std(ddof=1) / np.sqrt(90)
    assert compare("brier", label, candidate, champion).standard_error == pytest.approx(expected, rel=1e-12)


def test_each_model_decides_by_its_own_threshold() -> None:
    label, candidate, champion = _binary(200, seed=14)
    found = compare("f1", label, candidate, champion, candidate_threshold=0.4, champion_threshold=0.3)
    expected = oracle.f1_score(label, candidate >= 0.4), oracle.f1_score(label, champion >= 0.3)
    assert (found.candidate, found.champion) == pytest.approx(expected)


def test_the_bound_of_roc_auc_needs_two_of_each_class() -> None:
    label, score = np.array([1.0, 0.0, 0.0]), np.array([0.8, 0.3, 0.4])
    with pytest.raises(UndefinedMetricError, match="two rows or more of each class"):
        compare("roc_auc", label, score, score)


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
    f1 = metric_named("f1")
    for seed, digits in ((9, 9), (10, 1), (11, 2)):
        label, score, _ = _binary(200, seed=seed, digits=digits)
        best = max(oracle.f1_score(label, score >= cut) for cut in np.unique(score))
        threshold = best_f1_threshold(label, score)
        assert f1.value(label, f1.judged(score, threshold)) == pytest.approx(best)
        assert 0.0 <= threshold <= 1.0


def test_a_threshold_without_positives_is_undefined() -> None:
    with pytest.raises(UndefinedMetricError, match="positive rows"):
        best_f1_threshold(np.zeros(3), np.array([0.1, 0.2, 0.3]))


def test_confidence_and_size_of_a_comparison_are_checked() -> None:
    label, score, _ = _binary(50, seed=12)
    with pytest.raises(ValueError, match="confidence"):
        compare("mae", label, score, score, confidence=1.0)
    with pytest.raises(ValueError, match="two rows"):
        compare("mae", label[:1], score[:1], score[:1])
