"""A package's model at work: rows in, one number per row out, on one thread."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort

from evenkeel.libs.packages.errors import GoldenMismatch, ManifestInvalid, ModelUnloadable
from evenkeel.libs.packages.manifest import LinearCoefficients, ModelFile
from evenkeel.libs.packages.package import Package

Rows = NDArray[np.float32]
Scores = NDArray[np.float64]

_ERRORS_ONLY: Final = 3
_LOAD_ERRORS: Final = (
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NoSuchFile,
    ort.NotImplemented,
    ort.RuntimeException,
    ValueError,
)  # onnxruntime's exceptions share no base class but Exception


class RowModel(Protocol):
    """Anything that answers rows, float32[n, k], with float64[n]."""

    def predict(self, rows: Rows) -> Scores: ...


class Scorer:
    """Answers rows with the package's model: folded coefficients for a linear one, onnxruntime otherwise.

    An answer depends on its row alone, bit for bit: not on the rows beside it. Threads may share a scorer.
    Raises a `PackageError` when the package cannot be loaded.
    """

    def __init__(self, package: Package) -> None:
        manifest = package.manifest
        self.digest = package.digest
        self.feature_names = manifest.features.names
        self.threshold = manifest.threshold
        self._golden = package.golden
        self._is_probability = manifest.task == "binary"
        model: RowModel
        if package.linear is not None:
            model = LinearModel(package.linear)
        else:
            model = OnnxModel(package.model_onnx, manifest.onnx, len(self.feature_names))
        self.predict = model.predict
        """Answer rows, float32[n, k] in schema order with NaN for missing: float64[n], the probability of class 1 for a
        binary task, the value for a regression."""
        if len(self._golden.rows[0]) != len(self.feature_names):
            raise ManifestInvalid(f"golden rows of {self.digest} do not have its {len(self.feature_names)} features")

    def check_golden(self) -> int:
        """Answer the golden rows, together and one by one; the number of rows. Raises `GoldenMismatch`."""
        rows = self._golden.matrix()
        expected = np.array(self._golden.expected)
        together = self.predict(rows)
        alone = np.concatenate([self.predict(rows[index : index + 1]) for index in range(len(rows))])
        scale = 1.0 if self._is_probability else np.maximum(1.0, np.abs(expected))
        for answers in (together, alone):
            off = np.abs(answers - expected) / scale
            worst = int(np.argmax(off))
            if not off[worst] <= self._golden.tolerance:  # also when NaN
                raise GoldenMismatch(
                    f"golden row {worst} of {self.digest}: expected {expected[worst]!r}, answered {answers[worst]!r}: "
                    "this machine's libraries do not compute what the trainer's did"
                )
        return len(rows)


class LinearModel:
    """z = intercept + sum of weights[j] * row[j], or missing[j] where row[j] is NaN; then the link, in float64.

    The logistic link is written as (1 + tanh(z / 2)) / 2, which cannot overflow.
    """

    def __init__(self, coefficients: LinearCoefficients) -> None:
        self._logistic = coefficients.link == "logistic"
        scale = 0.5 if self._logistic else 1.0
        self._weights = scale * np.array(coefficients.weights)
        self._missing = scale * np.array(coefficients.missing)
        self._intercept = scale * coefficients.intercept

    def predict(self, rows: Rows) -> Scores:
        """float32[n, k] -> float64[n]."""
        terms = rows * self._weights
        z: Scores = np.add.reduce(terms, axis=1)  # not a BLAS product: its rounding depends on the number of rows
        if not z.dot(z) < np.inf:  # quicker than to look for NaN in every row
            np.copyto(terms, self._missing, where=np.isnan(rows))
            np.add.reduce(terms, axis=1, out=z)
        z += self._intercept
        if self._logistic:
            np.tanh(z, out=z)
            z *= 0.5
            z += 0.5
        return z


class OnnxModel:
    """An ONNX graph in onnxruntime on the calling thread alone; raises `ModelUnloadable`."""

    def __init__(self, model_onnx: bytes, file: ModelFile, features: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.use_deterministic_compute = True
        options.log_severity_level = _ERRORS_ONLY
        try:
            session = onnxruntime.InferenceSession(model_onnx, options, providers=["CPUExecutionProvider"])
        except _LOAD_ERRORS as error:
            raise ModelUnloadable(f"onnxruntime {onnxruntime.__version__} cannot load the model: {error}") from error
        inputs = {each.name: (each.type, list(each.shape)[1:]) for each in session.get_inputs()}
        if inputs != {file.input: ("tensor(float)", [features])}:
            raise ModelUnloadable(f"the model takes {inputs}, not {file.input}: float32 rows of {features} features")
        if file.output not in {each.name for each in session.get_outputs()}:
            raise ModelUnloadable(f"the model has no output {file.output}")
        self._run: Any = session.run
        self._input, self._outputs, self._column = file.input, [file.output], file.column

    def predict(self, rows: Rows) -> Scores:
        """float32[n, k] -> float64[n]."""
        answers: Scores = self._run(self._outputs, {self._input: rows})[0][:, self._column].astype(np.float64)
        return answers
