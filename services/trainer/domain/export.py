"""ONNX export, with a check that the exported graph answers as the trained estimator does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier

from evenkeel.libs.packages.manifest import LinearCoefficients, ModelFile
from evenkeel.libs.packages.scorer import LinearModel, OnnxModel, RowModel
from evenkeel.services.trainer.domain.estimators import Fitted, Trees
from evenkeel.services.trainer.domain.job import Refused, Task

OPSET: Final = {"": 21, "ai.onnx.ml": 3}
IR_VERSION: Final = 10
INPUT: Final = "rows"
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
    served: RowModel
    if isinstance(fitted.model, LinearCoefficients):
        linear: LinearCoefficients | None = fitted.model
        content, file = _linear_graph(fitted.model)
        served = LinearModel(fitted.model)
        answers = [served.predict(sample), OnnxModel(content, file, features).predict(sample)]
    else:
        linear = None
        content, file = _tree_graph(fitted.model, features)
        served = OnnxModel(content, file, features)
        answers = [served.predict(sample)]
    expected = fitted.predict(sample)
    scale = 1.0 if task == "binary" else max(1.0, float(np.abs(expected).max()))
    difference = max(float(np.abs(answer - expected).max()) for answer in answers) / scale
    if not difference <= TOLERANCE:  # also when NaN
        raise Refused(
            "parity",
            f"the exported model differs from the trained one by {difference:.3g} on {len(sample)} rows, more than "
            f"{TOLERANCE}: report it with the versions of scikit-learn, skl2onnx and onnxruntime",
        )
    return Exported(content, file, linear, served, difference)


def _tree_graph(trees: Trees, features: int) -> tuple[bytes, ModelFile]:
    is_classifier = isinstance(trees, HistGradientBoostingClassifier)
    model = convert_sklearn(
        trees,
        name="model",  # the default is a random name
        initial_types=[(INPUT, FloatTensorType([None, features]))],
        options={id(trees): {"zipmap": False}} if is_classifier else None,
        target_opset=OPSET,
    )
    output = "probabilities" if is_classifier else model.graph.output[0].name
    return _finished(model), ModelFile(input=INPUT, output=output, column=1 if is_classifier else 0)


def _linear_graph(coefficients: LinearCoefficients) -> tuple[bytes, ModelFile]:
    """The same arithmetic as `LinearModel`, in float64."""
    constants = {
        "weights": np.array([coefficients.weights]),
        "missing": np.array([coefficients.missing]),
        "intercept": np.array([[coefficients.intercept]]),
        "axis": np.array([1], dtype=np.int64),
    }
    logistic = coefficients.link == "logistic"
    nodes = [
        helper.make_node("IsNaN", [INPUT], ["absent"]),
        helper.make_node("Cast", [INPUT], ["exact"], to=TensorProto.DOUBLE),
        helper.make_node("Mul", ["exact", "weights"], ["present"]),
        helper.make_node("Where", ["absent", "missing", "present"], ["terms"]),
        helper.make_node("ReduceSum", ["terms", "axis"], ["sum"], keepdims=1),
        helper.make_node("Add", ["sum", "intercept"], ["z" if logistic else "answer"]),
        *([helper.make_node("Sigmoid", ["z"], ["answer"])] if logistic else []),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, len(coefficients.weights)])],
        [helper.make_tensor_value_info("answer", TensorProto.DOUBLE, [None, 1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET[""])])
    return _finished(model), ModelFile(input=INPUT, output="answer", column=0)


def _finished(model: onnx.ModelProto) -> bytes:
    model.ir_version = IR_VERSION
    return bytes(model.SerializeToString(deterministic=True))
