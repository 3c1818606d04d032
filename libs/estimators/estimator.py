"""What an estimator is: a row of the catalogue, and what its file has to offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.packages.manifest import LinearCoefficients, ModelFile, Parameter

Rows: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.float64]
Answers: TypeAlias = NDArray[np.float64]


class UnusableParameters(ValueError):
    """An estimator cannot be fitted for this task or with these parameters; the message says what there is."""


@dataclass(frozen=True, eq=False)
class Graph:
    """An ONNX model as bytes, and how to ask it."""

    content: bytes
    file: ModelFile


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained model. `predict` answers float32[n, k] with float64[n] as the training library computes it; `to_onnx` makes
    the graph that has to answer the same, for k features. `linear`: the same model as coefficients, if it is linear."""

    parameters: dict[str, Parameter]
    predict: Callable[[Rows], Answers]
    to_onnx: Callable[[int], Graph]
    linear: LinearCoefficients | None = None


class Implementation(Protocol):
    """The file of an estimator."""

    def fit(self, task: str, parameters: dict[str, Parameter], rows: Rows, label: Labels, seed: int) -> Fitted:
        """Train on float32[n, k] with NaN for missing and float64[n] (0 or 1 for a binary task).

        All parameters are given. The same arguments give the same model, bit for bit, under one number of threads. Raises
        `ValueError` for values that it cannot take.
        """


@dataclass(frozen=True, slots=True)
class Estimator:
    """One row of the catalogue. Its file has its name.

    `defaults`: every parameter with its default. `libraries`: distributions whose versions shape the model; a package
    records them.
    """

    name: str
    tasks: tuple[str, ...]
    defaults: Mapping[str, Parameter]
    libraries: tuple[str, ...]

    def load(self) -> Implementation:
        """Import its file, and with it all libraries that fitting and export use."""
        return cast("Implementation", import_module(f"evenkeel.libs.estimators.{self.name}"))

    def parameters(self, given: Mapping[str, Parameter]) -> dict[str, Parameter]:
        """The defaults with what was given; raises `UnusableParameters` for one that there is not."""
        unknown = sorted(set(given) - set(self.defaults))
        if unknown:
            known = ", ".join(sorted(self.defaults))
            raise UnusableParameters(f"{self.name} has no parameter {unknown[0]}: it has {known}")
        return {**self.defaults, **given}

    def fit(self, task: str, given: Mapping[str, Parameter], rows: Rows, label: Labels, seed: int) -> Fitted:
        """Train with the defaults and what was given; raises `UnusableParameters`. See `Implementation.fit`."""
        if task not in self.tasks:
            raise UnusableParameters(
                f"{self.name} is no estimator of {task} models: it is one of {', '.join(self.tasks)}"
            )
        parameters = self.parameters(given)
        try:
            return self.load().fit(task, parameters, rows, label, seed)
        except ValueError as error:
            raise UnusableParameters(f"{self.name} with {parameters}: {error}") from error
