"""Every estimator there is. A new one is a file beside this one, with the row's name, and a row here; its suite is
tests/suites/test_estimators.py."""

from __future__ import annotations

from typing import Final

from evenkeel.libs.estimators.estimator import Estimator

_SCIKIT_LEARN: Final = ("numpy", "scipy", "scikit-learn", "onnx")

ESTIMATORS: Final[tuple[Estimator, ...]] = (
    Estimator("logistic", ("binary",), {"C": 1.0, "max_iter": 100}, _SCIKIT_LEARN),
    Estimator("linear", ("regression",), {"alpha": 1.0}, _SCIKIT_LEARN),
    Estimator(
        "hist_gradient_boosting",
        ("binary", "regression"),
        {
            "max_iter": 100,
            "learning_rate": 0.1,
            "max_leaf_nodes": 31,
            "min_samples_leaf": None,  # a five-hundredth of the rows, at least 20 and at most 100
            "l2_regularization": 1.0,
            "max_features": 0.5,
        },
        (*_SCIKIT_LEARN, "skl2onnx"),
    ),
)
_BY_NAME: Final = {estimator.name: estimator for estimator in ESTIMATORS}


def estimator_named(name: str) -> Estimator:
    """The row of that name; raises `ValueError` when there is none."""
    if name not in _BY_NAME:
        raise ValueError(f"there is no estimator {name!r}: it is one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def estimators_of(task: str) -> tuple[Estimator, ...]:
    """The estimators that can be trained for this task, in the catalogue's order."""
    return tuple(estimator for estimator in ESTIMATORS if task in estimator.tasks)
