"""The seven services, running and ready on one broker, with one model that answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contracts.registry import ModelDeclared
from contracts.topics import SERVICES
from contracts.trainer import DatasetVersion, RunCompleted, Scores
from libs.bus.embedded import EmbeddedKafka
from libs.features import compile_plan
from libs.http import ROLES
from libs.testing import Running, eventually, publish_events, read_events, running, write_token
from tests.tiny_packages import tiny_package

MODEL, STREAM = "order-returned", "orders"
DECLARATION = """\
streams:
  orders:
    topic: shop.orders
    id: order_id
    time: ordered_at
    fields:
      customer: {type: string}
      channel: {type: category, values: [web, store], required: true}
      amount: {type: number, min: 0, max: 100000}
      items: {type: integer}
      gift: {type: boolean}
      promised: {type: time}
    label:
      topic: shop.returns
      id: return_id
      joins: order_id
      time: decided_at
      horizon: 3d
      fields:
        returned: {type: boolean, required: true}
models:
  order-returned:
    task: binary
    stream: orders
    label: returned
    features:
      - fields: [amount]
      - {of: orders.amount, by: [customer], compute: [count, mean, max], over: [24h]}
"""
AT = "2013-02-01T00:00:00Z"


@dataclass
class System:
    """What a stranger can reach."""

    broker: str
    folder: Path
    services: dict[str, Running] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    """Role → a token that has it and no other."""

    @property
    def everything(self) -> str:
        return self.tokens["all"]

    def client(self, service: str, token: str | None = None, **more: Any) -> httpx2.AsyncClient:
        headers = {"Authorization": f"Bearer {token or self.everything}"}
        return httpx2.AsyncClient(base_url=self.services[service].url, headers=headers, timeout=30, **more)

    async def get(self, service: str, path: str) -> Any:
        async with self.client(service) as http:
            answer = await http.get(path)
            assert answer.status_code == 200, (path, answer.text)
            return answer.json()

    async def count(self, payload: type[Any], wanted: Callable[[Any], bool] = lambda event: True) -> int:
        return sum(1 for event in await read_events(self.broker, payload) if wanted(event))


@pytest.fixture(scope="module")
async def system(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    found = System(kafka.address, tmp_path_factory.mktemp("system"))
    found.tokens = {role: write_token(found.folder, role) for role in ROLES}
    found.tokens["all"] = write_token(found.folder, *ROLES)
    async with AsyncExitStack() as stack:
        for name in SERVICES:
            service = import_module(f"services.{name}.service").service
            found.services[name] = await stack.enter_async_context(
                running(service, found.broker, found.folder, http=True)
            )
        await _declare(found)
        await _promote(found)
        yield found


async def _declare(system: System) -> None:
    async with system.client("registry") as http:
        applied = await http.post("/v1/declarations", content=DECLARATION)
        assert applied.status_code == 200, applied.text

    async def known() -> bool:
        streams = await system.get("ingest", "/v1/streams")
        models = await system.get("monitor", "/v1/models")
        return bool(streams and models["models"]) and len(system.services["ingest"].runtime.context.partitions) == 2

    await eventually(known, "the declaration to be known")


async def _promote(system: System) -> None:
    (declared,) = [e.data for e in await read_events(system.broker, ModelDeclared)]
    names = compile_plan(declared.spec, declared.streams).names
    fields = {"model": MODEL, "view_version": declared.view_version, "features": names}
    ref = tiny_package(system.folder / "artifacts", system.folder / "keys", **fields)
    run = RunCompleted(
        model=MODEL,
        run_id="run-1",
        trigger="first_data",
        package=ref.digest,
        package_uri=ref.uri,
        package_bytes=ref.size_bytes,
        view_version=declared.view_version,
        declaration=0,
        estimator="logistic",
        parameters={},
        threshold=0.5,
        dataset=DatasetVersion(uri=f"tables/{MODEL}", version=1, rows=1000, label_cut=AT),
        training_rows=800,
        evaluation_rows=900,
        candidate=Scores(digest=ref.digest, metrics={"roc_auc": 0.8}),
        golden_rows=10,
        golden_matched=True,
        code_commit="test",
        seed=1,
        duration_seconds=1.0,
    )
    await publish_events(system.broker, "trainer", [(run, {"time": AT})])

    async def answers() -> bool:
        (model,) = (await system.get("serving", "/v1/models"))["models"]
        return model["champion"] is not None

    await eventually(answers, "the champion")
