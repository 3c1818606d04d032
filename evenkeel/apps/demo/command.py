"""`evenkeel demo`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from evenkeel.libs.extras import require_extras


def demo(
    days: Annotated[int, typer.Option(help="Days of the year to replay, 20 to 365.")] = 365,
    data_dir: Annotated[Path, typer.Option(help="Deleted at the start, kept at the end.")] = Path(".evenkeel/demo"),
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end until Ctrl-C.")] = False,
    hold: Annotated[bool, typer.Option(help="Shut the gate while a turn of the loop is open.")] = True,
    port_base: Annotated[
        int, typer.Option(envvar="EVENKEEL_PORT_BASE", help="Services listen on the seven ports above it.")
    ] = 8100,
    broker_port: Annotated[
        int, typer.Option(envvar="EVENKEEL_BROKER_PORT", help="Port of the embedded broker.")
    ] = 9092,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on standard output.")] = False,
) -> None:
    """Carry a year of real flights through the whole loop."""
    has_broker = {"BROKER", "EVENKEEL_BROKER"} & os.environ.keys()
    require_extras("evenkeel demo", "services", *(() if has_broker else ("embedded",)), "demo")
    from evenkeel.apps.demo import run

    summary = run.demo(days, data_dir, keep, hold, port_base, broker_port, as_json)
    if as_json:
        print(json.dumps(summary))
