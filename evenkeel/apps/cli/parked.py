"""`evenkeel parked`: what the ordered handlers could not take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from evenkeel.apps.cli.client import client_of
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.http.operations import ParkedKey
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.errors import EvenkeelError

app = typer.Typer(no_args_is_help=True, add_completion=False)

Service = Annotated[str | None, typer.Option(help="Only of this service.")]
Url = Annotated[str | None, typer.Option(help="The service's address, if it is not this machine's.")]


@app.command("list")
def list_parked(
    service: Service = None, url: Url = None, data_dir: DataDir = Path(".evenkeel"), as_json: AsJson = False
) -> None:
    """Parked keys of all services, with what waits behind them."""
    queues, silent = _parked(data_dir, service, url)
    for name, queue in queues:
        if as_json:
            print(json.dumps({"service": name, **queue.model_dump()}))
            continue
        waiting = len(queue.records) - 1
        behind = f", {waiting} behind it" if waiting else ""
        print(f"{name}  {queue.key}  since {queue.since}{behind}: {queue.reason}")
    if not queues and not silent and not as_json:
        print("nothing is parked")
    if silent:
        raise EvenkeelError("not asked: " + "; ".join(silent))


@app.command()
def release(
    keys: Annotated[list[str] | None, typer.Argument(help="As `evenkeel parked list` shows them.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every parked key.")] = False,
    service: Service = None,
    url: Url = None,
    data_dir: DataDir = Path(".evenkeel"),
    as_json: AsJson = False,
) -> None:
    """Fold parked records in their order, at the present watermark. A key that still fails stays parked."""
    if bool(keys) == everything:
        raise EvenkeelError("say which: keys, or --all")
    queues, silent = _parked(data_dir, service, url)
    wanted = dict.fromkeys((name, queue.key) for name, queue in queues if everything or queue.key in (keys or ()))
    unknown = sorted(set(keys or ()) - {key for _, key in wanted})
    failed = [f"nothing is parked under {key}" for key in unknown]
    with client_of(data_dir, {service: url} if service else None) as client:
        for name, key in wanted:
            try:
                released = client.service(name).release(key)
            except ServiceError as error:
                failed.append(f"{name} {key}: {error}")
                continue
            if as_json:
                print(json.dumps({"service": name, **released.model_dump()}))
            else:
                print(f"{name}  {key}: {released.released} released")
    failed += [f"not asked: {reason}" for reason in silent]
    if failed:
        raise EvenkeelError("; ".join(failed))
    if not wanted and not as_json:
        print("nothing is parked")


def _parked(data_dir: Path, service: str | None, url: str | None) -> tuple[list[tuple[str, ParkedKey]], list[str]]:
    """Every queue of every service, and why a service could not be asked."""
    queues: list[tuple[str, ParkedKey]] = []
    silent: list[str] = []
    if service not in (None, *SERVICES):
        raise EvenkeelError(f"there is no service {service}: {', '.join(SERVICES)}")
    if url is not None and service is None:
        raise EvenkeelError("--url is of one service: say which with --service")
    with client_of(data_dir, {service: url} if service else None) as client:
        for name in SERVICES if service is None else (service,):
            try:
                queues += [(name, queue) for queue in client.service(name).parked().parked]
            except ServiceError as error:
                silent.append(str(error))
    return queues, silent
