"""Logistic regression with an L2 penalty: Cox (1958), fitted by Newton's method."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from evenkeel.libs.estimators.coefficients import Design
from evenkeel.libs.estimators.estimator import Fitted, Labels, Rows
from evenkeel.libs.packages.manifest import Parameter


def fit(task: str, parameters: dict[str, Parameter], rows: Rows, label: Labels, seed: int) -> Fitted:
    """Probability of class 1. `C`: inverse strength of the penalty on the weights of scaled features, above 0; `max_iter`:
    Newton's steps at most. There is nothing random in it.

    >>> rows = np.array([[0.0], [1.0], [2.0], [3.0]], dtype=np.float32)
    >>> model = fit("binary", {"C": 1.0, "max_iter": 100}, rows, np.array([0.0, 0.0, 1.0, 1.0]), 0)
    >>> model.predict(rows).round(3).tolist()
    [0.22, 0.396, 0.604, 0.78]
    """
    design = Design(rows)
    settings: dict[str, Any] = dict(parameters)
    model = LogisticRegression(solver="newton-cholesky", **settings).fit(design.matrix, label.astype(np.int64))
    return design.fitted(parameters, model.coef_[0], float(model.intercept_[0]), "logistic")
