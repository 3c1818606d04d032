"""`evenkeel trace`: what became of an event, why a prediction is as it is, how a turn of the loop went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from evenkeel.apps.cli.client import client_of
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
    with client_of(data_dir, {"governance": url}) as client:
        found = client.governance.trace(identifier, model=model)
    if as_json:
        print(found.model_dump_json())
    else:
        print(f"{found.kind} {identifier}")
        for step in found.steps:
            leaf = "" if step.leaf is None else f"  leaf {step.leaf}"
            print(f"{step.time or '':<28}{step.what:<20}{step.summary}{leaf}")
        for missing in found.missing:
            print(f"missing: {missing.what} {missing.id}: {missing.why}")
    if not found.complete:
        raise EvenkeelError(f"{len(found.missing)} links are missing")
