"""Linear regression with an L2 penalty (ridge): Hoerl and Kennard (1970)."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.linear_model import Ridge

from evenkeel.libs.estimators.coefficients import Design
from evenkeel.libs.estimators.estimator import Fitted, Labels, Rows
from evenkeel.libs.packages.manifest import Parameter


def fit(task: str, parameters: dict[str, Parameter], rows: Rows, label: Labels, seed: int) -> Fitted:
    """The label's value. `alpha`: strength of the penalty on the weights of scaled features, 0 and up. There is nothing
    random in it.

    >>> rows = np.array([[0.0], [1.0], [2.0], [3.0]], dtype=np.float32)
    >>> model = fit("regression", {"alpha": 1.0}, rows, np.array([1.0, 3.0, 5.0, 7.0]), 0)
    >>> model.predict(rows).round(3).tolist()
    [1.6, 3.2, 4.8, 6.4]
    """
    design = Design(rows)
    settings: dict[str, Any] = dict(parameters)
    model = Ridge(solver="cholesky", **settings).fit(design.matrix, label)
    return design.fitted(parameters, np.asarray(model.coef_), float(model.intercept_), "identity")
