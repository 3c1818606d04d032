"""ONNX export, with a check that the exported graph answers as the trained estimator does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.estimators import Fitted
from evenkeel.libs.packages.manifest import LinearCoefficients, ModelFile
from evenkeel.libs.packages.scorer import LinearModel, OnnxModel, RowModel
from evenkeel.services.trainer.domain.job import Refused, Task

TOLERANCE: Final = 1e-5
"""Largest difference between graph and estimator: absolute for probabilities, relative to the largest answer (or 1) for
values. Float32 sums over some hundred trees differ by 1e-7 to 1e-6; a row on the wrong side of a split by 1e-3."""


@dataclass(frozen=True, eq=False)
class Exported:
    """`served` is what a scorer of the package will run: the coefficients of a linear model, else the graph."""

    onnx: bytes
    file: ModelFile
    linear: LinearCoefficients | None
    served: RowModel
    parity_difference: float


def export(fitted: Fitted, task: Task, sample: NDArray[np.float32]) -> Exported:
    """Export to ONNX and compare on `sample`, float32[m, k]; raises `Refused` (parity) beyond `TOLERANCE`."""
    features = sample.shape[1]
    graph = fitted.to_onnx(features)
    by_graph = OnnxModel(graph.content, graph.file, features)
    served: RowModel = by_graph if fitted.linear is None else LinearModel(fitted.linear)
    expected = fitted.predict(sample)
    scale = 1.0 if task == "binary" else max(1.0, float(np.abs(expected).max()))
    answers = [model.predict(sample) for model in {served, by_graph}]
    difference = max(float(np.abs(answer - expected).max()) for answer in answers) / scale
    if not difference <= TOLERANCE:  # also when NaN
        raise Refused(
            "parity",
            f"the exported model differs from the trained one by {difference:.3g} on {len(sample)} rows, more than "
            f"{TOLERANCE}: report it with the versions of the libraries that the package records",
        )
    return Exported(graph.content, graph.file, fitted.linear, served, difference)
