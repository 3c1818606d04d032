"""Reference profile of a training set: one histogram per feature, small enough to travel in a model package.

A feature with at most `MAX_DISTINCT` values gets one bin per value, with one bin below and one above them; any other
gets `QUANTILE_BINS` bins of about equal count. Bin i holds `edges[i - 1] < value <= edges[i]`; missing values (NaN)
are counted apart. Values are compared as float32, which is what a model sees, so that 0.7 read from JSON and 0.7 read
from a training table fall into one bin. Counting is a sum over rows: windows can be counted piece by piece and added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_DISTINCT: Final = 20
QUANTILE_BINS: Final = 10

Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class FeatureProfile(BaseModel):
    """One feature's histogram: `len(edges) + 1` counts and the number of missing values."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    kind: Literal["distinct", "quantile"]
    edges: tuple[Finite, ...]
    counts: tuple[Count, ...]
    missing: Count

    @model_validator(mode="after")
    def _consistent(self) -> FeatureProfile:
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"profile of {self.name}: {len(self.edges)} edges need {len(self.edges) + 1} counts")
        if any(left >= right for left, right in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"profile of {self.name}: edges must increase")
        return self


class Profile(BaseModel):
    """All features' histograms, in the order of the feature schema."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    rows: Count
    features: tuple[FeatureProfile, ...]

    @property
    def binning(self) -> Binning:
        """What counts other rows into the same bins; make it once per profile, not per batch."""
        return Binning([feature.edges for feature in self.features])

    @property
    def counts(self) -> NDArray[np.int64]:
        """The reference counts in the layout of `Binning.count`."""
        width = self.binning.width
        table = np.zeros((len(self.features), width), dtype=np.int64)
        for row, feature in zip(table, self.features, strict=True):
            row[: len(feature.counts)] = feature.counts
            row[-1] = feature.missing
        return table


class Binning:
    """Bin edges of k features.

    `width`: number of columns of a count table: the most bins a feature has, and one more for missing values.
    """

    def __init__(self, edges: Sequence[Sequence[float]]) -> None:
        self._edges = [np.asarray(inner, dtype=np.float32) for inner in edges]
        self.width = max((len(inner) for inner in self._edges), default=0) + 2

    def count(self, rows: NDArray[np.floating]) -> NDArray[np.int64]:
        """Count rows, float[n, k] with NaN for missing, into int64[k, width]; missing values are in the last column.

        Raises `ValueError` when the rows have another number of features.
        """
        if rows.ndim != 2 or rows.shape[1] != len(self._edges):
            raise ValueError(f"rows of shape {rows.shape} do not have the profile's {len(self._edges)} features")
        table = np.zeros((len(self._edges), self.width), dtype=np.int64)
        columns = np.ascontiguousarray(rows.T, dtype=np.float32)
        for row, inner, column in zip(table, self._edges, columns, strict=True):
            counts = np.bincount(inner.searchsorted(column), minlength=len(inner) + 1)
            missing = int(np.count_nonzero(column != column))
            row[: len(counts)] = counts
            row[len(inner)] -= missing  # NaN sorts behind every edge
            row[-1] = missing
        return table


def build_profile(names: Sequence[str], rows: NDArray[np.floating]) -> Profile:
    """Profile the training rows, float[n, k] with NaN for missing; `names` are the k features in order.

    >>> built = build_profile(["x"], np.array([[1.0], [2.0], [2.0], [np.nan]]))
    >>> built.features[0].counts, built.features[0].missing
    ((0, 1, 2, 0), 1)
    """
    kinds: list[Literal["distinct", "quantile"]] = []
    edges: list[NDArray[np.float32]] = []
    for column in np.ascontiguousarray(rows.T, dtype=np.float32):
        present = np.sort(column[np.isfinite(column)])
        starts = np.flatnonzero(np.append(True, present[1:] != present[:-1])) if len(present) else np.empty(0, np.int64)
        if len(starts) <= MAX_DISTINCT:
            kinds.append("distinct")
            values = present[starts]
            edges.append(np.append(np.nextafter(values[:1], np.float32(-np.inf)), values))
        else:
            kinds.append("quantile")
            inner = np.arange(1, QUANTILE_BINS) / QUANTILE_BINS
            edges.append(np.unique(present[np.ceil(inner * len(present)).astype(np.int64) - 1]))
    table = Binning([inner.tolist() for inner in edges]).count(rows)
    return Profile(
        rows=len(rows),
        features=tuple(
            FeatureProfile(
                name=name,
                kind=kind,
                edges=tuple(inner.tolist()),
                counts=tuple(counts[: len(inner) + 1].tolist()),
                missing=int(counts[-1]),
            )
            for name, kind, inner, counts in zip(names, kinds, edges, table, strict=True)
        ),
    )
