"""Gradient boosting of trees over histograms of the features: Friedman (2001), Ke et al. (2017, LightGBM)."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from evenkeel.libs.estimators.estimator import Fitted, Graph, Labels, Rows
from evenkeel.libs.estimators.graph import INPUT, OPSET, graph_bytes
from evenkeel.libs.packages.manifest import ModelFile, Parameter

Trees: TypeAlias = HistGradientBoostingClassifier | HistGradientBoostingRegressor


def fit(task: str, parameters: dict[str, Parameter], rows: Rows, label: Labels, seed: int) -> Fitted:
    """Probability of class 1, or the label's value. Parameters are scikit-learn's; `min_samples_leaf` None: see `leaf_size`.
    `seed` draws the features that each split looks at.

    >>> rows = np.repeat(np.array([[0.0], [1.0]], dtype=np.float32), 40, axis=0)
    >>> given = {"max_iter": 50, "learning_rate": 0.5, "min_samples_leaf": None}
    >>> model = fit("regression", given, rows, np.repeat([3.0, 5.0], 40), 0)
    >>> model.predict(rows[39:41]).round(3).tolist(), model.parameters["min_samples_leaf"]
    ([3.0, 5.0], 20)
    """
    parameters = dict(parameters)
    if parameters["min_samples_leaf"] is None:
        parameters["min_samples_leaf"] = leaf_size(len(rows))
    settings: dict[str, Any] = {**parameters, "early_stopping": False, "random_state": seed}
    never_seen = np.isnan(rows).all(axis=0)
    if never_seen.any():  # scikit-learn cannot bin such a column; a constant one is never split on
        rows = np.where(never_seen, np.float32(0.0), rows)
    if task == "binary":
        classifier = HistGradientBoostingClassifier(**settings).fit(rows, label.astype(np.int64))
        _floor_thresholds(classifier)
        return Fitted(
            parameters,
            lambda sample: np.asarray(classifier.predict_proba(sample)[:, 1]),
            lambda features: _graph(classifier, features, "probabilities", 1),
        )
    regressor = HistGradientBoostingRegressor(**settings).fit(rows, label)
    _floor_thresholds(regressor)
    return Fitted(
        parameters,
        lambda sample: np.asarray(regressor.predict(sample)),
        lambda features: _graph(regressor, features, None, 0),
    )


def leaf_size(rows: int) -> int:
    """Fewest rows of a leaf: a five-hundredth of all, at least 20 and at most 100.

    >>> [leaf_size(rows) for rows in (1_000, 25_000, 300_000)]
    [20, 50, 100]
    """
    return max(20, min(100, rows // 500))


def _floor_thresholds(trees: Trees) -> None:
    """Round split thresholds down to float32. Rows are float32, so no row changes sides here, and none will in the
    exported graph either, where rounding to nearest could carry a threshold past a value."""
    for stage in trees._predictors:  # noqa: SLF001 where skl2onnx reads the trees, too
        for predictor in stage:
            exact = predictor.nodes["num_threshold"]
            rounded = exact.astype(np.float32)
            above = rounded > exact
            rounded[above] = np.nextafter(rounded[above], np.float32(-np.inf))
            predictor.nodes["num_threshold"] = rounded


def _graph(trees: Trees, features: int, output: str | None, column: int) -> Graph:
    model = convert_sklearn(
        trees,
        name="model",  # the default is a random name
        initial_types=[(INPUT, FloatTensorType([None, features]))],
        options=None if output is None else {id(trees): {"zipmap": False}},
        target_opset=OPSET,
    )
    file = ModelFile(input=INPUT, output=output or model.graph.output[0].name, column=column)
    return Graph(graph_bytes(model), file)
