"""Training tables: what is in them, and that a crash at any step neither loses nor doubles a commit."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from evenkeel.contracts.envelope import format_us, type_of
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.errors import Stop
from evenkeel.services.feature.background import TrainingTable, training_table
from evenkeel.services.feature.commands import AnnounceDataset, on_announce_dataset
from evenkeel.services.feature.domain.rows import TrainingRow
from evenkeel.services.feature.store import Commit, FeatureStore
from tests.feature_log import DAY_US, DECLARATION, HOUR_US, START_US, Feature, Log

FEATURES = ("load", "delay_mean_1h")


def rows(day: int, count: int = 5) -> list[TrainingRow]:
    start_us = START_US + day * DAY_US
    return [
        TrainingRow(f"d{day}-{n}", start_us + n, start_us + n + HOUR_US, float(n % 2), array("d", [n / 3, math.nan]))
        for n in range(count)
    ]


def commit(sequence: int, *, overwrite: bool = False, features: tuple[str, ...] = FEATURES) -> Commit:
    return Commit("m", sequence, "v", 0, features, overwrite, 5, START_US, START_US, START_US + DAY_US, {}, "cause")


def ids(folder: Path, version: int | None = None) -> list[str]:
    return sorted(DeltaTable(folder, version=version).to_pyarrow_table()["event_id"].to_pylist())


def test_columns_are_typed_and_missing_values_are_null() -> None:
    table = training_table(FEATURES, rows(0))
    assert [(field.name, str(field.type)) for field in table.schema] == [
        ("event_id", "string"),
        ("event_time", "int64"),
        ("label_time", "int64"),
        ("label", "double"),
        ("load", "double"),
        ("delay_mean_1h", "double"),
    ]
    assert table["event_id"].to_pylist() == [row.event_id for row in rows(0)]
    assert table["label_time"].to_pylist() == [row.label_time_us for row in rows(0)]
    assert table["delay_mean_1h"].null_count == 5
    assert table["load"].to_numpy().tobytes() == np.array([n / 3 for n in range(5)]).tobytes()


def test_commits_append_and_versions_stay_readable(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    table = TrainingTable(folder, "app", days=30)
    versions = [table.write(commit(n + 1, overwrite=n == 0), rows(n)) for n in range(3)]
    table.compact()
    assert versions == [0, 1, 2]
    assert ids(folder, 1) == sorted(row.event_id for n in range(2) for row in rows(n))
    assert ids(folder) == sorted(row.event_id for n in range(3) for row in rows(n))
    assert table.write(commit(4), rows(3)) == 4


def test_a_commit_that_the_table_has_is_not_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    first = TrainingTable(folder, "app", days=30)
    for n in range(3):
        first.write(commit(n + 1, overwrite=n == 0), rows(n))
    again = TrainingTable(folder, "app", days=30)
    assert [again.write(commit(n + 1, overwrite=n == 0), rows(n)) for n in range(3)] == [0, 1, 2]
    assert ids(folder) == sorted(row.event_id for n in range(3) for row in rows(n))


def test_what_the_table_has_is_known_behind_checkpoints_and_compaction(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    table = TrainingTable(folder, "app", days=30)
    for n in range(60):
        table.write(commit(n + 1, overwrite=n == 0), rows(n, 1))
        if n == 55:
            table.compact()
    assert list((folder / "_delta_log").glob("*.checkpoint.parquet"))
    assert TrainingTable(folder, "app", days=30).write(commit(60), rows(59, 1)) == 60
    assert len(ids(folder)) == 60


def test_other_features_begin_a_new_table_in_place(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    table = TrainingTable(folder, "app", days=30)
    table.write(commit(1, overwrite=True), rows(0))
    other = [row._replace(values=row.values[:1]) for row in rows(1)]
    version = table.write(commit(2, overwrite=True, features=("load",)), other)
    assert DeltaTable(folder).to_pyarrow_table().schema.names[4:] == ["load"]
    assert ids(folder) == sorted(row.event_id for row in rows(1))
    assert (version, ids(folder, 0)) == (1, sorted(row.event_id for row in rows(0)))


def test_rows_leave_with_a_commit_and_stay_in_former_versions(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    table = TrainingTable(folder, "app", days=30)
    for n in range(3):
        table.write(commit(n + 1, overwrite=n == 0), rows(n))
    third = replace(commit(4), kept_from_us=START_US + 2 * DAY_US)
    table.write(third, rows(3))
    kept = sorted(row.event_id for n in (2, 3) for row in rows(n))
    assert ids(folder) == kept
    assert len(ids(folder, 2)) == 15
    again = TrainingTable(folder, "app", days=30)
    assert again.write(third, rows(3)) == DeltaTable(folder).version()
    assert ids(folder) == kept


def test_a_crash_after_rows_have_left_does_not_keep_the_commit_out(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    TrainingTable(folder, "app", days=30).write(commit(1, overwrite=True), rows(0))
    leaving = replace(commit(2), kept_from_us=START_US + DAY_US)
    too_narrow = [row._replace(values=row.values[:1]) for row in rows(1)]
    with pytest.raises(ValueError, match="reshape"):
        TrainingTable(folder, "app", days=30).write(leaving, too_narrow)
    assert ids(folder) == []
    TrainingTable(folder, "app", days=30).write(leaving, rows(1))
    assert ids(folder) == sorted(row.event_id for row in rows(1))


def test_versions_older_than_the_days_leave_the_disk(tmp_path: Path) -> None:
    folder = tmp_path / "m"

    def run(table: TrainingTable, numbers: range) -> None:
        for n in numbers:
            kept = START_US + (n - 20) * DAY_US if n > 20 and n % 10 == 0 else None
            table.write(replace(commit(n + 1, overwrite=n == 0), kept_from_us=kept), rows(n))
            if n % 10 == 0:
                table.compact()

    run(TrainingTable(folder, "app", days=30), range(30))
    assert len(ids(folder, 5)) == 30, "what was superseded a moment ago"
    run(TrainingTable(folder, "app", days=0), range(30, 120))
    assert ids(folder) == sorted(row.event_id for n in range(90, 120) for row in rows(n))
    assert len(list(folder.glob("*.parquet"))) < 15
    assert len(list((folder / "_delta_log").iterdir())) < 75, "back to a checkpoint"
    with pytest.raises((DeltaError, OSError)):
        ids(folder, 5)


def test_an_old_file_that_left_a_moment_ago_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    table = TrainingTable(folder, "app", days=1)
    for n in range(3):
        table.write(commit(n + 1, overwrite=n == 0), rows(n))
    for file in folder.glob("*.parquet"):
        os.utime(file, (0, 0))
    table.write(replace(commit(4), kept_from_us=START_US + DAY_US), rows(3))
    table.compact()
    assert len(ids(folder, 2)) == 15


def test_a_table_that_is_gone_is_not_silently_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="gone"):
        TrainingTable(tmp_path / "m", "app", days=30).write(commit(7), rows(0))


@pytest.fixture
def log() -> Log:
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay", "load"])
    for number in range(60):
        time_us = START_US + number * HOUR_US
        fields = {"origin": "A", "carrier": "x", "load": float(number)}
        log.event("flights", f"f{number}", time_us, fields, watermark_us=time_us)
        if number:
            label = {"origin": "A", "carrier": "x", "delay": number - 30.0}
            log.label("flights", f"f{number - 1}", time_us, label, watermark_us=time_us)
    log.close(START_US + 60 * HOUR_US)
    return log


@pytest.fixture
def feature(log: Log, tmp_path: Path) -> Iterator[Feature]:
    feature = Feature(tmp_path, snapshot_records=30)
    for start in range(0, len(log.records), 25):
        feature.consume(log.records[start : start + 25])
    yield feature
    feature.close()


def staged(feature: Feature, model: str = "delay") -> list[Commit]:
    with feature.store.begin() as tx:
        return [one for one in FeatureStore(tx.connection).staged() if one.model == model]


def write(feature: Feature, one: Commit) -> int:
    with feature.store.begin() as tx:
        found = FeatureStore(tx.connection).rows_of(one.model, one.sequence)
    table = TrainingTable(feature.data_dir / "tables" / one.model, f"evenkeel/{feature.store.store_id}/delay", days=30)
    return table.write(one, found)


@pytest.mark.parametrize("crash", ["never", "before the table", "behind the table", "behind the announcement"])
def test_each_commit_is_written_and_announced_once(log: Log, feature: Feature, crash: str) -> None:
    assert [one.cut_us for one in staged(feature)] == [START_US + DAY_US, START_US + 2 * DAY_US]
    for sequence in (1, 2):
        if crash == "before the table":
            feature.restart()
        (one, *_) = staged(feature)
        assert one.sequence == sequence
        version = write(feature, one)
        if crash == "behind the table":
            feature.restart()
            (one, *_) = staged(feature)
            version = write(feature, one)
        assert feature.command(partial(on_announce_dataset, AnnounceDataset(one, version))) is True
        if crash == "behind the announcement":
            feature.restart()
            assert feature.command(partial(on_announce_dataset, AnnounceDataset(one, version))) is False
    announced = [event.data for event in feature.events(DatasetCommitted)]
    assert [(one.version, one.added, one.rows) for one in announced] == [(0, 23, 23), (1, 24, 47)]
    assert [one.label_cut for one in announced] == [format_us(START_US + n * DAY_US) for n in (1, 2)]
    assert len({event.id for event in feature.events(DatasetCommitted)}) == 2
    assert (announced[0].first_event_time, announced[0].last_event_time) == (
        format_us(START_US),
        format_us(START_US + 22 * HOUR_US),
    )
    folded: dict[str, dict[str, int]] = {}
    for record in log.records:
        headers = dict(record.headers)
        if headers["ce_type"] == type_of(record.topic) and headers["ce_time"].decode() < announced[0].label_cut:
            folded.setdefault(record.topic, {})[str(record.partition)] = record.offset + 1
    assert announced[0].offsets == {topic: ends for topic, ends in folded.items() if topic.startswith("ingest.")}
    assert staged(feature) == []
    table = DeltaTable(feature.data_dir / "tables" / "delay").to_pyarrow_table()
    assert sorted(table["event_id"].to_pylist()) == sorted(f"f{n}" for n in range(47))
    vectors = feature.vectors("delay")
    names = feature.context.views["delay"].plan.names
    for row in table.to_pylist():
        assert [row[name] for name in names] == vectors[row["event_id"]]
        assert row["label"] == float(int(row["event_id"][1:]) + 1 - 30 > 15)


def test_commits_of_two_models_have_ids_of_their_own(feature: Feature) -> None:
    for one in (*staged(feature, "delay"), *staged(feature, "load")):
        assert feature.command(partial(on_announce_dataset, AnnounceDataset(one, one.sequence - 1))) is True
    assert len({event.id for event in feature.events(DatasetCommitted)}) == 4


def test_a_staged_commit_of_a_former_declaration_is_not_announced(feature: Feature) -> None:
    (one, *_) = staged(feature)
    version = write(feature, one)
    with feature.store.begin() as tx:
        store = FeatureStore(tx.connection)
        view = store.view("delay")
        assert view is not None
        store.begin_view(replace(view, overwrite=True), keep_windows=False)
    assert feature.command(partial(on_announce_dataset, AnnounceDataset(one, version))) is False
    assert feature.events(DatasetCommitted) == []


def test_what_is_announced_is_what_the_table_keeps(tmp_path: Path) -> None:
    feature = Feature(tmp_path, compact_commits=3, table_days=4)
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay"])
    for number in range(120):
        time_us = START_US + number * DAY_US // 4
        if number % 10 == 0:
            log.close(time_us)
        if number == 60:
            log.declare([], ["delay"], load_declaration(DECLARATION.replace("delay > 15", "delay > 5"), "changed.yaml"))
        log.event("flights", f"f{number}", time_us, {"origin": "A"}, watermark_us=time_us)
        # The label of the last event of a day comes on the next: its row outlives that day's.
        log.label("flights", f"f{number}", time_us + 7 * HOUR_US, {"delay": 1.0}, watermark_us=time_us)
    log.close(START_US + 40 * DAY_US)
    table = TrainingTable(feature.data_dir / "tables" / "delay", "app", days=4)
    for start in range(0, len(log.records), 20):
        feature.consume(log.records[start : start + 20])
        for one in staged(feature):
            with feature.store.begin() as tx:
                found = FeatureStore(tx.connection).rows_of("delay", one.sequence)
            feature.command(partial(on_announce_dataset, AnnounceDataset(one, table.write(one, found))))
    announced = [event.data for event in feature.events(DatasetCommitted)]
    left = [(number, one.kept_from) for number, one in enumerate(announced, 1) if one.kept_from]
    assert left[0] == (6, format_us(START_US + 2 * DAY_US)), "with the sixth commit, days one and two"
    assert len({one.declaration for one in announced}) == 2, "the table was begun anew for other labels"
    for one in announced:
        version = DeltaTable(feature.data_dir / "tables" / "delay", version=one.version).to_pyarrow_table()
        times = version["event_time"].to_pylist()
        assert (one.rows, one.first_event_time, one.last_event_time) == (
            len(times),
            format_us(min(times)),
            format_us(max(times)),
        )
        assert one.kept_from is None or format_us(min(version["label_time"].to_pylist())) >= one.kept_from
    feature.close()


@pytest.mark.parametrize("days", [1, 7])
def test_coarser_commits_cut_at_their_own_midnights(tmp_path: Path, days: int) -> None:
    feature = Feature(tmp_path / str(days), dataset_commit_days=days)
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay"])
    for number in range(20):
        time_us = START_US + number * DAY_US
        log.event("flights", f"f{number}", time_us, {"origin": "A"}, watermark_us=time_us)
        log.label("flights", f"f{number}", time_us + 1, {"delay": 1.0}, watermark_us=time_us)
    log.close(START_US + 20 * DAY_US)
    feature.consume(log.records)
    cuts = [cut for cut, _ in feature.staged_rows("delay")]
    assert all(cut % (days * DAY_US) == 0 for cut in cuts)
    assert len(cuts) == (20 if days == 1 else 3)
    feature.close()
