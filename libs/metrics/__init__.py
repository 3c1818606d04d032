"""Quality of predictions, and whether one model is better than another on the same rows: a catalogue of metrics.

`metric.py` says what a metric is, `catalogue.py` which there are, and each has a file of its own.
"""

from evenkeel.libs.metrics.catalogue import METRICS, metric_named, metrics_of
from evenkeel.libs.metrics.compare import compare, evaluate
from evenkeel.libs.metrics.metric import DEFAULT_THRESHOLD, Metric, UndefinedMetricError, decisions
from evenkeel.libs.metrics.threshold import best_f1_threshold

__all__ = [
    "DEFAULT_THRESHOLD",
    "METRICS",
    "Metric",
    "UndefinedMetricError",
    "best_f1_threshold",
    "compare",
    "decisions",
    "evaluate",
    "metric_named",
    "metrics_of",
]
