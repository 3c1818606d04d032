"""`evenkeel loop`: stop and resume retraining."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from evenkeel.apps.cli.client import client_of
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.libs.client.clients import Client
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
    with client_of(data_dir) as client:
        for model in models or _all(client, "running"):
            answer = client.trainer.pause(model, by=by or getpass.getuser(), reason=reason)
            print(answer.model_dump_json() if as_json else f"the loop of {model} is paused")


@app.command()
def resume(
    reason: Reason = "the pause is over",
    models: Models = None,
    by: By = None,
    data_dir: DataDir = Path(".evenkeel"),
    as_json: AsJson = False,
) -> None:
    """Let triggers count again, from the next one on."""
    with client_of(data_dir) as client:
        for model in models or _all(client, "paused"):
            answer = client.trainer.resume(model, by=by or getpass.getuser(), reason=reason)
            print(answer.model_dump_json() if as_json else f"the loop of {model} goes on")


def _all(client: Client, state: str) -> list[str]:
    """Every model whose loop is in this state; raises EvenkeelError if there is none."""
    loops = client.trainer.loops().loops
    found = [loop.model for loop in loops if loop.state == state]
    if not found:
        raise EvenkeelError(f"no loop is {state}" if loops else "no model is declared")
    return found
