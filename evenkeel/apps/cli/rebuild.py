"""`evenkeel rebuild`: a service's store, made again from the topics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.process.ports import free_port
from evenkeel.libs.process.supervised import running_supervisor


class RebuildFailed(EvenkeelError):
    """The store was not rebuilt; the message says what changed and what to do."""


def rebuild(
    service: Annotated[str, typer.Argument(help="Whose store: " + ", ".join(SERVICES) + ".")],
    data_dir: DataDir = Path(".evenkeel"),
    broker: Annotated[
        str | None, typer.Option(envvar=["BROKER", "EVENKEEL_BROKER"], help="host:port of Kafka.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a store again after it was lost, or after an older copy was restored. The service must not run; the others,
    Kafka and producers may; without an `evenkeel up`, the data folder's own broker runs for so long. What was published is
    not published again; what is there is moved aside, not deleted. Killed on the way, it goes on where it was: run it again,
    or start the service."""
    if service not in SERVICES:
        raise RebuildFailed(f"there is no service {service!r}: name one of {', '.join(SERVICES)}")
    console = Console(stderr=True, quiet=as_json)
    with ExitStack() as stack:
        where = broker or _own_broker(data_dir, stack, console)
        told = _rebuilt(service, data_dir, where, console)
    print(json.dumps(told) if as_json else _sentence(told))


def _own_broker(folder: Path, stack: ExitStack, console: Console) -> str | None:
    """The broker of the `evenkeel up` that runs on the folder, or else one of the folder's own until the stack ends."""
    running = running_supervisor(folder)
    if running is not None:
        return str(running["broker"])
    if not (folder / "kafka").exists():
        return None
    console.print("no evenkeel up runs here: the data folder's broker is started meanwhile", highlight=False)
    return stack.enter_context(EmbeddedKafka(folder, free_port())).address


def _rebuilt(service: str, data_dir: Path, broker: str | None, console: Console) -> dict[str, Any]:
    environment = os.environ | {"EVENKEEL_DATA_DIR": str(data_dir)}
    if broker is not None:
        environment["EVENKEEL_BROKER"] = broker
    environment.pop("BROKER", None)
    told: dict[str, Any] = {}
    command = [sys.executable, "-m", "evenkeel.services", "rebuild", service]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            told |= json.loads(line)
            if "doing" in told:
                console.print(f"{service}: {told.pop('doing')}", highlight=False)
        error = process.stderr.read().strip()
    if process.returncode:
        raise RebuildFailed(error.splitlines()[-1] if error else f"the process ended with {process.returncode}")
    return told


def _sentence(told: dict[str, Any]) -> str:
    aside = f"; what was there is kept as {told['aside']}" if told.get("aside") else ""
    forgotten = f". Not brought back: {told['forgotten']}" if told.get("forgotten") else ""
    return f"{told['service']} is rebuilt, and {told['published']:,} records were published{aside}{forgotten}"
