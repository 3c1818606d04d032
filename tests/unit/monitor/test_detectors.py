"""The detectors: what they find, what they leave alone, and that ADWIN's state survives exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from evenkeel.libs.features import parse_label
from evenkeel.libs.sketches.profile import build_profile
from evenkeel.services.monitor.domain.decay import current, find_decay, measured
from evenkeel.services.monitor.domain.drift import ErrorWatch, feature_shifts, shifted
from evenkeel.services.monitor.domain.records import Baseline, Policy
from evenkeel.services.monitor.domain.slots import Rows, Slot, concatenate

POLICY = Policy("binary", "roc_auc", parse_label("x"), 1, (1, 7), 0.2, 100, 0.002, 0.02, 0, 0)


def rows(label: NDArray[np.float64], score: NDArray[np.float64]) -> Rows:
    return Rows(label, score, np.full(len(label), -1.0), np.ones(len(label), np.int64))


def sample(n: int, skill: float, seed: int) -> Rows:
    random = np.random.default_rng(seed)
    label = (random.random(n) < 0.3).astype(np.float64)
    return rows(label, 1 / (1 + np.exp(-(skill * label + random.normal(size=n)))))


# -- PSI ------------------------------------------------------------------------------------------------------------


def slots_of(days: list[NDArray[np.float64]]) -> tuple[NDArray[np.int64], list[Slot]]:
    profile = build_profile(["x"], np.random.default_rng(0).normal(size=(20_000, 1)))
    empty = rows(np.empty(0), np.empty(0))
    return profile.counts, [Slot(i, 0, len(d), empty, 1, profile.binning.count(d[:, None])) for i, d in enumerate(days)]


def test_the_same_distribution_is_no_drift() -> None:
    for seed in range(50):
        random = np.random.default_rng([seed, 1])
        reference, slots = slots_of([random.normal(size=300) for _ in range(7)])
        assert shifted(feature_shifts(["x"], reference, slots), 0.02) == []


def test_a_moved_distribution_is_drift_with_its_size() -> None:
    random = np.random.default_rng(2)
    reference, slots = slots_of([random.normal(1.0, 1.0, size=300) for _ in range(7)])
    (found,) = shifted(feature_shifts(["x"], reference, slots), 0.2)
    assert found.feature == "x"
    assert 0.5 < found.psi < 2.0
    assert found.p_value < 1e-6


def test_days_that_each_sit_elsewhere_are_no_drift() -> None:
    """Weather: every day is far from the profile, and seven of them together say nothing yet."""
    quiet = 0
    for seed in range(50):
        random = np.random.default_rng([seed, 3])
        reference, slots = slots_of([random.normal() + 0.1 * random.normal(size=300) for _ in range(7)])
        (shift,) = feature_shifts(["x"], reference, slots)
        assert shift.psi > 0.2, "PSI alone would call this drift"
        quiet += not shifted([shift], 0.2)
    assert quiet >= 48


# -- ADWIN ----------------------------------------------------------------------------------------------------------


def errors_of(n: int, mean: float, seed: int) -> list[float]:
    return [float(one) for one in np.random.default_rng(seed).random(n) < mean]


def test_steady_errors_are_left_alone() -> None:
    watch = ErrorWatch(0.002)
    watch.update(errors_of(50_000, 0.2, 0), 0, 100)
    assert watch.rise is None


def test_a_rise_counts_once_it_lasted_into_the_next_slot() -> None:
    watch = ErrorWatch(0.002)
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


def test_a_bad_day_is_over_when_errors_come_down() -> None:
    watch = ErrorWatch(0.002)
    watch.update(errors_of(3000, 0.1, 1), 0, 100)
    watch.update(errors_of(400, 0.5, 2), 10, 100)
    assert watch.rise is not None
    after = errors_of(3000, 0.1, 4)
    watch.update(after, 20, 100)
    assert watch.confirmed(20, after, 100) is None
    assert watch.rise is None


def test_fewer_errors_are_no_rise() -> None:
    watch = ErrorWatch(0.002)
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
    whole, pieces = ErrorWatch(0.01), ErrorWatch(0.01)
    start = 0
    for at, size in enumerate([*cuts, 800]):
        part = errors[start : start + size]
        start += size
        whole.update(part, at, 50)
        pieces.update(part[: size // 2], at, 50)
        pieces = ErrorWatch(0.01, pieces.state())
        pieces.update(part[size // 2 :], at, 50)
        assert pieces.state() == whole.state()
        assert (pieces.rise, pieces.mean, pieces.width) == (whole.rise, whole.mean, whole.width)


# -- decay ----------------------------------------------------------------------------------------------------------


def test_metrics_are_those_of_the_task() -> None:
    found = measured(sample(2000, 1.5, 0), POLICY)
    assert set(found) == {"roc_auc", "log_loss", "brier", "accuracy", "precision", "recall", "f1"}
    one_class = rows(np.zeros(5), np.full(5, 0.1))
    assert measured(one_class, POLICY)["roc_auc"] is None
    regression = Policy("regression", "mae", parse_label("x"), 1, (1,), 0.2, 100, 0.002, 0.02, 0, 0)
    assert measured(rows(np.array([1.0, 4.0]), np.array([2.0, 2.0])), regression) == {
        "mae": 1.5,
        "rmse": pytest.approx(np.sqrt(2.5)),
    }
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
    assert found.p_value < 0.001


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
