"""Every metric there is. A new one is a file beside this one and a row here; its suite is tests/suites/test_metrics.py."""

from __future__ import annotations

from typing import Final

from evenkeel.libs.metrics import accuracy, brier, f1, log_loss, mae, precision, recall, rmse, roc_auc
from evenkeel.libs.metrics.metric import Metric

METRICS: Final[tuple[Metric, ...]] = (
    Metric("roc_auc", ("binary",), True, roc_auc.value, roc_auc.influence, stratified=True),
    Metric("log_loss", ("binary",), False, log_loss.value, log_loss.influence),
    Metric("brier", ("binary",), False, brier.value, brier.influence),
    Metric("accuracy", ("binary",), True, accuracy.value, accuracy.influence, thresholded=True),
    Metric("precision", ("binary",), True, precision.value, precision.influence, thresholded=True),
    Metric("recall", ("binary",), True, recall.value, recall.influence, thresholded=True),
    Metric("f1", ("binary",), True, f1.value, f1.influence, thresholded=True),
    Metric("mae", ("regression",), False, mae.value, mae.influence),
    Metric("rmse", ("regression",), False, rmse.value, rmse.influence),
)
_BY_NAME: Final = {metric.name: metric for metric in METRICS}


def metric_named(name: str) -> Metric:
    """The row of that name; raises `ValueError` when there is none."""
    if name not in _BY_NAME:
        raise ValueError(f"there is no metric {name!r}: it is one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def metrics_of(task: str) -> tuple[Metric, ...]:
    """The metrics that measure a model of this task, in the catalogue's order."""
    return tuple(metric for metric in METRICS if task in metric.tasks)
