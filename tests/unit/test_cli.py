"""The console script: its help is quick, every row of its table leads somewhere, and every command speaks JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from evenkeel.apps.cli.main import COMMANDS, app


def test_help_lists_every_command_and_imports_none() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from evenkeel.apps.cli.main import app;"
        "print(CliRunner().invoke(app, ['--help']).output);"
        "slow = ('evenkeel.contracts', 'evenkeel.services', 'aiokafka', 'numpy');"
        "print(*(name for name in sys.modules if name.startswith(slow)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    *shown, imported = output.splitlines()
    assert imported == ""
    for name, (_, text) in COMMANDS.items():
        assert any(f" {name} " in line for line in shown)
        assert text.split()[0] in output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_row_leads_to_a_command_with_help_and_json(name: str) -> None:
    module, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(import_module(module), attribute)
    result = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    assert isinstance(target, typer.Typer) or "--json" in result.output


def test_errors_for_users_are_one_line_or_one_json_object(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    text = CliRunner().invoke(app, ["reset", "--yes", "--data-dir", str(tmp_path / "mine")])
    assert text.exit_code == 1
    assert text.stderr.startswith("error: ")
    as_json = CliRunner().invoke(app, ["reset", "--yes", "--data-dir", str(tmp_path / "mine"), "--json"])
    assert as_json.exit_code == 1
    assert "nothing was deleted" in json.loads(as_json.stdout)["error"]


def test_an_unknown_command_is_named_with_what_was_meant() -> None:
    result = CliRunner().invoke(app, ["don"])
    assert result.exit_code == 2
    assert "'down'" in result.stderr
