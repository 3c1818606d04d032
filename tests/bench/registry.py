"""The registry: versions created, and the one that answers asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.keys import signing_key
from evenkeel.libs.packages.package import PackageRef, write_package
from evenkeel.libs.process.ports import free_port
from tests.bench.bench import Bench, Unavailable, start_peer, start_service, tail
from tests.bench.figures import OURS, Target
from tests.bench.http_load import call, first_answer, load, request
from tests.bench.streams import Outlet, broker
from tests.makers import comparison, run_completed
from tests.running import eventually, publish_events, write_token
from tests.tiny_packages import tiny_training

VERSIONS: Final = 100
CONNECTIONS: Final = 8
SECONDS: Final = 3.0
START_SECONDS: Final = 90.0
MODEL: Final = "order-returned"
PEER: Final = "mlflow"
COMPLETED: Final = "trainer.run-completed.v1"
REGISTERED: Final = "registry.version-registered.v1"
AT: Final = "2013-02-01T00:00:00Z"
SMALLEST: Final = Path(__file__).parents[2] / "docs" / "examples" / "smallest.yaml"
TITLE: Final = "Registry"
METHOD: Final = (
    f"Look-up: which version answers, by {CONNECTIONS} keep-alive connections in closed loop (Evenkeel: champion with its "
    f"history; MLflow server on SQLite, one worker: model version by alias). Create: {VERSIONS} versions. MLflow takes "
    f"them over HTTP from the same {CONNECTIONS} connections and stores a row. Evenkeel takes them as the trainer's "
    "events: for each it verifies the signed package and its golden rows, decides the gates and publishes all of that, "
    "counted by the broker's clock from the first run to the last version."
)
TARGETS: Final = (
    Target("look-up", 2_000),
    Target("look-up", 20, PEER),
    Target("create", 10, PEER),
)


class Registry:
    """Our registry with one champion, and packages for the versions to come."""

    def __init__(self, bench: Bench, address: str) -> None:
        self._bench, self._address = bench, address
        self._data_dir, self.port = bench.folder / "evenkeel", free_port()
        token = write_token(self._data_dir, "scientist", "client")
        self._bearer = {"authorization": f"Bearer {token}"}
        self.process = start_service("registry", self._data_dir, address, self.port)
        self._contents: Any = None
        self._view_version = ""

    async def open(self) -> None:
        ready = await first_answer(self.port, request("GET", "/health/ready"), START_SECONDS)
        if ready is None:
            raise Unavailable(f"it did not start: {tail(self._data_dir / 'logs' / 'registry.log')}")
        text = SMALLEST.read_text().encode()
        head = request("POST", "/v1/declarations", **self._bearer).replace(b"-length: 0", b"-length: %d" % len(text))
        status, said = await call(self.port, head + text)
        if status != 200:
            raise Unavailable(f"the declaration was refused: {said.decode()}")
        _, said = await call(self.port, request("GET", f"/v1/models/{MODEL}", **self._bearer))
        self._view_version = orjson.loads(said)["view_version"]
        self._contents = tiny_training(model=MODEL, view_version=self._view_version).contents
        await self._publish([self._package(0)], champion=None)
        self.look_up = request("GET", f"/v1/models/{MODEL}/champion", **self._bearer)

        async def promoted() -> bool:
            _, found = await call(self.port, self.look_up)
            return orjson.loads(found)["champion"] is not None

        await eventually(promoted, "the first champion")

    def _package(self, number: int) -> PackageRef:
        core = self._contents.manifest.model_copy(update={"run_id": f"run-{number}"})
        contents = type(self._contents)(core, *(getattr(self._contents, name) for name in _REST))
        key = signing_key(self._data_dir / "keys", "trainer")
        return write_package(self._data_dir / "artifacts", contents, key, signed_at=AT)

    async def _publish(self, refs: list[PackageRef], champion: str | None) -> None:
        runs = [completed(ref, self._view_version, champion) for ref in refs]
        await publish_events(self._address, "trainer", [(one, {"time": AT}) for one in runs])

    async def create(self, first: int) -> float:
        """Versions a second, from the first run in its topic to the last version in its own."""
        refs = [self._package(number) for number in range(first, first + VERSIONS)]
        runs, versions = Outlet(self._address, COMPLETED), Outlet(self._address, REGISTERED)
        await runs.open()
        await versions.open()
        try:
            await self._publish(refs, refs[0].digest)
            if not await versions.complete(VERSIONS, START_SECONDS, lambda: self.process.is_running):
                raise Unavailable(f"{await versions.count()} of {VERSIONS} versions were registered.")
            return VERSIONS / ((await versions.measure()).last_ms - (await runs.measure()).first_ms) * 1e3
        finally:
            await runs.close()
            await versions.close()


_REST: Final = ("model_onnx", "golden", "profile", "metrics", "linear")


def completed(ref: PackageRef, view_version: str, champion: str | None) -> RunCompleted:
    """A finished run; compared with a champion it is no better, so that it is registered and not promoted."""
    compared = comparison(candidate=0.7, improvement=0.0, improvement_lower=-0.01)
    run_id, scores = f"run-{ref.digest[7:39]}", {"digest": ref.digest, "metrics": {"roc_auc": 0.7}}
    return run_completed(
        ref,
        beats=champion,
        compared=compared,
        model=MODEL,
        run_id=run_id,
        trigger="drift",
        view_version=view_version,
        candidate=scores,
    )


async def mlflow(bench: Bench) -> tuple[Any, int]:
    python = bench.environment(PEER)
    folder, port = bench.folder / PEER, free_port()
    folder.mkdir()
    arguments = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--default-artifact-root", str(folder)]
    arguments += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    path = f"{python.parent}:/usr/local/bin:/usr/bin:/bin"
    log = bench.folder / f"{PEER}.log"
    command = [python.with_name("mlflow"), "server", *arguments]
    process = start_peer(command, log, folder, PATH=path, MLFLOW_DISABLE_TELEMETRY="true")
    try:
        if await first_answer(port, request("GET", "/health"), START_SECONDS) is None:
            raise Unavailable(f"it gave no answer within {START_SECONDS:.0f} s: {tail(log)}")
        api = "/api/2.0/mlflow"
        for path, body in (
            ("registered-models/create", {"name": MODEL}),
            ("model-versions/create", {"name": MODEL, "source": "s3://bench/model"}),
        ):
            await _said(port, request("POST", f"{api}/{path}", body))
        alias = {"name": MODEL, "alias": "champion", "version": "1"}
        await _said(port, request("POST", f"{api}/registered-models/alias", alias))
    except BaseException:
        process.stop(5)
        raise
    return process, port


async def _said(port: int, sent: bytes) -> None:
    status, said = await call(port, sent)
    if status != 200:
        raise Unavailable(f"it answered {status}: {said.decode()[:200]}")


async def run(bench: Bench) -> None:
    async with broker(bench) as address:
        bench.say(f"starting {OURS}")
        ours = Registry(bench, address)
        peer: list[Any] = []
        try:
            await ours.open()

            async def start() -> None:
                bench.say(f"starting {PEER}")
                peer.extend(await mlflow(bench))

            await bench.attempt(PEER, start)
            for number in range(bench.rounds):
                await _look_up(bench, OURS, ours.port, ours.look_up, number)
                created = await ours.create(1 + number * VERSIONS)
                bench.record("create", "versions/s", OURS, created)
                bench.say(f"round {number + 1}: {OURS} {created:.0f} versions/s created")

                async def measure(number: int = number) -> None:
                    port = peer[1]
                    path = f"/api/2.0/mlflow/registered-models/alias?name={MODEL}&alias=champion"
                    await _look_up(bench, PEER, port, request("GET", path), number)
                    body = {"name": MODEL, "source": "s3://bench/model"}
                    sent = [request("POST", "/api/2.0/mlflow/model-versions/create", body)] * VERSIONS
                    found = await load(port, sent, START_SECONDS, CONNECTIONS)
                    if found.failed:
                        raise Unavailable(f"{found.failed} requests failed: {found.first_failure}")
                    bench.record("create", "versions/s", PEER, found.per_second)
                    bench.say(f"round {number + 1}: {PEER} {found.per_second:.0f} versions/s created")

                await bench.attempt(PEER, measure)
        finally:
            ours.process.stop(10)
            if peer:
                peer[0].stop(5)


async def _look_up(bench: Bench, name: str, port: int, sent: bytes, number: int) -> None:
    await load(port, [sent], SECONDS / 4, CONNECTIONS)
    found = await load(port, [sent], SECONDS, CONNECTIONS)
    if found.failed or not found.latencies:
        raise Unavailable(f"{found.failed} requests failed: {found.first_failure}")
    bench.record("look-up", "requests/s", name, found.per_second)
    bench.record("look-up p99", "ms", name, found.percentile(0.99) * 1e3, less_is_better=True)
    bench.say(f"round {number + 1}: {name} {found.per_second:,.0f} look-ups/s")
