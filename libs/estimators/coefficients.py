"""Linear models: features made fit for a linear fit, the fit folded back to one coefficient per feature, and its graph."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from evenkeel.libs.estimators.estimator import Answers, Fitted, Graph, Rows
from evenkeel.libs.estimators.graph import INPUT, OPSET, graph_bytes
from evenkeel.libs.packages.manifest import LinearCoefficients, ModelFile, Parameter


class Design:
    """Rows, float32[n, k], as a linear fit takes them: medians for what is missing, scaled to mean 0 and variance 1, and one
    indicator for each feature that is missing in some rows and not in others. `matrix` is float64[n, k + indicators]."""

    def __init__(self, rows: Rows) -> None:
        k = rows.shape[1]
        design = rows.astype(np.float64)
        gaps = np.isnan(design)
        median = np.zeros(k)
        for j in range(k):
            present = design[~gaps[:, j], j]
            median[j] = np.median(present) if len(present) else 0.0
        np.copyto(design, median, where=gaps)
        self._median = median
        self._indicated = np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0))
        self._mean, scale = design.mean(axis=0), design.std(axis=0)
        self._varies = scale > 1e-12 * np.maximum(1.0, np.abs(self._mean))
        self._divisor = np.where(self._varies, scale, 1.0)
        design -= self._mean
        design /= self._divisor
        design[:, ~self._varies] = 0.0
        self.matrix: NDArray[np.float64] = np.hstack([design, gaps[:, self._indicated].astype(np.float64)])

    def of(self, rows: Rows) -> NDArray[np.float64]:
        """Other rows in the same way."""
        absent = np.isnan(rows)
        filled = np.where(absent, self._median, rows)
        scaled = np.where(self._varies, (filled - self._mean) / self._divisor, 0.0)
        return np.hstack([scaled, absent[:, self._indicated]])

    def fitted(
        self,
        parameters: dict[str, Parameter],
        weights: NDArray[np.float64],
        intercept: float,
        link: Literal["logistic", "identity"],
    ) -> Fitted:
        """The model of these weights over `matrix`, folded to one coefficient and one contribution when missing per feature."""
        k = len(self._mean)
        folded = np.where(self._varies, weights[:k] / self._divisor, 0.0)
        missing = folded * self._median
        missing[self._indicated] += weights[k:]
        coefficients = LinearCoefficients(
            link=link,
            intercept=intercept - float((folded * self._mean).sum()),
            weights=tuple(folded.tolist()),
            missing=tuple(missing.tolist()),
        )

        def predict(rows: Rows) -> Answers:
            z = self.of(rows) @ weights + intercept
            return np.asarray(1.0 / (1.0 + np.exp(-z)) if link == "logistic" else z)

        return Fitted(parameters, predict, lambda features: coefficients_graph(coefficients), coefficients)


def coefficients_graph(coefficients: LinearCoefficients) -> Graph:
    """The same arithmetic as `libs.packages.scorer.LinearModel`, in float64."""
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
    return Graph(graph_bytes(model), ModelFile(input=INPUT, output="answer", column=0))
