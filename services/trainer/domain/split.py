"""Which rows a model is trained on and which it is evaluated on, so that nothing of the future leaks into it.

    training: label known before the cut              evaluation: events after the cut
    ────────────────────────────────────┤cut├──────────────────────────┤ label horizon ├┤label cut of the dataset
                                          events whose label came after the cut: in neither

A row counts for training from the moment its label arrived, as in live operation. The evaluation window ends a label
horizon before the data does: the newest events have a label only if it came early, which is no fair sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_HOLDOUT_SHARE: Final = 0.25
"""The evaluation window is at most this share of the time the rows span: the first model has little data."""


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """n labelled rows of k features, by event time.

    `event_time_us`, `label_time_us` int64[n]; `label` float64[n]; `rows` float32[n, k] with NaN for missing;
    `content_sha256` over all of them.
    """

    event_time_us: NDArray[np.int64]
    label_time_us: NDArray[np.int64]
    label: NDArray[np.float64]
    rows: NDArray[np.float32]
    content_sha256: str


@dataclass(frozen=True, eq=False)
class TemporalSplit:
    """Row numbers, int64, ascending in event time; times in microseconds."""

    training: NDArray[np.int64]
    evaluation: NDArray[np.int64]
    cut_us: int
    evaluation_from_us: int
    evaluation_until_us: int


def temporal_split(
    table: TrainingTable,
    *,
    label_cut_us: int,
    label_horizon_us: int,
    holdout_us: int,
    max_span_us: int | None,
    max_rows: int,
    unseen_from_us: int | None,
) -> TemporalSplit:
    """Split by time. `unseen_from_us`: the training cut of the champion, before which it may have seen labels.

    Rows whose label is not known before `label_cut_us` are in neither part, whatever the table holds.
    """
    event, label = table.event_time_us, table.label_time_us
    first = int(event[0]) if len(event) else label_cut_us
    until = label_cut_us - label_horizon_us
    holdout = min(holdout_us, int(MAX_HOLDOUT_SHARE * max(0, label_cut_us - first)))
    cut = until - holdout
    is_training = (label < cut) & (event < cut) & (label < label_cut_us)
    if max_span_us is not None:
        is_training &= event >= cut - max_span_us
    evaluation_from = max(cut, unseen_from_us) if unseen_from_us is not None else cut
    is_evaluation = (event >= evaluation_from) & (event < until) & (label < label_cut_us)
    return TemporalSplit(
        training=np.flatnonzero(is_training)[-max_rows:],
        evaluation=np.flatnonzero(is_evaluation),
        cut_us=cut,
        evaluation_from_us=evaluation_from,
        evaluation_until_us=until,
    )
