"""What a drift statistic is: a row of the catalogue, and what it says of each feature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.drift.parameters import Parameter

Counts: TypeAlias = NDArray[np.int64]

SIGNIFICANCE: Final = 0.01
"""Bound of the p-value, before it is shared among all comparisons (Bonferroni)."""


class Measured(NamedTuple):
    """Per feature, float64[k]: how far it is from the reference (0 and up, in the statistic's unit), and the p-value of
    seeing as much without any change."""

    effect: NDArray[np.float64]
    significance: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One statistic of one feature: see `Measured`. `n`: rows that were compared; `detail`: for people."""

    statistic: str
    effect: float
    significance: float
    n: int
    detail: str


@dataclass(frozen=True, slots=True)
class Statistic:
    """One row of the catalogue.

    `title`: its name in sentences. `kinds`: the profiles of features that it can compare (see `libs.sketches.profile`).
    `threshold`: from which effect on a change is worth a signal; a policy may set another. `by_default`: whether it is
    looked at where a policy chooses none.

    `measure(reference, clusters)` compares int64[k, width] counts of the reference, as `Binning.count` makes them, with
    int64[c, k, width] counts of c ≥ 1 clusters of rows that may depend on each other (the slots of a window). A feature
    without rows on one side has effect 0 and significance 1. Raises `ValueError` for tables that do not fit each other.
    """

    name: str
    title: str
    kinds: tuple[str, ...]
    threshold: Parameter
    by_default: bool
    measure: Callable[[Counts, Counts], Measured]

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        return {"threshold": self.threshold}

    def verdicts(self, kinds: Sequence[str], reference: Counts, clusters: Counts) -> dict[int, Verdict]:
        """By position, the verdict on each feature whose kind of profile it can compare."""
        places = [place for place, kind in enumerate(kinds) if kind in self.kinds]
        if not places:
            return {}
        compared = clusters[:, places]
        effects, significances = self.measure(reference[places], compared)
        rows = compared.sum(axis=(0, 2)).tolist()
        return {
            place: Verdict(self.name, effect, significance, n, f"{self.title} {effect:.2f}")
            for place, effect, significance, n in zip(
                places, effects.tolist(), significances.tolist(), rows, strict=True
            )
        }


def checked(reference: Counts, clusters: Counts) -> Counts:
    """The clusters' counts added up, int64[k, width]; raises `ValueError` for tables that do not fit each other."""
    if clusters.ndim != 3 or not len(clusters) or reference.ndim != 2 or clusters.shape[1:] != reference.shape:
        raise ValueError(
            f"count tables have shapes {reference.shape} and {clusters.shape}: they must be [k, width] and "
            "[clusters, k, width], with one cluster or more"
        )
    actual: Counts = clusters.sum(axis=0)
    return actual
