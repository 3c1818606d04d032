"""What monitor makes of statistics and detectors, and of the champion's metric: what is found, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score

from evenkeel.contracts.declaration import MonitoringPolicy
from evenkeel.libs.drift import Verdict
from evenkeel.libs.features import parse_label
from evenkeel.libs.metrics import metrics_of
from evenkeel.libs.sketches.profile import build_profile
from evenkeel.services.monitor.domain.decay import current, find_decay, measured
from evenkeel.services.monitor.domain.drift import ErrorWatch, FeatureShift, Reference, feature_shifts, shifted
from evenkeel.services.monitor.domain.policy import Baseline, Policy
from evenkeel.services.monitor.domain.slots import Rows, Slot, concatenate

MONITORING = MonitoringPolicy.model_validate({"windows": ["1d", "7d"], "min_samples": 100})
POLICY = Policy("binary", "roc_auc", parse_label("x"), 1, MONITORING, 0)
NORMAL = build_profile(["x"], np.random.default_rng(0).normal(size=(20_000, 1)))
PSI = {"psi": 0.2}


def rows(label: NDArray[np.float64], score: NDArray[np.float64]) -> Rows:
    return Rows(label, score, np.full(len(label), -1.0), np.ones(len(label), np.int64))


def sample(n: int, skill: float, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    label = (random.random(n) < 0.3).astype(np.float64)
    return rows(label, 1 / (1 + np.exp(-(skill * label + random.normal(size=n)))))


# -- inputs ---------------------------------------------------------------------------------------------------------


def slots_of(days: list[NDArray[np.float64]]) -> list[Slot]:
    empty = rows(np.empty(0), np.empty(0))
    return [Slot(i, 0, len(d), empty, 1, NORMAL.binning.count(d[:, None])) for i, d in enumerate(days)]


def test_a_moved_distribution_is_drift_with_its_size() -> None:
    random = np.random.default_rng(2)
    slots = slots_of([random.normal(1.0, 1.0, size=300) for _ in range(7)])
    (found,) = shifted(feature_shifts(Reference.of(NORMAL), slots, PSI))
    assert found.feature == "x"
    assert (found.verdict.statistic, found.verdict.n, found.threshold) == ("psi", 2_100, 0.2)
    assert 0.5 < found.verdict.effect < 2.0
    assert found.verdict.significance < 1e-6


def test_each_statistic_has_its_own_say_and_the_furthest_over_its_threshold_is_first() -> None:
    random = np.random.default_rng(2)
    slots = slots_of([random.normal(0.5, 1.0, size=300) for _ in range(7)])
    found = feature_shifts(Reference.of(NORMAL), slots, {"psi": 0.2, "jensen_shannon": 0.05})
    assert [shift.verdict.statistic for shift in found] == ["jensen_shannon", "psi"]
    assert found[0].excess > found[1].excess
    assert [shift.verdict.effect / shift.threshold for shift in found] == [shift.excess for shift in found]
    assert feature_shifts(Reference.of(NORMAL), slots, {}) == []


def shift(effect: float, significance: float, feature: str = "x") -> FeatureShift:
    return FeatureShift(feature, Verdict("psi", effect, significance, 1000, "PSI"), 0.2)


def test_a_shift_is_one_from_its_threshold_on() -> None:
    assert shifted([shift(0.2, 0.0)]) == [shift(0.2, 0.0)]
    assert shifted([shift(0.1999, 0.0)]) == []


@pytest.mark.parametrize("comparisons", [1, 2, 50])
def test_the_error_rate_is_shared_among_all_comparisons(comparisons: int) -> None:
    """Bonferroni: with 50 features at 1 % each there would be a false alarm every other slot."""
    others = [shift(0.0, 1.0, f"f{number}") for number in range(comparisons - 1)]
    sure, unsure = shift(0.5, 0.01 / comparisons), shift(0.5, 0.0101 / comparisons)
    assert shifted([sure, *others]) == [sure]
    assert shifted([unsure, *others]) == []


# -- errors ---------------------------------------------------------------------------------------------------------


def errors_of(n: int, mean: float, seed: int) -> list[float]:
    return [float(one) for one in np.random.default_rng(seed).random(n) < mean]


def test_steady_errors_are_left_alone() -> None:
    watch = ErrorWatch("adwin", {"delta": 0.002})
    watch.update(errors_of(50_000, 0.2, 0), 0, 100)
    assert watch.rise is None


def test_a_rise_counts_once_it_lasted_into_the_next_slot() -> None:
    watch = ErrorWatch("adwin", {"delta": 0.002})
    watch.update(errors_of(2000, 0.1, 1), 0, 100)
    first, second = errors_of(600, 0.4, 2), errors_of(600, 0.4, 3)
    watch.update(first, 10, 100)
    assert watch.rise is not None
    assert watch.confirmed(10, first, 100) is None
    watch.update(second, 20, 100)
    found = watch.confirmed(20, second, 100)
    assert found is not None
    assert found.before == pytest.approx(0.1, abs=0.03)
    assert found.after == pytest.approx(0.4, abs=0.06)
    assert found.since_us == 10
    assert (found.detector, found.significance) == ("adwin", 0.002)
    assert found.effect == found.after - found.before


def test_a_rise_upon_a_rise_is_told_from_where_the_first_one_began() -> None:
    watch = ErrorWatch("adwin", {"delta": 0.002})
    watch.update(errors_of(2000, 0.1, 1), 0, 100)
    watch.update(errors_of(1500, 0.4, 2), 10, 100)
    latest = errors_of(1500, 0.8, 3)
    watch.update(latest, 20, 100)
    found = watch.confirmed(20, latest, 100)
    assert found is not None
    assert (found.since_us, found.before) == (10, pytest.approx(0.1, abs=0.03))


def test_a_bad_day_is_over_when_errors_come_down() -> None:
    watch = ErrorWatch("adwin", {"delta": 0.002})
    watch.update(errors_of(3000, 0.1, 1), 0, 100)
    watch.update(errors_of(400, 0.5, 2), 10, 100)
    assert watch.rise is not None
    after = errors_of(3000, 0.1, 4)
    watch.update(after, 20, 100)
    assert watch.confirmed(20, after, 100) is None
    assert watch.rise is None


def test_fewer_errors_are_no_rise() -> None:
    watch = ErrorWatch("adwin", {"delta": 0.002})
    watch.update(errors_of(3000, 0.4, 1), 0, 100)
    watch.update(errors_of(3000, 0.1, 2), 10, 100)
    assert watch.rise is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 1500), min_size=1, max_size=6))
def test_a_restored_watch_goes_on_as_if_nothing_had_happened(seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    levels = random.random(len(cuts) + 1)
    errors = [
        float(abs(x)) for level, n in zip(levels, [*cuts, 800], strict=True) for x in random.normal(level, 0.3, n)
    ]
    whole, pieces = ErrorWatch("adwin", {"delta": 0.01}), ErrorWatch("adwin", {"delta": 0.01})
    start = 0
    for at, size in enumerate([*cuts, 800]):
        part = errors[start : start + size]
        start += size
        whole.update(part, at, 50)
        pieces.update(part[: size // 2], at, 50)
        pieces = ErrorWatch("adwin", {"delta": 0.01}, pieces.state())
        pieces.update(part[size // 2 :], at, 50)
        assert pieces.state() == whole.state()
        assert pieces.rise == whole.rise


# -- decay ----------------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_task() -> None:
    found = measured(sample(2000, 1.5, 0), POLICY)
    assert set(found) == {metric.name for metric in metrics_of("binary")}
    assert {"roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1"} <= set(found)
    one_class = rows(np.zeros(5), np.full(5, 0.1))
    assert measured(one_class, POLICY)["roc_auc"] is None
    regression = Policy("regression", "mae", parse_label("x"), 1, MONITORING, 0)
    found = measured(rows(np.array([1.0, 4.0]), np.array([2.0, 2.0])), regression)
    assert (found["mae"], found["rmse"]) == (1.5, pytest.approx(np.sqrt(2.5)))
    assert "roc_auc" not in found
    assert measured(rows(np.empty(0), np.empty(0)), POLICY) == {}


def test_rows_answered_under_another_threshold_keep_their_decision() -> None:
    label = np.array([1.0, 0.0])
    mixed = Rows(label, np.array([0.3, 0.3]), np.array([1.0, 0.0]), np.array([1, 2]))
    assert measured(mixed, POLICY)["accuracy"] == 1.0


def test_the_standard_error_of_roc_auc_is_that_of_repeated_samples() -> None:
    repeated = [float(roc_auc_score(s.label, s.score)) for s in (sample(1500, 1.0, seed) for seed in range(200))]
    days = [sample(300, 1.0, 1000 + seed) for seed in range(20)]
    together = concatenate(days)
    found = current(days, together, "roc_auc")
    assert found is not None
    value, error = found
    assert value == pytest.approx(np.mean(repeated), abs=0.02)
    assert error == pytest.approx(np.std(repeated) * np.sqrt(1500 / 6000), rel=0.35)


def test_a_champion_that_got_worse_is_found_with_its_effect() -> None:
    days = [sample(300, 0.3, seed) for seed in range(7)]
    found = find_decay(days, concatenate(days), Baseline(0.85, 2000), POLICY)
    assert found is not None
    assert found.effect == pytest.approx(0.85 - found.current)
    assert found.significance < 0.001


def test_the_decision_on_decay_by_hand() -> None:
    """Student's t with one degree of freedom less than slots, of the loss beyond the tolerance over its standard error: the
    window's, and the baseline's part in it, which is the window's by rows."""
    days = [sample(300, 0.3, seed) for seed in range(7)]
    together = concatenate(days)
    measured_now = current(days, together, "roc_auc")
    assert measured_now is not None
    value, error = measured_now
    for n in (300, 2_000):
        found = find_decay(days, together, Baseline(0.85, n), POLICY)
        assert found is not None
        t = (0.85 - value - MONITORING.decay_tolerance) / (error * np.sqrt(1.0 + 2_100 / n))
        assert found.significance == pytest.approx(stats.t.sf(t, 6), rel=1e-9)
        assert (found.baseline, found.current, found.n) == (0.85, value, 2_100)


def test_a_small_baseline_is_no_proof() -> None:
    """The same loss: against a baseline of many rows it is significant, against one of few it is not."""
    days = [sample(300, 1.0, seed) for seed in range(7)]
    together = concatenate(days)
    found = current(days, together, "roc_auc")
    assert found is not None
    value, error = found
    baseline = value + MONITORING.decay_tolerance + 7.0 * error
    assert find_decay(days, together, Baseline(baseline, 1_000_000), POLICY) is not None
    assert find_decay(days, together, Baseline(baseline, 300), POLICY) is None


def test_a_champion_within_its_tolerance_is_left_alone() -> None:
    assert not any(
        find_decay(days, concatenate(days), Baseline(0.76, 2000), POLICY)
        for days in ([sample(300, 1.0, 100 * repeat + day) for day in range(7)] for repeat in range(60))
    )


def test_one_bad_day_of_seven_is_not_significant() -> None:
    days = [sample(300, 1.0, seed) for seed in range(6)] + [sample(300, -3.0, 6)]
    rows_ = concatenate(days)
    assert 0.76 - float(roc_auc_score(rows_.label, rows_.score)) > 0.05
    assert find_decay(days, rows_, Baseline(0.76, 2000), POLICY) is None
