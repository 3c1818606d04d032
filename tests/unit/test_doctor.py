"""`evenkeel doctor` without anything running: each finding says what to do, and nothing is changed."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from evenkeel.apps.cli.main import app
from evenkeel.libs.keys import signing_key
from evenkeel.libs.process.ports import free_port, free_port_base
from evenkeel.libs.store.sql import SqlStore


def doctor(folder: Path, *options: str, code: int = 0) -> list[dict[str, Any]]:
    where = ("--data-dir", str(folder), "--broker", f"127.0.0.1:{free_port()}", "--json", *options)
    if "--port-base" not in options:
        where += ("--port-base", str(free_port_base()))
    result = CliRunner().invoke(app, ["doctor", *where])
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def wrong(found: list[dict[str, Any]]) -> list[str]:
    return [finding["check"] for finding in found if finding["state"] == "wrong"]


def test_on_a_new_machine_it_says_how_to_start(tmp_path: Path) -> None:
    found = doctor(tmp_path / "none")
    assert wrong(found) == []
    assert all(finding["do"] for finding in found if finding["state"] != "ok")
    assert not (tmp_path / "none").exists()


def test_a_sound_folder_and_then_each_thing_that_is_wrong_with_it(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path / 'registry.db'}", "registry", ())
    store.open()
    store.close()
    signing_key(tmp_path / "keys", "trainer")
    (tmp_path / "keys" / "tokens.json").write_text("{}")
    assert wrong(doctor(tmp_path)) == []
    (tmp_path / "ingest.db").write_bytes(b"this is no database" * 1000)
    assert wrong(doctor(tmp_path, code=1)) == ["stores"]
    (tmp_path / "ingest.db").unlink()
    (tmp_path / "keys" / "trainer.key").unlink()
    (tmp_path / "keys" / "tokens.json").write_text("not json")
    assert wrong(doctor(tmp_path, code=1)) == ["keys"]
    ahead = time.time() + 3600
    os.utime(tmp_path / "registry.db", (ahead, ahead))
    assert "clock" in wrong(doctor(tmp_path, code=1))


def test_a_port_in_use_is_named_with_its_owner(tmp_path: Path) -> None:
    base = free_port_base()
    with socket.create_server(("127.0.0.1", base + 4)):
        (finding,) = (f for f in doctor(tmp_path, "--port-base", str(base), code=1) if f["state"] == "wrong")
    assert finding["check"] == "ports"
    assert f"port {base + 4} for registry is in use by " in finding["detail"]
    assert "EVENKEEL_PORT_BASE" in finding["do"]
