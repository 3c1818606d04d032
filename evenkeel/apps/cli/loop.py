"""`evenkeel loop`: stop and resume retraining."""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from evenkeel.apps.cli.client import call
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.libs.errors import EvenkeelError

app = typer.Typer(no_args_is_help=True, add_completion=False)

Models = Annotated[list[str] | None, typer.Argument(help="Which models; all if none is named.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is published and logged.")]
By = Annotated[str | None, typer.Option("--by", help="Who; your login if not given.")]


@app.command()
def pause(
    reason: Reason,
    models: Models = None,
    by: By = None,
    data_dir: DataDir = Path(".evenkeel"),
    as_json: AsJson = False,
) -> None:
    """Answer every trigger with no, and say who paused. Champions go on serving, a running job goes on."""
    for model in _wanted(models, "running", data_dir):
        answer = _change(model, "pause", by, reason, data_dir)
        print(json.dumps(answer) if as_json else f"the loop of {model} is paused")


@app.command()
def resume(
    reason: Reason = "the pause is over",
    models: Models = None,
    by: By = None,
    data_dir: DataDir = Path(".evenkeel"),
    as_json: AsJson = False,
) -> None:
    """Let triggers count again, from the next one on."""
    for model in _wanted(models, "paused", data_dir):
        answer = _change(model, "resume", by, reason, data_dir)
        print(json.dumps(answer) if as_json else f"the loop of {model} goes on")


def _wanted(models: list[str] | None, state: str, data_dir: Path) -> Iterator[str]:
    if models:
        yield from models
        return
    loops = call("trainer", "GET", "/v1/loops", data_dir)["loops"]
    found = [loop["model"] for loop in loops if loop["state"] == state]
    if not found:
        raise EvenkeelError(f"no loop is {state}" if loops else "no model is declared")
    yield from found


def _change(model: str, what: str, by: str | None, reason: str, data_dir: Path) -> dict[str, Any]:
    body = {"by": by or getpass.getuser(), "reason": reason}
    return call("trainer", "POST", f"/v1/models/{model}/{what}", data_dir, json=body)
