"""Reading a version of a model's training table (Delta Lake)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as compute
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from evenkeel.services.trainer.domain.job import Refused
from evenkeel.services.trainer.domain.split import TrainingTable

_KEYS = ("event_time", "event_id", "label_time", "label")


def read_table(folder: Path, version: int, features: Sequence[str], label_cut_us: int) -> TrainingTable:
    """The rows of that version whose label is known before `label_cut_us`, ordered by event time and event id.

    Columns: event_id string, event_time and label_time int64 microseconds, label float64, one float64 column per
    feature with null or NaN for missing. Raises `Refused` when the table, the version or a column is not there.
    """
    try:
        dataset = DeltaTable(folder, version=version).to_pyarrow_dataset()
    except TableNotFoundError as error:
        if DeltaTable.is_deltatable(str(folder)):  # its log begins behind this version
            raise _not_kept(folder, version) from error
        raise Refused(
            "error", f"there is no training table in {folder.name}: wait for its first dataset commit"
        ) from error
    except DeltaError as error:
        raise Refused("error", f"version {version} of {folder.name} cannot be read: {error}") from error
    absent = [name for name in (*_KEYS, *features) if name not in dataset.schema.names]
    if absent:
        raise Refused(
            "stale_view",
            f"version {version} of {folder.name} has no column {absent[0]}: wait for its next commit",
        )
    # Filtered after reading: handed down to the files, the filter drops those whose writer kept no statistics.
    try:
        table = dataset.to_table(columns=[*_KEYS, *features])
    except FileNotFoundError as error:
        raise _not_kept(folder, version) from error
    table = table.filter(compute.less(table["label_time"], label_cut_us))
    order = compute.sort_indices(table, sort_keys=[("event_time", "ascending"), ("event_id", "ascending")]).to_numpy()
    rows = np.empty((table.num_rows, len(features)), dtype=np.float32)
    for column, name in enumerate(features):
        rows[:, column] = table[name].to_numpy()[order]
    rows[np.isnan(rows)] = np.nan  # one bit pattern for missing, so that the digest is of values
    event_time, label_time, label = (table[name].to_numpy()[order] for name in ("event_time", "label_time", "label"))
    digest = hashlib.sha256()
    for part in (event_time, label_time, label, rows):
        digest.update(np.ascontiguousarray(part).data)
    return TrainingTable(
        event_time_us=event_time.astype(np.int64, copy=False),
        label_time_us=label_time.astype(np.int64, copy=False),
        label=label.astype(np.float64, copy=False),
        rows=rows,
        content_sha256=digest.hexdigest(),
    )


def _not_kept(folder: Path, version: int) -> Refused:
    return Refused(
        "error",
        f"version {version} of {folder.name} is no longer kept (EVENKEEL_FEATURE_TABLE_DAYS) or damaged: take a newer one",
    )
