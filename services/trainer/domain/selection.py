"""Choosing among candidates, and a decision threshold, without a look at the evaluation rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from evenkeel.libs.metrics import DEFAULT_THRESHOLD, UndefinedMetricError, best_f1_threshold, metric_named
from evenkeel.services.trainer.domain.fitting import fit, parameters_of
from evenkeel.services.trainer.domain.job import Candidate, TrainingRequest, Trial
from evenkeel.services.trainer.domain.split import TrainingTable

VALIDATION_SHARE: Final = 0.2
MAX_FIT_ROWS: Final = 40_000
MAX_VALIDATION_ROWS: Final = 8_000
MIN_VALIDATION_ROWS: Final = 50


@dataclass(frozen=True)
class Selection:
    """The candidate to train on all training rows, the threshold of a binary model, and what was tried."""

    candidate: Candidate
    threshold: float | None
    trials: tuple[Trial, ...]


def select(
    request: TrainingRequest, table: TrainingTable, training: NDArray[np.int64], elapsed_seconds: Callable[[], float]
) -> Selection:
    """Fit every candidate on older training rows and compare them on the newest fifth, split by time like the outer
    split and capped in rows for speed. With nothing to choose, or too few rows to, the first candidate is taken.

    A candidate is skipped when half of the time budget is spent, the first one never.
    """
    is_binary = request.task == "binary"
    threshold = request.threshold
    if threshold is None and is_binary:
        threshold = DEFAULT_THRESHOLD
    undecided = len(request.candidates) > 1 or (is_binary and request.threshold is None)
    fit_rows, validation = _inner_split(table, training)
    usable = len(fit_rows) >= request.min_training_rows and len(validation) >= MIN_VALIDATION_ROWS
    if is_binary and usable:
        usable = all(0.0 < table.label[part].mean() < 1.0 for part in (fit_rows, validation))
    if not undecided or not usable:
        return Selection(request.candidates[0], threshold, ())
    metric = metric_named(request.metric)
    trials: list[Trial] = []
    best: tuple[float, Candidate, NDArray[np.float64]] | None = None
    for candidate in request.candidates:
        value: float | None = None
        parameters = parameters_of(candidate)
        if best is None or elapsed_seconds() < request.time_budget_seconds / 2:
            fitted = fit(candidate, request.task, table.rows[fit_rows], table.label[fit_rows], request.seed)
            parameters = fitted.parameters
            score = fitted.predict(table.rows[validation])
            try:
                value = metric.value(table.label[validation], metric.judged(score))
            except UndefinedMetricError:
                value = None
            if value is not None and (best is None or metric.improvement(value, over=best[0]) > 0.0):
                best = value, candidate, score
        trials.append(Trial(estimator=candidate.estimator, parameters=parameters, value=value))
    if best is None:
        return Selection(request.candidates[0], threshold, tuple(trials))
    if is_binary and request.threshold is None:
        threshold = best_f1_threshold(table.label[validation], best[2])
    return Selection(best[1], threshold, tuple(trials))


def _inner_split(table: TrainingTable, training: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    size = min(MAX_VALIDATION_ROWS, int(VALIDATION_SHARE * len(training)))
    if not size:
        return training, training[:0]
    validation = training[-size:]
    cut_us = table.event_time_us[validation[0]]
    older = training[:-size]
    known = older[table.label_time_us[older] < cut_us]
    # Spread over all of the time that the real fit sees: the newest rows alone would flatter whatever extrapolates.
    spread = np.linspace(0, len(known) - 1, min(MAX_FIT_ROWS, len(known))).astype(np.int64)
    return known[spread], validation
