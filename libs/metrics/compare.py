"""Quality of one model, and whether another one is better on the same rows."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from evenkeel.contracts.trainer import Comparison
from evenkeel.libs.metrics.catalogue import metric_named, metrics_of
from evenkeel.libs.metrics.metric import DEFAULT_THRESHOLD, Array, UndefinedMetricError


def evaluate(task: str, label: Array, score: Array, decision: Array) -> dict[str, float | None]:
    """Every metric of the task for one model's answers, float64[n] each; None where these rows cannot tell.

    `decision`: 0 or 1 for each row (`decisions` of one threshold, or of each row's own); a regression's is not looked at.
    """
    values: dict[str, float | None] = {}
    for metric in metrics_of(task):
        try:
            values[metric.name] = metric.value(label, decision if metric.thresholded else score)
        except UndefinedMetricError:
            values[metric.name] = None
    return values


def compare(
    name: str,
    label: Array,
    candidate: Array,
    champion: Array,
    *,
    confidence: float = 0.95,
    candidate_threshold: float = DEFAULT_THRESHOLD,
    champion_threshold: float = DEFAULT_THRESHOLD,
) -> Comparison:
    """Compare two models' scores, float64[n] each, on the same rows.

    The standard error is that of the mean difference of the two models' influence values, row by row (for roc_auc that is
    the one of DeLong, DeLong and Clarke-Pearson, 1988). Bounds are normal, so `n` should be in the hundreds; rows that
    depend on each other (the same hour's weather) make the bound too narrow. Raises `UndefinedMetricError`, and
    `ValueError` for fewer than two rows, an unknown metric or a confidence outside [0.5, 1).
    """
    if not 0.5 <= confidence < 1.0:
        raise ValueError(f"confidence is {confidence}: it must be at least 0.5 and below 1")
    if len(label) < 2:
        raise ValueError(f"a paired comparison needs two rows or more, not {len(label)}")
    metric = metric_named(name)
    ours, theirs = metric.judged(candidate, candidate_threshold), metric.judged(champion, champion_threshold)
    value, their_value = metric.value(label, ours), metric.value(label, theirs)
    difference = metric.influence(label, ours) - metric.influence(label, theirs)
    strata = [label == 0.0, label == 1.0] if metric.stratified else [np.ones(len(label), dtype=bool)]
    standard_error = _standard_error(name, [difference[stratum] for stratum in strata])
    improvement = metric.improvement(value, over=their_value)
    reach = NormalDist().inv_cdf(confidence) * standard_error
    return Comparison(
        metric=name,
        n=len(label),
        candidate=value,
        champion=their_value,
        improvement=improvement,
        standard_error=standard_error,
        improvement_lower=improvement - reach,
        improvement_upper=improvement + reach,
        confidence=confidence,
    )


def _standard_error(name: str, strata: list[Array]) -> float:
    """Of the mean of values that were drawn stratum by stratum."""
    n = sum(map(len, strata))
    variance = 0.0
    for stratum in strata:
        if len(stratum) < 2:
            raise UndefinedMetricError(f"the bound of {name} needs two rows or more of each class")
        variance += len(stratum) * float(stratum.var(ddof=1)) / n**2
    return float(np.sqrt(variance))
