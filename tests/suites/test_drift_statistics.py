"""What every drift statistic of the catalogue must show. A row without oracles here turns the first test red."""

from __future__ import annotations

import doctest
import math
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from evenkeel.contracts.payload import WORD_PATTERN
from evenkeel.libs.drift import SIGNIFICANCE, STATISTICS, Statistic, chosen_statistics, statistic_named
from evenkeel.libs.sketches.profile import build_profile

Counts = NDArray[np.int64]
RUNS: Final = 1_000


def rao_scott(reference: Counts, clusters: Counts) -> float:
    """P-value of one feature, int64[width] against int64[c, width]: Pearson's chi-square over the mean design effect."""
    actual = clusters.sum(axis=0)
    used = reference + actual > 0
    chi_square = stats.chi2_contingency([reference[used], actual[used]], correction=False).statistic
    degrees = int(used.sum()) - 1
    share = actual / actual.sum()
    effects = []
    for bin_ in np.flatnonzero(actual):
        deviations = [cluster[bin_] - cluster.sum() * share[bin_] for cluster in clusters]
        between = sum(one**2 for one in deviations) * len(clusters) / (len(clusters) - 1)
        effects.append(between / (actual.sum() * share[bin_]))
    design_effect = max(1.0, sum(effects) / (len(effects) - 1))
    return float(stats.f.sf(chi_square / design_effect / degrees, degrees, degrees * (len(clusters) - 1)))


def homogeneity(reference: Counts, actual: Counts) -> float:
    used = reference + actual > 0
    return float(stats.chi2_contingency([reference[used], actual[used]], correction=False).pvalue)


def psi(reference: Counts, actual: Counts) -> float:
    used = [(e, a) for e, a in zip(reference.tolist(), actual.tolist(), strict=True) if e or a]
    m, n = sum(e + 0.5 for e, _ in used), sum(a + 0.5 for _, a in used)
    shares = [((e + 0.5) / m, (a + 0.5) / n) for e, a in used]
    return sum((a - e) * math.log(a / e) for e, a in shares)


def psi_law(reference: Counts, actual: Counts) -> float:
    used = int((reference + actual > 0).sum())
    return float(stats.chi2.sf(psi(reference, actual) / (1 / reference.sum() + 1 / actual.sum()), used - 1))


class Oracle(NamedTuple):
    """One feature, from int64[width] counts: the effect; its p-value for independent rows; for several clusters."""

    effect: Callable[[Counts, Counts], float]
    independent: Callable[[Counts, Counts], float]
    clustered: Callable[[Counts, Counts], float]


ORACLES: Final[dict[str, Oracle]] = {
    "psi": Oracle(psi, psi_law, rao_scott),
    "jensen_shannon": Oracle(lambda e, a: float(jensenshannon(e, a, base=2)), homogeneity, rao_scott),
}
every_statistic: Final = pytest.mark.parametrize("row", STATISTICS, ids=lambda row: row.name)


def counted(reference: NDArray[np.float64], days: list[NDArray[np.float64]]) -> tuple[Counts, Counts]:
    """Counts of one feature: a profile's, and those of each day by its bins."""
    profile = build_profile(["x"], reference[:, None])
    return profile.counts, np.stack([profile.binning.count(day[:, None]) for day in days])


def verdict(row: Statistic, reference: Counts, clusters: Counts) -> Any:
    return row.verdicts(["quantile"], reference, clusters)[0]


def is_drift(row: Statistic, found: Any) -> bool:
    return bool(found.effect >= row.threshold.default and found.significance <= SIGNIFICANCE)


def test_every_statistic_has_oracles_and_a_name_of_its_own() -> None:
    names = [row.name for row in STATISTICS]
    assert len(set(names)) == len(names)
    assert set(ORACLES) == set(names)
    assert all(re.fullmatch(WORD_PATTERN, name) for name in names)
    assert any(row.by_default for row in STATISTICS)
    for row in STATISTICS:
        assert row.threshold.above < row.threshold.default < row.threshold.below
        assert set(row.kinds) <= {"distinct", "quantile"}


@every_statistic
def test_its_example_holds(row: Statistic) -> None:
    assert ">>> " in (row.measure.__doc__ or "")
    assert doctest.testmod(sys.modules[row.measure.__module__]).failed == 0


@every_statistic
def test_it_equals_its_oracles(row: Statistic) -> None:
    generator, oracle = np.random.default_rng(1), ORACLES[row.name]
    shares = generator.dirichlet(np.ones(8), size=20)
    reference = np.stack([generator.multinomial(5_000, share) for share in shares])
    moved = 0.8 * shares + 0.2 * np.roll(shares, 1, axis=1)
    clusters = np.stack(
        [[generator.multinomial(300, generator.dirichlet(60 * one)) for one in moved] for _ in range(7)]
    )
    reference[3, 2], clusters[:, 4, 1] = 0, 0  # bins that are empty on one side
    reference[5, 6] = clusters[:, 5, 6] = 0  # and on both
    for tables, p_value in ((clusters, oracle.clustered), (clusters[:1], oracle.independent)):
        found = row.measure(reference, tables)
        for j in range(20):
            actual = tables[:, j].sum(axis=0)
            assert found.effect[j] == pytest.approx(oracle.effect(reference[j], actual), rel=1e-9)
            theirs = p_value(reference[j], tables[:, j] if len(tables) > 1 else actual)
            assert found.significance[j] == pytest.approx(theirs, rel=1e-8, abs=1e-300)


@every_statistic
def test_the_same_shares_are_no_distance(row: Statistic) -> None:
    found = row.measure(np.array([[400, 200, 0, 100]]), np.array([[[400, 200, 0, 100]], [[400, 200, 0, 100]]]))
    assert found.effect[0] == pytest.approx(0.0, abs=1e-3)
    assert found.significance[0] > 0.999


@every_statistic
def test_nothing_to_compare_is_no_drift(row: Statistic) -> None:
    reference = np.array([[5, 5, 0], [0, 0, 0]])
    for clusters in (np.array([[[0, 0, 0], [3, 4, 0]]]), np.array([[[0, 0, 0], [3, 4, 0]], [[0, 0, 0], [1, 0, 0]]])):
        found = row.measure(reference, clusters)
        assert found.effect.tolist() == [0.0, 0.0]
        assert found.significance.tolist() == [1.0, 1.0]


@every_statistic
def test_it_grows_with_the_change(row: Statistic) -> None:
    generator = np.random.default_rng(2)
    reference = generator.normal(size=10_000)
    effects = [
        verdict(row, *counted(reference, [generator.normal(shift, size=2_000)])).effect
        for shift in (0.0, 0.3, 0.8, 2.0)
    ]
    assert effects == sorted(effects)
    assert effects[0] < row.threshold.default / 2 < row.threshold.default < effects[2]


@every_statistic
def test_a_moved_distribution_is_found_with_its_rows_and_a_word_for_people(row: Statistic) -> None:
    generator = np.random.default_rng(2)
    found = verdict(row, *counted(generator.normal(size=20_000), [generator.normal(1.0, size=300) for _ in range(7)]))
    assert is_drift(row, found)
    assert found.significance < 1e-6
    assert (found.statistic, found.n) == (row.name, 2_100)
    assert found.detail == f"{row.title} {found.effect:.2f}"


@every_statistic
def test_missing_values_alone_are_drift(row: Statistic) -> None:
    generator = np.random.default_rng(2)
    reference, rows = generator.normal(size=5_000), generator.normal(size=1_000)
    assert not is_drift(row, verdict(row, *counted(reference, [rows])))
    rows[:400] = np.nan
    assert is_drift(row, verdict(row, *counted(reference, [rows])))


@every_statistic
def test_days_that_each_sit_elsewhere_are_no_drift(row: Statistic) -> None:
    """Weather: every day is far from the profile, and seven of them together say nothing yet."""
    reference = np.random.default_rng(0).normal(size=20_000)
    quiet = 0
    for seed in range(50):
        random = np.random.default_rng([seed, 3])
        found = verdict(row, *counted(reference, [random.normal() + 0.1 * random.normal(size=300) for _ in range(7)]))
        assert found.effect >= row.threshold.default, "the effect alone would call this drift"
        quiet += not is_drift(row, found)
    assert quiet >= 48


@every_statistic
@pytest.mark.parametrize("rate", [0.05, SIGNIFICANCE])
@pytest.mark.parametrize(
    ("clusters", "overdispersion"),
    [(1, 0.0), (7, 0.0), (7, 0.02), (30, 0.05)],
    ids=["rows", "days", "weather", "month"],
)
def test_without_a_change_false_alarms_are_as_rare_as_stated(
    row: Statistic, clusters: int, overdispersion: float, rate: float
) -> None:
    """A thousand features that did not change, at once. More than that rate and three standard errors is too many."""
    generator = np.random.default_rng(4)
    shares = generator.dirichlet(np.full(10, 5.0), size=RUNS)

    def drawn(of: int, rows: int) -> Counts:
        table = np.empty((of, RUNS, 10), np.int64)
        for cluster in range(of):
            gamma = shares if not overdispersion else generator.gamma(shares * (1 / overdispersion - 1))
            table[cluster] = generator.multinomial(rows, gamma / gamma.sum(axis=1, keepdims=True))
        return table

    reference = drawn(60 if overdispersion else 1, 150 if overdispersion else 9_000).sum(axis=0)
    found = row.measure(reference, drawn(clusters, 150))
    alarms = int((found.significance <= rate).sum())
    assert alarms <= RUNS * rate + 3 * math.sqrt(RUNS * rate * (1 - rate))


@every_statistic
@pytest.mark.parametrize(
    ("reference", "clusters"),
    [
        (np.zeros((2, 3), np.int64), np.zeros((4, 2, 4), np.int64)),
        (np.zeros((2, 3), np.int64), np.zeros((2, 3), np.int64)),
        (np.zeros((2, 3), np.int64), np.zeros((0, 2, 3), np.int64)),
        (np.zeros(3, np.int64), np.zeros((1, 3), np.int64)),
    ],
)
def test_tables_that_do_not_fit_are_refused(row: Statistic, reference: Counts, clusters: Counts) -> None:
    with pytest.raises(ValueError, match="count tables have shapes"):
        row.measure(reference, clusters)


@every_statistic
def test_it_looks_only_at_the_kinds_of_features_that_it_can_compare(row: Statistic) -> None:
    only, kinds = replace(row, kinds=("distinct",)), ["quantile", "distinct", "quantile", "distinct"]
    reference, clusters = np.full((4, 3), 9), np.full((2, 4, 3), 5)
    assert sorted(only.verdicts(kinds, reference, clusters)) == [1, 3]
    assert replace(row, kinds=()).verdicts(kinds, reference, clusters) == {}


def test_a_policy_chooses_statistics_and_their_thresholds() -> None:
    assert chosen_statistics(None) == {"psi": 0.2}
    assert chosen_statistics({}) == {}
    assert chosen_statistics({"jensen_shannon": {"threshold": 0.3}, "psi": {}}) == {"jensen_shannon": 0.3, "psi": 0.2}
    for given, message in (
        ({"spi": {}}, "no drift statistic 'spi': it is one of psi, jensen_shannon"),
        ({"psi": {"treshold": 1.0}}, "psi has no parameter 'treshold'; it has threshold"),
        ({"psi": {"threshold": 0.0}}, "threshold is 0; it must be above 0"),
        ({"jensen_shannon": {"threshold": 1.0}}, "threshold is 1; it must be above 0 and below 1"),
        ({"psi": {"threshold": float("nan")}}, "threshold is nan"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen_statistics(given)
    with pytest.raises(ValueError, match="no drift statistic"):
        statistic_named("adwin")
