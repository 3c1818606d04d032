"""Reference profiles."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from evenkeel.libs.sketches.profile import FeatureProfile, Profile, build_profile


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
