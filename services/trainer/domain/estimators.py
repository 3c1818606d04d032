"""The estimators that can be trained, and their default parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge

from evenkeel.libs.packages.manifest import LinearCoefficients, Parameter
from evenkeel.services.trainer.domain.job import EstimatorName, Refused, Task

Rows = NDArray[np.float32]
Labels = NDArray[np.float64]
Trees: TypeAlias = HistGradientBoostingClassifier | HistGradientBoostingRegressor

DEFAULTS: Final[dict[EstimatorName, dict[str, Parameter]]] = {
    "logistic": {"C": 1.0, "max_iter": 100},
    "linear": {"alpha": 1.0},
    "hist_gradient_boosting": {
        "max_iter": 100,
        "learning_rate": 0.1,
        "max_leaf_nodes": 31,
        "min_samples_leaf": None,
        "l2_regularization": 1.0,
        "max_features": 0.5,
    },
}
"""`min_samples_leaf` None: a five-hundredth of the rows, at least 20 and at most 100."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained estimator. `predict` answers float32[n, k] with float64[n] as the training library computes it."""

    parameters: dict[str, Parameter]
    predict: Callable[[Rows], NDArray[np.float64]]
    model: LinearCoefficients | Trees


def resolved(estimator: EstimatorName, parameters: dict[str, Parameter], rows: int) -> dict[str, Parameter]:
    """The parameters of a fit on that many rows; raises `Refused` for one that the estimator does not have."""
    known = DEFAULTS[estimator]
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        raise Refused("error", f"{estimator} has no parameter {unknown[0]}: it has {', '.join(sorted(known))}")
    merged = {**known, **parameters}
    if estimator == "hist_gradient_boosting" and merged["min_samples_leaf"] is None:
        merged["min_samples_leaf"] = max(20, min(100, rows // 500))
    return merged


def fit(
    estimator: EstimatorName, task: Task, parameters: dict[str, Parameter], rows: Rows, label: Labels, seed: int
) -> Fitted:
    """Train on float32[n, k] with NaN for missing and float64[n]; raises `Refused` for unusable parameters."""
    chosen = resolved(estimator, parameters, len(rows))
    try:
        if estimator == "hist_gradient_boosting":
            return _fit_trees(task, chosen, rows, label, seed)
        return _fit_linear(task, chosen, rows, label)
    except ValueError as error:
        raise Refused("error", f"{estimator} with {chosen}: {error}") from error


def _fit_trees(task: Task, parameters: dict[str, Parameter], rows: Rows, label: Labels, seed: int) -> Fitted:
    settings: dict[str, Any] = {**parameters, "early_stopping": False, "random_state": seed}
    never_seen = np.isnan(rows).all(axis=0)
    if never_seen.any():  # scikit-learn cannot bin such a column; a constant one is never split on
        rows = np.where(never_seen, np.float32(0.0), rows)
    trees: Trees
    if task == "binary":
        classifier = HistGradientBoostingClassifier(**settings).fit(rows, label.astype(np.int64))
        _floor_thresholds(classifier)
        return Fitted(parameters, lambda sample: np.asarray(classifier.predict_proba(sample)[:, 1]), classifier)
    trees = HistGradientBoostingRegressor(**settings).fit(rows, label)
    _floor_thresholds(trees)
    return Fitted(parameters, lambda sample: np.asarray(trees.predict(sample)), trees)


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


def _fit_linear(task: Task, parameters: dict[str, Parameter], rows: Rows, label: Labels) -> Fitted:
    """Impute medians, add missing indicators, scale to unit variance, fit; then fold all of it into one coefficient per
    feature and one contribution per missing feature."""
    k = rows.shape[1]
    design = rows.astype(np.float64)
    gaps = np.isnan(design)
    median = np.zeros(k)
    for j in range(k):
        present = design[~gaps[:, j], j]
        median[j] = np.median(present) if len(present) else 0.0
    np.copyto(design, median, where=gaps)
    indicated = np.flatnonzero(gaps.any(axis=0) & ~gaps.all(axis=0))
    mean, scale = design.mean(axis=0), design.std(axis=0)
    varies = scale > 1e-12 * np.maximum(1.0, np.abs(mean))
    divisor = np.where(varies, scale, 1.0)
    design -= mean
    design /= divisor
    design[:, ~varies] = 0.0
    design = np.hstack([design, gaps[:, indicated].astype(np.float64)])
    settings: dict[str, Any] = dict(parameters)
    if task == "binary":
        model = LogisticRegression(solver="newton-cholesky", **settings).fit(design, label.astype(np.int64))
        fitted, intercept = model.coef_[0], float(model.intercept_[0])
    else:
        model = Ridge(solver="cholesky", **settings).fit(design, label)
        fitted, intercept = np.asarray(model.coef_), float(model.intercept_)
    weights = np.where(varies, fitted[:k] / divisor, 0.0)
    missing = weights * median
    missing[indicated] += fitted[k:]
    coefficients = LinearCoefficients(
        link="logistic" if task == "binary" else "identity",
        intercept=intercept - float((weights * mean).sum()),
        weights=tuple(weights.tolist()),
        missing=tuple(missing.tolist()),
    )

    def predict(sample: Rows) -> NDArray[np.float64]:
        absent = np.isnan(sample)
        filled = np.where(varies, (np.where(absent, median, sample) - mean) / divisor, 0.0)
        z = np.hstack([filled, absent[:, indicated]]) @ fitted + intercept
        return np.asarray(1.0 / (1.0 + np.exp(-z)) if task == "binary" else z)

    return Fitted(parameters, predict, coefficients)
