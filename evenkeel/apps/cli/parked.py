"""`evenkeel parked`: what the ordered handlers could not take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from evenkeel.apps.cli.client import ServiceError, call
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.topics import SERVICES
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
    if as_json:
        for queue in queues:
            print(json.dumps(queue))
    for queue in () if as_json else queues:
        waiting = len(queue["records"]) - 1
        behind = f", {waiting} behind it" if waiting else ""
        print(f"{queue['service']}  {queue['key']}  since {queue['since']}{behind}: {queue['reason']}")
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
    wanted = [queue for queue in queues if everything or queue["key"] in (keys or ())]
    unknown = sorted(set(keys or ()) - {queue["key"] for queue in wanted})
    failed = [f"nothing is parked under {key}" for key in unknown]
    for name, key in dict.fromkeys((queue["service"], queue["key"]) for queue in wanted):
        try:
            released = call(name, "POST", "/v1/parked/release", data_dir, url, json={"key": key})
        except ServiceError as error:
            failed.append(f"{name} {key}: {error}")
            continue
        if as_json:
            print(json.dumps({"service": name, **released}))
        else:
            print(f"{name}  {key}: {released['released']} released")
    failed += [f"not asked: {reason}" for reason in silent]
    if failed:
        raise EvenkeelError("; ".join(failed))
    if not wanted and not as_json:
        print("nothing is parked")


def _parked(data_dir: Path, service: str | None, url: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """Every queue of every service, and why a service could not be asked."""
    queues: list[dict[str, Any]] = []
    silent: list[str] = []
    if service not in (None, *SERVICES):
        raise EvenkeelError(f"there is no service {service}: {', '.join(SERVICES)}")
    if url is not None and service is None:
        raise EvenkeelError("--url is of one service: say which with --service")
    for name in SERVICES if service is None else (service,):
        try:
            answer = call(name, "GET", "/v1/parked", data_dir, url)
        except ServiceError as error:
            silent.append(str(error))
            continue
        queues += [{"service": name, **queue} for queue in answer["parked"]]
    return queues, silent
