"""A store that was made before an index existed gets it when it is opened, and is used as before."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import ModuleType

import pytest

from libs.store.sql import SqlStore
from services.registry import store as registry
from services.trainer import store as trainer


@pytest.mark.parametrize(
    ("service", "name", "query"),
    [
        (registry, "gates_of_run", "select gate from gates where run_id = 'r'"),
        (trainer, "jobs_of_model", "select decided_us from jobs where model = 'm' order by decided_us"),
    ],
    ids=["registry", "trainer"],
)
def test_an_older_store_gets_the_index(tmp_path: Path, service: ModuleType, name: str, query: str) -> None:
    path = tmp_path / "store.db"

    def open_with(migrations: tuple[object, ...]) -> None:
        store = SqlStore(f"sqlite:///{path}", "service", service.tables, migrations)
        store.open()
        store.close()

    def plan() -> str:
        with sqlite3.connect(path) as database:
            return " ".join(row[-1] for row in database.execute(f"explain query plan {query}"))

    open_with(service.MIGRATIONS[:-1])
    with sqlite3.connect(path) as database:
        database.execute(f"drop index {name}")
    assert name not in plan()
    for _ in range(2):
        open_with(service.MIGRATIONS)
        assert name in plan()
