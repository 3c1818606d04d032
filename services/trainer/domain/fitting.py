"""Fitting a candidate, with the words of a run for what cannot be."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.estimators import Fitted, UnusableParameters, estimator_named
from evenkeel.libs.packages.manifest import Parameter
from evenkeel.services.trainer.domain.job import Candidate, Refused, Task


def parameters_of(candidate: Candidate) -> dict[str, Parameter]:
    """All parameters of a candidate, the defaults too; raises `Refused` for one that there is not."""
    try:
        return estimator_named(candidate.estimator).parameters(candidate.parameters)
    except UnusableParameters as error:
        raise Refused("error", str(error)) from error


def fit(candidate: Candidate, task: Task, rows: NDArray[np.float32], label: NDArray[np.float64], seed: int) -> Fitted:
    """Train on float32[n, k] with NaN for missing and float64[n]; raises `Refused` for unusable parameters."""
    try:
        return estimator_named(candidate.estimator).fit(task, candidate.parameters, rows, label, seed)
    except UnusableParameters as error:
        raise Refused("error", str(error)) from error
