"""What a detector of change is: a row of the catalogue, and what its file has to offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import NamedTuple, Protocol, cast

from evenkeel.libs.drift.parameters import Parameter


class Change(NamedTuple):
    """Values before a change are forgotten: how many, their mean, and the mean of those that are left."""

    dropped: int
    before: float
    after: float


class Detector(Protocol):
    """A window over a stream of numbers that is cut where their mean changes."""

    @property
    def significance(self) -> float:
        """The rate of false alarms that it is set to."""

    @property
    def width(self) -> int:
        """How many values there are since the last change."""

    @property
    def mean(self) -> float:
        """Of the values since the last change; 0 without any."""

    def update(self, values: Sequence[float]) -> list[Change]:
        """Take values in order, each finite; the changes that they brought to light. How values come in calls makes no
        difference to the state."""

    def state(self) -> bytes:
        """All there is to it, for `new`."""


class Implementation(Protocol):
    """The file of a detector."""

    def new(self, parameters: Mapping[str, float], state: bytes | None) -> Detector:
        """A detector with nothing in its window, or as it was when it gave this state under the same parameters."""


@dataclass(frozen=True, slots=True)
class DetectorRow:
    """One row of the catalogue. Its file has its name. `by_default`: whether it watches where a policy chooses none."""

    name: str
    parameters: Mapping[str, Parameter]
    by_default: bool

    def new(self, parameters: Mapping[str, float], state: bytes | None = None) -> Detector:
        """See `Implementation.new`; all parameters are given. Imports the file, and with it the library that it needs."""
        implementation = cast("Implementation", import_module(f"evenkeel.libs.drift.{self.name}"))
        return implementation.new(parameters, state)
