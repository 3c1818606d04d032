"""Under which policy a model is measured, and what is known of its champions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, TypeAlias, get_args

from evenkeel.libs.features import LabelRule
from evenkeel.libs.sketches.profile import Profile

Task: TypeAlias = Literal["binary", "multiclass", "regression"]

TASKS: Final[dict[str, Task]] = {name: name for name in get_args(Task)}


@dataclass(frozen=True)
class Policy:
    """What a model's declaration says about measuring it. All times are event time, in microseconds."""

    task: Task
    metric: str
    label: LabelRule
    horizon_us: int
    windows_us: tuple[int, ...]
    psi_threshold: float
    min_samples: int
    adwin_delta: float
    decay_tolerance: float
    cooldown_us: int
    bake_us: int

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
