"""A data folder or a database of another release's format is refused by name, and nothing in it is touched."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.libs.errors import Stop
from evenkeel.libs.store.format import FILE, FORMAT, claim_folder
from evenkeel.libs.store.sql import SqlStore

EARLIER = """
CREATE TABLE version_runtime (version_num VARCHAR(32) NOT NULL, PRIMARY KEY (version_num));
INSERT INTO version_runtime VALUES ('0004');
CREATE TABLE runtime_meta ("key" TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY ("key"));
INSERT INTO runtime_meta VALUES ('store_id', '28351342bcbf4aafa6ad97ba5d186b0e');
CREATE TABLE streams (name TEXT NOT NULL, spec JSON NOT NULL, PRIMARY KEY (name));
"""
"""What matters of a registry's store as b14bfd8, the last commit without a number, wrote it."""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    with sqlite3.connect(folder / "registry.db") as database:
        database.executescript(EARLIER)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_gets_a_number_and_opens_again(tmp_path: Path) -> None:
    for _ in range(2):
        claim_folder(tmp_path / "new")
        assert content(tmp_path / "new") == {FILE: f"{FORMAT}\n".encode()}


def test_keys_made_beforehand_make_no_folder_old(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    claim_folder(tmp_path)


@pytest.mark.parametrize("store", ["registry.db", "serving.lmdb", "kafka"])
def test_an_earlier_folder_is_refused_and_left_as_it_is(tmp_path: Path, store: str) -> None:
    (tmp_path / store).mkdir()
    with pytest.raises(Stop) as refused:
        claim_folder(tmp_path)
    assert str(refused.value) == (
        f"the data folder {tmp_path} was written by an earlier release (format 1; this one reads {FORMAT}) and is left as "
        "it is: start with another folder (EVENKEEL_DATA_DIR, --data-dir), or move it away"
    )
    assert content(tmp_path) == {}


def test_a_later_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(f"{FORMAT + 1}\n")
    with pytest.raises(Stop, match=f"later release .format {FORMAT + 1}; this one reads {FORMAT}.: start that one"):
        claim_folder(tmp_path)


@pytest.mark.parametrize("verb", [[], ["rebuild"]])
def test_a_service_says_so_in_one_line_and_touches_nothing(earlier: Path, verb: list[str]) -> None:
    before = content(earlier)
    environment = os.environ | {"EVENKEEL_DATA_DIR": str(earlier)}
    command = [sys.executable, "-m", "evenkeel.services", *verb, "registry"]
    ended = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"the data folder {earlier} was written by an earlier release" in line
    assert content(earlier) == before


def test_neither_supervisor_nor_broker_starts_on_it(earlier: Path) -> None:
    before = content(earlier)
    for starting in (Supervisor(earlier), EmbeddedKafka(earlier)):
        with pytest.raises(Stop, match="was written by an earlier release"):
            starting.start()
    assert content(earlier) == before


def test_a_database_without_a_number_is_refused_before_it_is_migrated(earlier: Path) -> None:
    store = SqlStore(f"sqlite:///{earlier}/registry.db", "registry", ())
    with pytest.raises(Stop, match="the store of registry was written by an earlier release .format 1; this one reads"):
        store.open()
    store.close()
    with sqlite3.connect(earlier / "registry.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"version_runtime", "runtime_meta", "streams"}


def test_a_first_start_that_did_not_come_far_is_none_of_another_release(tmp_path: Path) -> None:
    """Killed between the tables and the number."""
    for _ in range(2):
        store = SqlStore(f"sqlite:///{tmp_path}/registry.db", "registry", ())
        store.open()
        with store.begin() as tx:
            tx.connection.exec_driver_sql("DELETE FROM runtime_meta")
        store.close()
