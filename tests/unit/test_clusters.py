"""What clustering does to a variance: by hand, and against repeated samples."""

from __future__ import annotations

import numpy as np
import pytest

from evenkeel.libs.clusters import clustered_standard_error, design_effects


def test_design_effect_by_hand() -> None:
    """Two clusters of ten rows, 8 : 2 and 2 : 8. Either bin has (3² + 3²) · 2/(2 − 1) = 36 where 20 · ½ = 10 are expected."""
    assert design_effects(np.array([[[8, 2]], [[2, 8]]])).tolist() == [7.2]


def test_a_design_effect_is_never_below_one() -> None:
    assert design_effects(np.array([[[5, 5]], [[5, 5]], [[5, 5]]])).tolist() == [1.0]


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


def test_clustered_standard_error_by_hand() -> None:
    """Clusters of 2 and 1 rows whose influence sums to 3 and −3: √((9 + 9) · 2/(2 − 1)) / 3."""
    assert clustered_standard_error(np.array([1.0, 2.0, -3.0]), [2, 1]) == pytest.approx(2.0)
