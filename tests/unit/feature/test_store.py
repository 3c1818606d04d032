"""The store's schema grows with what was stored before."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from libs.store.sql import SqlStore
from services.feature.store import MIGRATIONS, FeatureStore, create_tables, tables

COMMIT = {
    "model": "m",
    "sequence": 1,
    "view_version": "v",
    "declaration": 0,
    "features": b"\x90",
    "overwrite": True,
    "added": 5,
    "first_event_us": 10,
    "last_event_us": 20,
    "cut_us": 30,
    "offsets": b"\x80",
    "cause_id": "c",
    "version": 0,
    "rows": 5,
}


def test_commits_of_a_store_without_retention_count_as_kept(tmp_path: Path) -> None:
    path = tmp_path / "feature.db"
    former = SqlStore(f"sqlite:///{path}", "feature", tables, (create_tables,))
    former.open()
    former.close()
    with sqlite3.connect(path) as database:
        for column in ("kept_from_us", "added_first_us", "added_last_us"):
            database.execute(f"alter table commits drop column {column}")
        database.execute("alter table views add column rows bigint not null default 0")
        database.execute("insert into views values ('m', 0, 30, 1, 0, 5)")
        database.execute(
            f"insert into commits ({', '.join(COMMIT)}) values ({', '.join('?' * len(COMMIT))})", [*COMMIT.values()]
        )
    store = SqlStore(f"sqlite:///{path}", "feature", tables, MIGRATIONS)
    store.open()
    with store.begin() as tx:
        found = FeatureStore(tx.connection)
        view, commit = found.view("m"), found.commit("m", 1)
        assert view is not None
        assert commit is not None
        assert (view.staged, commit.rows, commit.kept_from_us) == (1, 5, None)
        assert found.announce(commit, 0) == 5
    store.close()
    with sqlite3.connect(path) as database:
        assert database.execute("select added_first_us, added_last_us from commits").fetchall() == [(10, 20)]
