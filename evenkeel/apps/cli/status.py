"""`evenkeel status`: everything that runs, on one screen."""

from __future__ import annotations

import json
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx2
import typer
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from evenkeel.apps.cli.client import ServiceError, address, call
from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.topics import SERVICES

TIMEOUT_SECONDS: Final = 5.0
GAUGES: Final = {
    "evenkeel_consumer_lag_records": "lag",
    "evenkeel_outbox_rows": "outbox",
    "evenkeel_merge_pending_records": "pending",
    "evenkeel_parked_records": "parked",
    "evenkeel_events_dead_lettered_total": "dead_lettered",
}
_ASKED: Final = (
    ("registry", "/v1/models", "models"),
    ("monitor", "/v1/models", "models"),
    ("trainer", "/v1/loops", "loops"),
)


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
    with ThreadPoolExecutor(len(SERVICES) + len(_ASKED)) as pool:
        services = [pool.submit(_service, name, data_dir) for name in SERVICES]
        asked = [pool.submit(_ask, service, path, key, data_dir) for service, path, key in _ASKED]
        told = [answer.result() for answer in asked]
        rows = [service.result() for service in services]
    registry, monitor, loops = ({str(entry.get("model") or entry["name"]): entry for entry in part} for part in told)
    names = sorted({*registry, *monitor, *loops})
    return {"services": rows, "models": [_model(n, registry.get(n), monitor.get(n), loops.get(n)) for n in names]}


def _service(name: str, data_dir: Path) -> dict[str, Any]:
    base = address(name, data_dir)
    row: dict[str, Any] = {"service": name, "url": base, "ready": False, "reason": None}
    try:
        health = httpx2.get(base + "/health/ready", timeout=TIMEOUT_SECONDS)
        metrics = httpx2.get(base + "/metrics", timeout=TIMEOUT_SECONDS).text
        said = health.json()
    except (httpx2.HTTPError, ValueError):
        return row | {"reason": "does not answer"}
    sums: dict[str, float] = defaultdict(float)
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            if sample.name in GAUGES:
                sums[GAUGES[sample.name]] += sample.value
    counts = {shown: int(sums[shown]) for shown in GAUGES.values()}
    return row | {"ready": health.status_code == 200, "reason": said.get("reason")} | counts


def _ask(service: str, path: str, key: str, data_dir: Path) -> list[dict[str, Any]]:
    try:
        answer: list[dict[str, Any]] = call(service, "GET", path, data_dir)[key]
    except ServiceError:
        return []
    return answer


def _model(
    name: str, declared: dict[str, Any] | None, measured: dict[str, Any] | None, loop: dict[str, Any] | None
) -> dict[str, Any]:
    measured, loop = measured or {}, loop or {}
    return {
        "model": name,
        "champion": (declared or {}).get("champion"),
        "event_time": (declared or {}).get("event_time"),
        "loop": {key: loop.get(key) for key in ("state", "by", "since", "reason")},
        "job": loop.get("job"),
        "alerts": [alert for alert in measured.get("alerts", ()) if alert["state"] == "raised"],
        "last_decision": measured.get("last_decision"),
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
        for alert in model["alerts"]:
            console.print(f"  alert {alert['alert']} since {alert['time']}: {alert['detail']}", markup=False)
        if decision is not None:
            verdict = "retrain" if decision["retrain"] else f"no retraining ({decision['reason']})"
            console.print(f"  last decision {decision['as_of']}: {verdict}: {decision['detail']}", markup=False)
    if not found["models"] and any(row["ready"] for row in found["services"]):
        console.print("\nno model is declared: evenkeel apply FILE")
