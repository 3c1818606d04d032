"""`evenkeel status`: everything that runs, on one screen."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.http.monitor import MonitoredModel
from evenkeel.contracts.http.registry import DeclaredModel
from evenkeel.contracts.http.trainer import Loop
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.client.clients import Client
from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.client.local import addresses_of, token_of

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 20.0
GAUGES: Final = {
    "evenkeel_consumer_lag_records": "lag",
    "evenkeel_outbox_rows": "outbox",
    "evenkeel_merge_pending_records": "pending",
    "evenkeel_parked_records": "parked",
    "evenkeel_events_dead_lettered_total": "dead_lettered",
}


def status(data_dir: DataDir = Path(".evenkeel"), as_json: AsJson = False) -> None:
    """Services with their lag, champions, loops and jobs, alerts, last decisions. Exit code 1 if a service is not ready."""
    found = look(data_dir)
    if as_json:
        print(json.dumps(found))
    else:
        _show(found)
    if not all(service["ready"] for service in found["services"]):
        raise typer.Exit(1)


def look(data_dir: Path) -> dict[str, Any]:
    """What every service tells of itself, and of the models; nothing of a service that does not answer."""
    with _client(data_dir) as client, ThreadPoolExecutor(len(SERVICES) + 3) as pool:
        services = [pool.submit(_service, client, name) for name in SERVICES]
        registry = pool.submit(_told, lambda: client.registry.models().models)
        monitor = pool.submit(_told, lambda: client.monitor.models().models)
        trainer = pool.submit(_told, lambda: client.trainer.loops().loops)
        declared = {model.model: model for model in registry.result()}
        measured = {model.model: model for model in monitor.result()}
        loops = {loop.model: loop for loop in trainer.result()}
        rows = [service.result() for service in services]
    names = sorted({*declared, *measured, *loops})
    models = [_model(name, declared.get(name), measured.get(name), loops.get(name)) for name in names]
    return {"services": rows, "models": models}


def _client(data_dir: Path) -> Client:
    """What is public, a service tells without a token, too."""
    try:
        token: str | None = token_of(data_dir)
    except ServiceError:
        token = None
    return Client(addresses_of(data_dir), token=token, timeout_seconds=TIMEOUT_SECONDS, attempts=1)


def _service(client: Client, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {"service": name, "url": client.urls[name], "ready": False, "reason": None}
    try:
        health, metrics = client.service(name).ready(), client.service(name).metrics()
    except ServiceError:
        return row | {"reason": "does not answer"}
    sums: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in GAUGES:
                sums[GAUGES[sample.name]] += sample.value
    counts = {shown: int(sums[shown]) for shown in GAUGES.values()}
    return row | {"ready": health.status == "ready", "reason": health.reason} | counts


def _told(ask: Callable[[], list[T]]) -> list[T]:
    try:
        return ask()
    except ServiceError:
        return []


def _model(
    name: str, declared: DeclaredModel | None, measured: MonitoredModel | None, loop: Loop | None
) -> dict[str, Any]:
    champion = None if declared is None else declared.champion
    decision = None if measured is None else measured.last_decision
    job = None if loop is None else loop.job
    window = None if measured is None else measured.last_window
    return {
        "model": name,
        "champion": None if champion is None else champion.model_dump(),
        "event_time": None if declared is None else declared.event_time,
        "loop": {key: getattr(loop, key, None) for key in ("state", "by", "since", "reason")},
        "job": None if job is None else job.model_dump(),
        "last_window": None
        if window is None
        else {
            "window_start": window.window_start,
            "window_end": window.window_end,
            "vectors": window.vectors,
            # For want of a champion, of its view, or of a finite score: serving's metrics say which.
            "unscored": max(0, window.vectors - window.predictions),
        },
        "alerts": [
            alert.model_dump() for alert in (() if measured is None else measured.alerts) if alert.state == "raised"
        ],
        "last_decision": None if decision is None else decision.model_dump(),
    }


def _show(found: dict[str, Any]) -> None:
    console = Console(highlight=False)
    shown = ("lag", "outbox", "pending", "parked", "dead_lettered")
    table = Table("service", *(name.replace("_", " ") for name in shown), "state", box=None, header_style="bold")
    for row in found["services"]:
        state = "[green]ready[/green]" if row["ready"] else f"[red]{row['reason']}[/red]"
        table.add_row(row["service"], *(str(row.get(name, "")) for name in shown), state)
    console.print(table)
    for model in found["models"]:
        champion = model["champion"]
        who = "no champion yet" if champion is None else f"version {champion['version']}, epoch {champion['epoch']}"
        console.print(f"\n[bold]{model['model']}[/bold]  {who}  event time {model['event_time'] or 'none yet'}")
        loop, job, decision = model["loop"], model["job"], model["last_decision"]
        if loop["state"] == "paused":
            console.print(f"  loop paused by {loop['by']} since {loop['since']}: {loop['reason']}", markup=False)
        if job is not None:
            console.print(f"  job {job['run_id']} {job['state']}, attempt {job['attempt']}, asked by {job['trigger']}")
        window = model["last_window"]
        if window is not None and window["unscored"]:
            console.print(
                f"  {window['unscored']:,} of {window['vectors']:,} vectors from {window['window_start']} to "
                f"{window['window_end']} were scored by nobody: see evenkeel_vectors_unscored_total of serving"
            )
        for alert in model["alerts"]:
            console.print(f"  alert {alert['alert']} since {alert['time']}: {alert['detail']}", markup=False)
        if decision is not None:
            verdict = "retrain" if decision["retrain"] else f"no retraining ({decision['reason']})"
            console.print(f"  last decision {decision['as_of']}: {verdict}: {decision['detail']}", markup=False)
    if not found["models"] and any(row["ready"] for row in found["services"]):
        console.print("\nno model is declared: evenkeel apply FILE")
