"""Reference profiles and the population stability index."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import chi2

from evenkeel.libs.sketches.profile import FeatureProfile, Profile, build_profile
from evenkeel.libs.sketches.psi import chi_square_survival, psi


def test_few_values_get_one_bin_each_and_new_values_fall_outside() -> None:
    built = build_profile(["code"], np.array([[1.0], [3.0], [3.0], [np.nan], [7.0]]))
    feature = built.features[0]
    assert (feature.kind, feature.counts, feature.missing) == ("distinct", (0, 1, 2, 1, 0), 1)
    assert built.binning.count(np.array([[0.0], [8.0], [np.inf], [-np.inf], [np.nan]])).tolist() == [[2, 0, 0, 0, 2, 1]]


def test_many_values_get_bins_of_about_equal_count() -> None:
    rows = np.random.default_rng(0).normal(size=(5000, 1))
    feature = build_profile(["x"], rows).features[0]
    assert feature.kind == "quantile"
    assert feature.counts == (500,) * 10


def test_heavy_ties_keep_edges_apart() -> None:
    column = np.concatenate([np.zeros(900), np.linspace(0.01, 1, 100)])
    feature = build_profile(["rain"], column[:, None]).features[0]
    assert feature.edges[0] == 0.0
    assert feature.counts[0] == 900
    assert sum(feature.counts) == 1000


def test_a_value_falls_into_the_same_bin_from_json_and_from_the_table() -> None:
    exact = np.array([[0.1], [0.3], [0.7]])
    profile = build_profile(["x"], exact.astype(np.float32))
    assert profile.binning.count(exact).tolist() == profile.counts.tolist()


def test_counts_of_parts_add_up_and_the_profile_survives_json() -> None:
    generator = np.random.default_rng(1)
    rows = np.column_stack([generator.normal(size=500), generator.integers(0, 5, 500), np.full(500, np.nan)])
    rows[generator.random(rows.shape) < 0.1] = np.nan
    profile = Profile.model_validate_json(build_profile(["a", "b", "c"], rows).model_dump_json())
    binning = profile.binning
    parts = sum(binning.count(rows[i : i + 7]) for i in range(0, 500, 7))
    assert np.array_equal(parts, profile.counts)
    assert profile.counts.sum(axis=1).tolist() == [500, 500, 500]


def test_rows_of_another_width_are_refused() -> None:
    profile = build_profile(["a", "b"], np.zeros((3, 2)))
    with pytest.raises(ValueError, match="2 features"):
        profile.binning.count(np.zeros((3, 3)))


@pytest.mark.parametrize(
    ("edges", "counts", "message"), [((1.0,), (1,), "need 2 counts"), ((1.0, 1.0), (1, 2, 3), "must increase")]
)
def test_inconsistent_profiles_are_refused(edges: tuple[float, ...], counts: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FeatureProfile(name="x", kind="quantile", edges=edges, counts=counts, missing=0)


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 10, 21, 22])
def test_chi_square_survival_equals_scipy(degrees: int) -> None:
    for x in (0.001, 0.5, 3.0, 9.5, 40.0, 300.0):
        assert chi_square_survival(x, degrees) == pytest.approx(chi2.sf(x, degrees), rel=1e-9, abs=1e-300)
    assert chi_square_survival(5000.0, degrees) == 0.0
    assert chi_square_survival(0.0, degrees) == 1.0


def test_psi_equals_its_definition() -> None:
    found = psi(np.array([[40, 30, 30]]), np.array([[10, 20, 70]]))
    expected = [(c + 0.5) / 101.5 for c in (40, 30, 30)]
    observed = [(c + 0.5) / 101.5 for c in (10, 20, 70)]
    index = sum((o - e) * math.log(o / e) for e, o in zip(expected, observed, strict=True))
    assert found.index[0] == pytest.approx(index)
    assert found.p_value[0] == pytest.approx(chi2.sf(index * 50, 2), rel=1e-9)


def test_missing_values_alone_are_drift() -> None:
    generator = np.random.default_rng(2)
    profile = build_profile(["x"], generator.normal(size=(5000, 1)))
    rows = generator.normal(size=(1000, 1))
    before = psi(profile.counts, profile.binning.count(rows))
    rows[:400] = np.nan
    after = psi(profile.counts, profile.binning.count(rows))
    assert before.index[0] < 0.05 < 0.25 < after.index[0]
    assert after.p_value[0] < 1e-6


def test_nothing_to_compare_is_no_drift() -> None:
    reference = np.array([[5, 5, 0], [0, 0, 0]])
    found = psi(reference, np.array([[0, 0, 0], [3, 4, 0]]))
    assert found.index.tolist() == [0.0, 0.0]
    assert found.p_value.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("m", "n", "kind"), [(10_000, 200, "normal"), (10_000, 1000, "normal"), (10_000, 500, "code")])
def test_without_drift_the_p_value_is_as_rare_as_it_says(m: int, n: int, kind: str) -> None:
    """600 features at once; 5 % is seen 18 to 42 times with probability > 0.97."""
    generator = np.random.default_rng(3)

    def draw(rows: int) -> np.ndarray:
        return generator.normal(size=(rows, 600)) if kind == "normal" else generator.binomial(6, 0.4, (rows, 600))

    profile = build_profile([str(i) for i in range(600)], draw(m).astype(float))
    found = psi(profile.counts, profile.binning.count(draw(n).astype(float)))
    assert 0.025 <= (found.p_value < 0.05).mean() <= 0.08
