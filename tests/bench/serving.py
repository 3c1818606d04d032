"""Single rows over HTTP: logistic regression and 100 boosted trees on 30 features, 32 connections, one worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.clock import HOUR_US
from evenkeel.libs.features import compile_plan
from evenkeel.libs.packages.package import MANIFEST, PackageRef
from evenkeel.libs.process.child import ChildProcess
from evenkeel.libs.process.ports import free_port, free_port_base
from evenkeel.services.trainer.domain.split import TrainingTable
from tests.bench.bench import Bench, Unavailable, cpu_seconds, run_peer, start_peer, start_service, tail
from tests.bench.figures import OURS, Target
from tests.bench.http_load import Load, call, first_answer, load, metrics, request
from tests.makers import champion_changed
from tests.running import eventually, publish_events, write_token
from tests.tiny_packages import START_US, table_of, tiny_package

TITLE: Final = "Single-row inference over HTTP"
CONNECTIONS: Final = 32
SECONDS: Final = 3.0
WARM_UP_SECONDS: Final = 0.7
START_SECONDS: Final = 90.0
FEATURES: Final = tuple(f"f{j}" for j in range(30))
MODELS: Final = {"linear": "logistic", "trees": "boosting"}
METHOD: Final = (
    f"30 features, {CONNECTIONS} keep-alive connections in closed loop, one worker process, {SECONDS:.0f} s a round after a "
    "warm-up; the load generator (`tests/bench/http_load.py`) is the same for all. Evenkeel answers with everything on: "
    "token, validation, tracing, and each prediction committed to the outbox before its answer, then published to a real "
    "broker; the benchmark fails if a prediction is missing in the topic. `/v2 infer` is the very request that MLServer "
    "gets (Open Inference Protocol), `/v1 predict` Evenkeel's own. The peers log nothing and record nothing. FastAPI serves "
    "Evenkeel's ONNX files; MLServer (its models in the server's process) and MLflow serve scikit-learn pipelines."
)
TARGETS: Final = (
    Target("logistic", 10_000),
    Target("boosting", 7_500),
    Target("logistic", 12, "mlserver"),
    Target("logistic", 17, "mlflow"),
    Target("logistic p99", 10, at_most=True),
    Target("first answer after start", 0.8, at_most=True),
    Target("p99 during a swap, of p99 without", 2, at_most=True),
    Target("requests failed during swaps", 0, at_most=True),
)


@dataclass
class Served:
    """A contestant's running servers: what is asked of which port, per model."""

    requests: dict[str, tuple[int, bytes]]
    processes: list[ChildProcess]

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(process.pid) for process in self.processes)


def training_rows() -> TrainingTable:
    random = np.random.default_rng(1)
    rows = random.normal(size=(10_000, len(FEATURES))).astype(np.float32)
    signal = rows[:, :10].sum(axis=1) + rows[:, 10] * rows[:, 11] + random.logistic(size=len(rows))
    time_us = START_US + np.arange(len(rows), dtype=np.int64) * HOUR_US // 20
    return table_of(time_us, time_us + HOUR_US, (signal > 0).astype(float), rows)


class Evenkeel:
    """A broker and the serving service, with the facts that registry would have published."""

    def __init__(self, bench: Bench, table: TrainingTable) -> None:
        self._bench, self._data_dir, self._port = bench, bench.folder / "evenkeel", free_port()
        self._kafka = EmbeddedKafka(self._data_dir, free_port())
        self.token = write_token(self._data_dir, "client")
        stream = StreamSpec.model_validate(
            {
                "topic": "bench.rows",
                "id": "id",
                "time": "at",
                "fields": {name: {"type": "number"} for name in FEATURES},
                "label": {
                    "topic": "bench.labels",
                    "id": "id",
                    "joins": "id",
                    "time": "at",
                    "horizon": "1d",
                    "fields": {"late": {"type": "boolean"}},
                },
            }
        )
        self._spec = ModelSpec.model_validate(
            {"task": "binary", "stream": "rows", "label": "late", "features": [{"fields": FEATURES}]}
        )
        self._streams = {"rows": stream}
        self._view_version = compile_plan(self._spec, self._streams).view_version
        self.packages: dict[str, list[PackageRef]] = {"linear": [], "trees": []}
        for model, estimator, seed in (("linear", "logistic", 0), ("trees", "hist_gradient_boosting", 0)):
            self.packages[model].append(self._package(model, estimator, table, seed))
        rest = table_of(table.event_time_us, table.label_time_us, table.label, table.rows * 2)
        self.packages["linear"].append(self._package("linear", "logistic", rest, 1))

    def _package(self, model: str, estimator: Any, table: TrainingTable, seed: int) -> PackageRef:
        return tiny_package(
            self._data_dir / "artifacts",
            self._data_dir / "keys",
            estimator,
            table=table,
            model=model,
            features=FEATURES,
            view_version=self._view_version,
            seed=seed,
        )

    def onnx(self, model: str) -> tuple[Path, str, int]:
        """File, output and column of a model's score."""
        folder = self._data_dir / self.packages[model][0].uri
        described = orjson.loads((folder / MANIFEST).read_bytes())["onnx"]
        return folder / "model.onnx", described["output"], described["column"]

    async def champion(self, model: str, epoch: int) -> None:
        ref = self.packages[model][(epoch - 1) % len(self.packages[model])]
        changed = champion_changed(ref, model=model, epoch=epoch, view_version=self._view_version, cause_id="bench")
        await publish_events(self._kafka.address, "registry", [(changed, {"time": "2013-03-01T00:00:00Z"})])

    async def start(self) -> Served:
        await asyncio.to_thread(self._kafka.start)
        await create_map_topics(self._kafka.address)
        for model in MODELS:
            fact = ModelDeclared.of(name=model, spec=self._spec, streams=self._streams, view_version=self._view_version)
            await publish_events(self._kafka.address, "registry", [(fact, {"time": "2013-03-01T00:00:00Z"})])
            await self.champion(model, 1)
        process = await self.start_service()
        row = [round(0.1 * j - 1, 3) for j in range(len(FEATURES))]
        bearer = {"authorization": f"Bearer {self.token}"}
        asked: dict[str, tuple[int, bytes]] = {}
        for model in MODELS:
            tensor = {"inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP32", "data": row}]}
            asked[model] = (self._port, request("POST", f"/v2/models/{model}/infer", tensor, **bearer))
            own = {"features": dict(zip(FEATURES, row, strict=True))}
            asked[f"{model} /v1"] = (self._port, request("POST", f"/v1/models/{model}/predict", own, **bearer))
        return Served(asked, [process])

    async def start_service(self) -> ChildProcess:
        return start_service("serving", self._data_dir, self._kafka.address, self._port)

    async def recorded(self, answered: int) -> None:
        """Every answer's prediction is in the topic."""
        name = 'evenkeel_events_published_total{service="serving",topic="serving.prediction-made.v1"}'

        async def complete() -> bool:
            return (await metrics(self._port)).get(name, 0) >= answered

        await eventually(complete, f"{answered} predictions in the topic")
        found = (await metrics(self._port))[name]
        if found != answered:
            raise Unavailable(f"{answered} answers, but {found:.0f} predictions in the topic.")

    def stop(self) -> None:
        self._kafka.stop()


def mlserver(bench: Bench, rows: Path) -> Served:
    python = bench.environment("mlserver")
    folder = bench.folder / "mlserver"
    folder.mkdir()
    run_peer(python, "serving_models.py", bench.folder / "mlserver-fit.log", START_SECONDS, "mlserver", rows, folder)
    base = free_port_base(3)
    settings = {
        "host": "127.0.0.1",
        "http_port": base + 1,
        "grpc_port": base + 2,
        "metrics_port": base + 3,
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_bytes(orjson.dumps(settings))
    process = start_peer([python.with_name("mlserver"), "start", folder], bench.folder / "mlserver.log", folder)
    row = [round(0.1 * j - 1, 3) for j in range(len(FEATURES))]
    tensor = {
        "inputs": [{"name": "features", "shape": [1, 30], "datatype": "FP32", "data": row}],
        "outputs": [{"name": "predict_proba"}],
    }
    asked = {model: (base + 1, request("POST", f"/v2/models/{model}/infer", tensor)) for model in MODELS}
    return Served(asked, [process])


def mlflow(bench: Bench, rows: Path) -> Served:
    python = bench.environment("mlflow")
    folder = bench.folder / "mlflow"
    folder.mkdir()
    run_peer(python, "serving_models.py", bench.folder / "mlflow-fit.log", START_SECONDS, "mlflow", rows, folder)
    row = [round(0.1 * j - 1, 3) for j in range(len(FEATURES))]
    sent = request("POST", "/invocations", {"inputs": [row]})
    served = Served({}, [])
    for model in MODELS:
        port = free_port()
        served.requests[model] = (port, sent)
        arguments = ["-m", folder / model, "--env-manager", "local", "-h", "127.0.0.1", "-p", str(port), "-w", "1"]
        command = [python.with_name("mlflow"), "models", "serve", *arguments]
        path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
        log = bench.folder / f"mlflow-{model}.log"
        served.processes.append(start_peer(command, log, folder, PATH=path, MLFLOW_DISABLE_TELEMETRY="true"))
    return served


def fastapi(bench: Bench, ours: Evenkeel) -> Served:
    python = bench.environment("fastapi-onnxruntime")
    port = free_port()
    models = [str(part) for model in MODELS for part in (model, *ours.onnx(model))]
    command = [python, Path(__file__).with_name("peers") / "serving_fastapi.py", str(port), *models]
    process = start_peer(command, bench.folder / "fastapi-onnxruntime.log", bench.folder)
    row = [round(0.1 * j - 1, 3) for j in range(len(FEATURES))]
    asked = {model: (port, request("POST", f"/{model}", {"features": row})) for model in MODELS}
    return Served(asked, [process])


async def run(bench: Bench) -> None:
    table = training_rows()
    rows = bench.folder / "rows.npz"
    np.savez(rows, rows=table.rows, label=table.label)
    bench.say("training Evenkeel's models")
    ours = Evenkeel(bench, table)
    starts: Mapping[str, Callable[[], Any]] = {
        "fastapi-onnxruntime": lambda: fastapi(bench, ours),
        "mlserver": lambda: mlserver(bench, rows),
        "mlflow": lambda: mlflow(bench, rows),
    }
    served: dict[str, Served] = {}
    async with AsyncExitStack() as stack:
        stack.callback(ours.stop)
        bench.say(f"starting {OURS}")
        served[OURS] = await ours.start()
        stack.callback(_stop, served[OURS])
        await _wait(bench, OURS, served[OURS])
        for name, start in starts.items():

            async def begin(name: str = name, start: Callable[[], Any] = start) -> None:
                bench.say(f"starting {name}")
                found: Served = await asyncio.to_thread(start)
                stack.callback(_stop, found)
                await _wait(bench, name, found)
                served[name] = found

            await bench.attempt(name, begin)
        answered = 2  # the first answers
        for number in range(bench.rounds):
            for name, one in served.items():

                async def measure(name: str = name, one: Served = one, number: int = number) -> None:
                    nonlocal answered
                    for asked in one.requests:
                        found = await _load(bench, name, one, asked, number)
                        answered += found if name == OURS else 0

                await bench.attempt(name, measure)
            answered += await _swap(bench, ours, served[OURS], number)
        await ours.recorded(answered)
        for _ in range(bench.rounds - 1):
            served[OURS].processes[0].stop(10)
            served[OURS].processes[0] = await ours.start_service()
            await _wait(bench, OURS, served[OURS])


def _stop(served: Served) -> None:
    for process in served.processes:
        process.stop(5)


async def _wait(bench: Bench, name: str, served: Served) -> None:
    """Until each model answers; the first one's time counts from the start of the process."""
    for model in MODELS:
        port, sent = served.requests[model]
        took = await first_answer(port, sent, START_SECONDS)
        if took is None:
            try:
                said = str(await call(port, sent))[:200]
            except (OSError, asyncio.IncompleteReadError):
                logs = sorted(bench.folder.glob(f"{name}*.log"))
                said = tail(logs[-1]) if logs else "nothing"
            raise Unavailable(f"{model} gave no answer within {START_SECONDS:.0f} s: {said}")
        if model == "linear":
            bench.record("first answer after start", "s", name, took, less_is_better=True)


async def _load(bench: Bench, name: str, served: Served, asked: str, number: int) -> int:
    port, sent = served.requests[asked]
    warm = await load(port, [sent], WARM_UP_SECONDS, CONNECTIONS)
    before = served.cpu_seconds()
    found = await load(port, [sent], SECONDS, CONNECTIONS)
    spent = served.cpu_seconds() - before
    if found.failed or not found.latencies:
        raise Unavailable(f"{found.failed} requests failed: {found.first_failure}")
    model, _, door = asked.partition(" ")
    what, who = MODELS[model], f"{name} {door}".strip()
    p99_ms = found.percentile(0.99) * 1e3
    bench.record(what, "requests/s", who, found.per_second)
    bench.record(f"{what} p99", "ms", who, p99_ms, less_is_better=True)
    each_us = spent / len(found.latencies) * 1e6
    bench.record(f"{what}, server's CPU", "µs a request", who, each_us, less_is_better=True)
    bench.say(
        f"round {number + 1}: {who} {what} {found.per_second:,.0f}/s, p99 {p99_ms:.1f} ms, {each_us:.0f} µs CPU a request"
    )
    return len(warm.latencies) + len(found.latencies)


async def _swap(bench: Bench, ours: Evenkeel, served: Served, number: int) -> int:
    """Load while the champion changes twice."""
    port, sent = served.requests["linear"]

    async def change() -> None:
        for step in (2, 3):
            await asyncio.sleep(SECONDS / 3)
            await ours.champion("linear", 2 * number + step)

    found: Load
    found, _ = await asyncio.gather(load(port, [sent], SECONDS, CONNECTIONS), change())
    quantity = bench.result.quantity("logistic p99")
    assert quantity is not None
    ratio = found.percentile(0.99) * 1e3 / quantity.values[OURS][-1]
    bench.record("p99 during a swap, of p99 without", "×", OURS, ratio, less_is_better=True)
    bench.record("requests failed during swaps", "", OURS, float(found.failed), less_is_better=True)
    bench.say(f"round {number + 1}: {len(found.latencies):,} requests during two swaps, {found.failed} failed")
    return len(found.latencies) - found.failed
