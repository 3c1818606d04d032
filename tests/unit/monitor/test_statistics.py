"""The tests' distributions against scipy, and what clustering does to a standard error."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evenkeel.services.monitor.domain.statistics import (
    clustered_standard_error,
    design_effects,
    f_survival,
    student_survival,
)


@pytest.mark.parametrize("degrees", [1, 2, 6, 13, 500])
@pytest.mark.parametrize("t", [-3.0, -0.2, 0.0, 0.7, 2.5, 9.0])
def test_student_survival_is_scipys(t: float, degrees: int) -> None:
    assert student_survival(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-10)


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 6), (9, 54), (20, 120), (3, 3)])
@pytest.mark.parametrize("f", [0.01, 0.5, 1.0, 3.3, 40.0])
def test_f_survival_is_scipys(f: float, numerator: int, denominator: int) -> None:
    assert f_survival(f, numerator, denominator) == pytest.approx(stats.f.sf(f, numerator, denominator), rel=1e-9)


def test_f_survival_of_nothing_is_one() -> None:
    assert f_survival(0.0, 3, 10) == 1.0


def test_independent_rows_have_a_design_effect_of_about_one() -> None:
    random = np.random.default_rng(0)
    tables = np.array([[random.multinomial(1000, [0.1] * 10)] for _ in range(200)])
    assert design_effects(tables)[0] == pytest.approx(1.0, abs=0.15)


def test_rows_that_happen_together_count_less() -> None:
    """Each cluster's thousand rows all fall into one bin: they are one observation."""
    random = np.random.default_rng(0)
    tables = np.zeros((50, 1, 10), np.int64)
    tables[np.arange(50), 0, random.integers(0, 10, 50)] = 1000
    assert design_effects(tables)[0] == pytest.approx(1000, rel=0.1)


def test_a_constant_feature_counts_once_per_cluster() -> None:
    tables = np.zeros((7, 1, 4), np.int64)
    tables[:, 0, 2] = 900
    assert design_effects(tables)[0] == 900


def test_clustered_standard_error_covers_the_spread_of_cluster_means() -> None:
    random = np.random.default_rng(3)
    means = random.normal(size=40)
    rows = np.repeat(means, 100) + random.normal(size=4000)
    influence = rows - rows.mean()
    clustered = clustered_standard_error(influence, [100] * 40)
    assert clustered == pytest.approx(rows.reshape(40, 100).mean(axis=1).std(ddof=1) / np.sqrt(40), rel=1e-9)
    assert clustered > 4 * clustered_standard_error(influence, [4000])
