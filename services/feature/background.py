"""Training tables in Delta Lake, and the task that writes staged commits into them, exactly once each.

A commit is staged in SQL first. Its rows go into the table together with an application transaction (this store, the
commit's sequence); only then is it announced, in the transaction that forgets the staging. After a crash in between,
the table itself says whether it has the commit.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import structlog
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import DeltaError, TableNotFoundError
from numpy.typing import NDArray

from evenkeel.libs.disk import bytes_below
from evenkeel.libs.errors import Retry, Stop
from evenkeel.libs.features.plan import RESERVED_NAMES
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Host
from evenkeel.services.feature.commands import AnnounceDataset, on_announce_dataset
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.domain.rows import TrainingRow
from evenkeel.services.feature.store import Commit, FeatureStore

log = structlog.get_logger(__name__)

SEQUENCE_KEY: Final = "evenkeel.sequence"
COMPACTED_BYTES: Final = 33_554_432
LONGEST_WAIT_SECONDS: Final = 5.0
# Rows are read whole: dictionaries and statistics of fifty float columns only make each commit slower.
WRITER: Final = WriterProperties(
    compression="SNAPPY",
    default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
)


def training_table(features: Sequence[str], rows: Sequence[TrainingRow]) -> pa.Table:
    """Rows as columns: event_id string, event_time and label_time int64 (microseconds UTC), label float64, then one
    float64 column per feature, null where the value is missing."""
    flat = array("d")
    for row in rows:
        flat.extend(row.values)
    values = np.frombuffer(flat, dtype=np.float64).reshape(len(rows), len(features))
    columns = [
        _texts([row.event_id for row in rows]),
        _column(pa.int64(), np.array([row.event_time_us for row in rows], np.int64)),
        _column(pa.int64(), np.array([row.label_time_us for row in rows], np.int64)),
        _column(pa.float64(), np.array([row.label for row in rows], np.float64)),
    ]
    columns += [_column(pa.float64(), column) for column in np.ascontiguousarray(values.T)]
    return pa.table(columns, names=[*RESERVED_NAMES, *features])


# Columns are made from buffers: `pa.array` imports pandas where it is installed, which takes a second and 60 MB.


def _column(kind: Any, values: NDArray[Any]) -> Any:
    missing = np.isnan(values)
    count = int(missing.sum())
    valid = pa.py_buffer(np.packbits(~missing, bitorder="little")) if count else None
    return pa.Array.from_buffers(kind, len(values), [valid, pa.py_buffer(values)], count)


def _texts(values: Sequence[str]) -> Any:
    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int32)
    return pa.Array.from_buffers(
        pa.string(), len(values), [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))], 0
    )


class TrainingTable:
    """One model's table, held open: opening it anew for every commit costs more than the commit."""

    def __init__(self, folder: Path, application: str, former: Sequence[str] = (), *, days: int) -> None:
        self.folder, self._application, self._days = folder, application, days
        self._applications = (application, *former)
        """Also what stores wrote whose place this one took: they counted the same commits."""
        self._table: DeltaTable | None = None
        self._kept_from_us: int | None = None
        """What is known to have left the table."""

    @property
    def _settings(self) -> dict[str, str]:
        """Versions are claim checks of runs: as long as rows are kept, so are the versions that had them."""
        kept = f"interval {self._days} days"
        return {
            "delta.enableExpiredLogCleanup": "true",
            "delta.logRetentionDuration": kept,
            "delta.deletedFileRetentionDuration": kept,
            "delta.checkpointInterval": "50",
        }

    def write(self, commit: Commit, rows: Sequence[TrainingRow]) -> int:
        """The table's version that holds the commit; writes it unless a former attempt did.

        Raises OSError or DeltaError while the storage is away, and Stop if a table with announced rows is gone.
        """
        table = self._open()
        if table is None and not commit.overwrite:
            raise Stop(f"{self.folder.name}: the training table is gone, but {commit.sequence - 1} commits are in it")
        if table is not None and self._written(table) >= commit.sequence:
            return self._version_of(table, commit.sequence)
        properties = CommitProperties(
            custom_metadata={SEQUENCE_KEY: str(commit.sequence), "evenkeel.view_version": commit.view_version},
            app_transactions=[Transaction(self._application, commit.sequence)],
        )
        begin = commit.overwrite and table is not None
        if table is not None and commit.kept_from_us not in (None, self._kept_from_us):
            table.delete(f"label_time < {commit.kept_from_us}", writer_properties=WRITER)
            self._kept_from_us = commit.kept_from_us
            failpoint("dataset.left")
        write_deltalake(
            self.folder if table is None else table,
            training_table(commit.features, rows),
            mode="overwrite" if begin else "append",
            schema_mode="overwrite" if begin else None,
            configuration=self._settings if table is None else None,
            commit_properties=properties,
            writer_properties=WRITER,
        )
        if table is None:
            table = self._open()
            assert table is not None
        return table.version()

    def _written(self, table: DeltaTable) -> int:
        return max(table.transaction_version(application) or 0 for application in self._applications)

    def compact(self) -> None:
        """Merge small files, and delete those that only versions need which were superseded more than `days` ago."""
        table = self._open()
        if table is None:
            return
        if self._settings.items() - table.metadata().configuration.items():
            table.alter.set_table_properties(self._settings)
        table.optimize.compact(target_size=COMPACTED_BYTES, writer_properties=WRITER)
        # A checkpoint forgets files that were removed long enough ago: only the whole folder shows them.
        table.vacuum(24 * self._days, dry_run=False, full=True)

    def close(self) -> None:
        """Look at the storage again next time."""
        self._table = None

    def _open(self) -> DeltaTable | None:
        if self._table is None:
            try:
                self._table = DeltaTable(self.folder)
            except TableNotFoundError:
                self.folder.mkdir(parents=True, exist_ok=True)
        return self._table

    def _version_of(self, table: DeltaTable, sequence: int) -> int:
        for entry in table.history():
            if entry.get(SEQUENCE_KEY) == str(sequence):
                return int(entry["version"])
        raise Stop(f"{self.folder.name}: the training table has commit {sequence}, but no version says so")


async def write_datasets(runtime: Host[FeatureContext]) -> None:
    """Write staged commits for as long as the service lives: oldest first, one at a time, never in the consume loop."""
    loop, wanted = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(wanted.set)

    runtime.context.on_staged = wake
    tables: dict[str, TrainingTable] = {}
    with suppress(OSError):  # whose storage is away is measured with its next commit
        for folder in (runtime.settings.data_dir / "tables").glob("*"):
            runtime.context.table_bytes[folder.name] = await asyncio.to_thread(bytes_below, folder)
    wait_seconds = 0.1
    while True:
        wanted.clear()
        try:
            commits = await runtime.query(lambda connection: FeatureStore(connection).staged())
            for commit in commits:
                await _write(runtime, tables, commit)
            wait_seconds = 0.1
            if not commits:
                await wanted.wait()
        except (Retry, OSError, DeltaError) as error:
            log.warning("training table not written, trying again", error=str(error), wait_seconds=wait_seconds)
            for table in tables.values():
                table.close()
            await asyncio.sleep(wait_seconds)
            wait_seconds = min(wait_seconds * 2, LONGEST_WAIT_SECONDS)


async def _write(runtime: Host[FeatureContext], tables: dict[str, TrainingTable], commit: Commit) -> None:
    rows = await runtime.query(lambda connection: FeatureStore(connection).rows_of(commit.model, commit.sequence))
    if not rows:
        return  # the model was declared anew since
    if commit.model not in tables:
        folder = runtime.settings.data_dir / "tables" / commit.model
        stores = runtime.store_ids
        own, *former = (f"evenkeel/{store}/{commit.model}" for store in stores)
        tables[commit.model] = TrainingTable(folder, own, former, days=runtime.own.table_days)
    table = tables[commit.model]
    failpoint("dataset.staged")
    version = await asyncio.to_thread(table.write, commit, rows)
    failpoint("dataset.committed")
    await runtime.command(partial(on_announce_dataset, AnnounceDataset(commit, version)), "job")
    log.info("dataset committed", model=commit.model, version=version, added=commit.added)
    if runtime.context.is_compacted(commit.sequence):
        try:
            await asyncio.to_thread(table.compact)
        except (OSError, DeltaError) as error:
            log.warning("training table not compacted, its next turn will", model=commit.model, error=str(error))
            table.close()
    runtime.context.table_bytes[commit.model] = await asyncio.to_thread(bytes_below, table.folder)
