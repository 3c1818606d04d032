"""Under which policy a model is measured, and what is known of its champions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

from evenkeel.contracts.declaration import MonitoringPolicy
from evenkeel.libs.drift import chosen_detectors, chosen_statistics
from evenkeel.libs.features import LabelRule
from evenkeel.libs.sketches.profile import Profile

Task: TypeAlias = Literal["binary", "regression"]

TASKS: Final[dict[str, Task]] = {name: name for name in get_args(Task)}


@dataclass(frozen=True)
class Policy:
    """What a model's declaration says about measuring it. All times are event time, in microseconds."""

    task: Task
    metric: str
    label: LabelRule
    horizon_us: int
    monitoring: MonitoringPolicy
    bake_us: int

    def __post_init__(self) -> None:
        _ = (
            self.statistics,
            self.detectors,
        )  # what this release cannot do is refused with the declaration, not in a fold

    @cached_property
    def windows_us(self) -> tuple[int, ...]:
        """The lengths of the windows, each once, the shortest first."""
        return tuple(sorted(set(self.monitoring.windows_us)))

    @cached_property
    def statistics(self) -> dict[str, float]:
        """Drift statistic → threshold. Raises ValueError for a name or a number that this release cannot do."""
        return chosen_statistics(self.monitoring.statistics)

    @cached_property
    def detectors(self) -> dict[str, dict[str, float]]:
        """Detector of change in the errors → parameters. Raises ValueError as `statistics` does."""
        return chosen_detectors(self.monitoring.detectors)

    @cached_property
    def slot_us(self) -> int:
        """The span of which every window is a whole number: what is kept, and the cluster of the tests."""
        return math.gcd(*self.windows_us)

    @cached_property
    def span_us(self) -> int:
        """The longest window: detectors slide over it, slot by slot."""
        return max(self.windows_us)


@dataclass(frozen=True, slots=True)
class Baseline:
    """The champion's metric on `n` rows that it had not seen."""

    value: float
    n: int


@dataclass(frozen=True, slots=True)
class Champion:
    """What is known of an epoch's champion. Without a profile its inputs cannot be compared with anything."""

    epoch: int
    version: int
    view_version: str
    profile: Profile | None
    baseline: Baseline | None
