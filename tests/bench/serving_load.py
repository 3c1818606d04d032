"""What serving costs: `python -m tests.bench.serving_load [--seconds 5] [--connections 32]`.

Starts a broker and one serving process of its own in a temporary folder, then measures requests per second with p50 and
p99 from outside (raw sockets), and the process's own CPU time per request, vector and view slot: the CPU figures hold on
a busy machine, the others only on a quiet one.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.feature import ViewUpdated
from evenkeel.contracts.ids import label_stream, view_stream
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.clock import MINUTE_US, parse_us
from evenkeel.libs.features import FeaturePlan, FeatureState, compile_plan
from evenkeel.libs.process.ports import free_port
from tests.bench.bench import cpu_seconds, start_service
from tests.bench.http_load import first_answer, load, metrics, request
from tests.makers import champion_changed, vector_computed
from tests.running import publish_events, write_token
from tests.tiny_packages import tiny_package

NOON: Final = "2013-03-01T12:00:00Z"
CARRIERS: Final = [f"C{number}" for number in range(2_000)]
STREAM: Final = StreamSpec.model_validate(
    {
        "topic": "bench.scheduled",
        "id": "flight_id",
        "time": "scheduled",
        "fields": {"distance": {"type": "number"}, "carrier": {"type": "category", "values": CARRIERS}},
        "label": {
            "topic": "bench.arrived",
            "id": "flight_id",
            "joins": "flight_id",
            "time": "landed",
            "horizon": "2d",
            "fields": {"delay": {"type": "number"}, "carrier": {"type": "category", "values": CARRIERS}},
        },
    }
)


def declared(model: str) -> tuple[ModelDeclared, FeaturePlan]:
    spec = ModelSpec.model_validate(
        {
            "task": "binary",
            "stream": "bench",
            "label": "delay > 15",
            "features": [
                {"fields": ["distance"]},
                {"categories": ["carrier"]},
                {"of": "bench.label.delay", "by": ["carrier"], "compute": ["count", "mean"], "over": ["1h"]},
            ],
        }
    )
    plan = compile_plan(spec, {"bench": STREAM})
    return ModelDeclared.of(name=model, spec=spec, streams={"bench": STREAM}, view_version=plan.view_version), plan


async def measure_load(name: str, port: int, pid: int, sent: bytes, seconds: float, connections: int) -> None:
    await load(port, [sent], 0.5, connections)
    before = cpu_seconds(pid)
    found = await load(port, [sent], seconds, connections)
    each_us = (cpu_seconds(pid) - before) / len(found.latencies) * 1e6
    p50, p99 = (found.percentile(share) * 1e3 for share in (0.5, 0.99))
    print(
        f"{name:32} {found.per_second:8.0f} req/s   p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   "
        f"CPU {each_us:6.0f} µs/request   failed {found.failed} {found.first_failure}"
    )


async def stream(
    name: str, port: int, pid: int, count: int, metric_name: str, publish: Callable[[], Awaitable[None]]
) -> None:
    goal = (await metrics(port)).get(metric_name, 0) + count
    before, started = cpu_seconds(pid), time.perf_counter()
    await publish()
    while (await metrics(port)).get(metric_name, 0) < goal:
        await asyncio.sleep(0.1)
    spent, took = cpu_seconds(pid) - before, time.perf_counter() - started
    print(f"{name:32} {count / took:8.0f} /s (publishing included)   CPU {spent / count * 1e6:6.1f} µs each")


async def measure(broker: str, folder: Path, seconds: float, connections: int) -> None:
    await create_map_topics(broker)
    token = write_token(folder, "client")
    facts: list[Any] = []
    for model, estimator in (("linear", "logistic"), ("trees", "hist_gradient_boosting")):
        fact, plan = declared(model)
        changes = {"model": model, "view_version": plan.view_version, "features": plan.names}
        ref = tiny_package(folder / "artifacts", folder / "keys", estimator, **changes)  # type: ignore[arg-type]
        champion = champion_changed(ref, model=model, view_version=plan.view_version)
        facts += [fact, champion]
    await publish_events(broker, "registry", [(fact, {"time": NOON}) for fact in facts])
    port = free_port()
    process = start_service("serving", folder, broker, port)
    try:
        given = dict(zip(plan.names, (100.0, 3.0, 5.0, 7.5), strict=True))
        bearer = {"authorization": f"Bearer {token}"}
        one = request("POST", "/v1/models/linear/predict", {"features": given}, **bearer)
        took = await first_answer(port, one, 60.0)
        assert took is not None, (folder / "logs" / "serving.log").read_text()
        print(f"{'first answer':32} {took:8.2f} s after start, CPU {cpu_seconds(process.pid):.2f} s")
        tensor = [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": list(given.values())}]
        event = {"event": {"distance": 100.0, "carrier": "C7"}}
        calls = {
            "predict, logistic": one,
            "predict, boosting": request("POST", "/v1/models/trees/predict", {"features": given}, **bearer),
            "infer v2, logistic": request("POST", "/v2/models/linear/infer", {"inputs": tensor}, **bearer),
            "predict by keys, logistic": request("POST", "/v1/models/linear/predict", event, **bearer),
        }
        state, noon_us = FeatureState(plan), parse_us(NOON)
        for minute in range(10):
            for carrier in CARRIERS:
                time_us = noon_us + minute * MINUTE_US
                state.fold(label_stream("bench"), time_us, f"{carrier}-{minute}", {"carrier": carrier, "delay": 1.25})
        updates = state.take_changes(noon_us + 10 * MINUTE_US)
        slots = [
            (
                ViewUpdated(view="linear", view_version=plan.view_version, slot=slot, tile=list(tile)),
                {"time": NOON, "stream": view_stream("linear", plan.view_version), "watermark": format_us(noon_us)},
            )
            for slot, tile in updates
        ]
        await stream(
            "view slots",
            port,
            process.pid,
            len(slots),
            "evenkeel_view_slots_applied_total",
            lambda: publish_events(broker, "feature", slots),
        )
        for name, sent in calls.items():
            await measure_load(name, port, process.pid, sent, seconds, connections)
        published = 'evenkeel_events_published_total{service="serving",topic="serving.prediction-made.v1"}'
        for model in ("linear", "trees"):
            vectors = [
                (
                    vector_computed(
                        model=model,
                        stream="bench",
                        event_id=f"{model}-{number}",
                        view_version=plan.view_version,
                        values=[100.0, None, 5.0, number / 7],
                    ),
                    {"time": NOON, "stream": model},
                )
                for number in range(20_000)
            ]
            await stream(
                f"vectors, {model}",
                port,
                process.pid,
                len(vectors),
                published,
                lambda vectors=vectors: publish_events(broker, "feature", vectors),  # type: ignore[misc]
            )
    finally:
        process.stop(10)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--connections", type=int, default=32)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedKafka(Path(folder) / "broker", free_port()) as kafka:
        asyncio.run(measure(kafka.address, Path(folder), arguments.seconds, arguments.connections))


if __name__ == "__main__":
    main()
