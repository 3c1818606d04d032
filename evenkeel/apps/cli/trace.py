"""`evenkeel trace`: what became of an event, why a prediction is as it is, how a turn of the loop went."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from evenkeel.apps.cli.client import call
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.libs.errors import EvenkeelError


def trace(
    identifier: Annotated[
        str,
        typer.Argument(
            metavar="EVENT|PREDICTION|LOOP",
            help="An event's id (outside or CloudEvents), a prediction's, a run's, or of any fact of a loop's turn.",
        ),
    ],
    model: Annotated[str | None, typer.Option(help="Of an event with several models: only this one.")] = None,
    data_dir: DataDir = Path(".evenkeel"),
    url: Annotated[str | None, typer.Option(help="Governance's address, if it is not this machine's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Follow an event, a prediction or a turn of the loop through the audit log."""
    parameters = {} if model is None else {"model": model}
    path = f"/v1/trace/{quote(identifier, safe='')}"
    found = call("governance", "GET", path, data_dir, url, params=parameters)
    if as_json:
        print(json.dumps(found))
    else:
        print(f"{found['kind']} {identifier}")
        for step in found["steps"]:
            leaf = "" if step["leaf"] is None else f"  leaf {step['leaf']}"
            print(f"{step['time'] or '':<28}{step['what']:<20}{step['summary']}{leaf}")
        for missing in found["missing"]:
            print(f"missing: {missing['what']} {missing['id']}: {missing['why']}")
    if not found["complete"]:
        raise EvenkeelError(f"{len(found['missing'])} links are missing")
