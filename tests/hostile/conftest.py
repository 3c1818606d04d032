"""The seven services, running and ready on one broker, with one model that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx2
import pytest

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.envelope import Event, attributes_of, format_us, parse_us
from evenkeel.contracts.http.route import ROLES
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.contracts.serving import PredictionMade
from evenkeel.contracts.topics import SERVICES, topics_carrying
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.clock import MINUTE_US, SECOND_US
from evenkeel.libs.features import read_model
from evenkeel.libs.packages.package import PackageRef
from evenkeel.libs.process.ports import free_port
from evenkeel.services.serving.settings import ServingSettings
from tests.hostile.catalogue import MODEL, NOW, STREAM, order
from tests.makers import run_completed
from tests.running import Running, eventually, publish_events, read_events, read_topic, running, write_token
from tests.tiny_packages import tiny_package

DECLARATION = """\
streams:
  orders:
    topic: shop.orders
    id: order_id
    time: ordered_at
    lateness: 1d
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
    orders: int = 0

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

    async def state(self) -> dict[str, Any]:
        """What anybody could see of it."""
        asked = {
            "ingest": ["/v1/streams"],
            "registry": ["/v1/streams", "/v1/models", f"/v1/models/{MODEL}/versions", f"/v1/models/{MODEL}/champion"],
            "trainer": [f"/v1/models/{MODEL}/runs", f"/v1/models/{MODEL}/datasets"],
            "feature": [f"/v1/views/{MODEL}", f"/v1/datasets/{MODEL}"],
            "serving": ["/v1/models", f"/v2/models/{MODEL}"],
            "monitor": ["/v1/models", f"/v1/models/{MODEL}/windows"],
            "governance": [f"/v1/models/{MODEL}/history"],
        }
        return {f"{name}{path}": await self.get(name, path) for name, paths in asked.items() for path in paths}

    async def at_rest(self) -> dict[str, Any]:
        """The state once nothing moves."""
        before = await self.state()

        async def same() -> dict[str, Any] | None:
            nonlocal before
            before, after = (now := await self.state()), before
            return now if now == after else None

        return await eventually(same, "the system to be at rest")

    async def good(self) -> str:
        """A good order becomes a prediction, whatever came before it; its id."""
        self.orders += 1
        at = format_us(parse_us(NOW) + self.orders * MINUTE_US)
        event_id = f"good-{self.orders}"
        async with self.client("ingest") as http:
            sent = await http.post(f"/v1/streams/{STREAM}/events", json=order(event_id, ordered_at=at))
            assert sent.status_code == 202, sent.text
            later = format_us(parse_us(at) + SECOND_US)
            for kind in ("event", "label"):
                beat = await http.post(f"/v1/streams/{STREAM}/heartbeat", json={"time": later, "kind": kind})
                assert beat.status_code == 202, beat.text

        async def predicted() -> bool:
            return any(e.data.event_id == event_id for e in await self.events(PredictionMade))

        await eventually(predicted, f"a prediction for {event_id}")
        for name in self.services:
            await self.get(name, "/health/ready")
        return event_id

    async def events(self, payload: type[Payload], topic: str | None = None) -> list[Event[Any]]:
        """The events of a topic that are ones; what strangers wrote is left out."""
        name = topic or topics_carrying(payload)[0].name
        found = []
        for record in await read_topic(self.broker, name):
            try:
                attributes = attributes_of(record.headers)
                data = payload.model_validate_json(record.value or b"")
            except ValueError:
                continue
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            found.append(Event(data, event_id, time_us, name, record.partition, record.offset, attributes))
        return found


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """One broker for the tests of a file."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker"), free_port()) as broker:
        asyncio.run(create_map_topics(broker.address))
        yield broker


@pytest.fixture(scope="module")
async def system(kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[System]:
    found = System(kafka.address, tmp_path_factory.mktemp("system"))
    found.tokens = {role: write_token(found.folder, role) for role in ROLES}
    found.tokens["all"] = write_token(found.folder, *ROLES)
    async with AsyncExitStack() as stack:
        for name in SERVICES:
            service = import_module(f"evenkeel.services.{name}.service").service
            own = ServingSettings(max_rows=3) if name == "serving" else None
            started = running(service, found.broker, found.folder, own, http=True)
            found.services[name] = await stack.enter_async_context(started)
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
        return (
            bool(streams["streams"] and models["models"])
            and len(system.services["ingest"].runtime.context.partitions) == 2
        )

    await eventually(known, "the declaration to be known")


async def _promote(system: System) -> None:
    (declared,) = [e.data for e in await read_events(system.broker, ModelDeclared)]
    names = read_model(declared.name, declared.spec, declared.streams).plan.names
    fields = {"model": MODEL, "view_version": declared.view_version, "features": names}
    ref = tiny_package(system.folder / "artifacts", system.folder / "keys", **fields)
    run = run_of(ref, declared.view_version, "run-1")
    await publish_events(system.broker, "trainer", [(run, {"time": AT})])

    async def answers() -> bool:
        (model,) = (await system.get("serving", "/v1/models"))["models"]
        return model["champion"] is not None

    await eventually(answers, "the champion")


def run_of(ref: PackageRef, view_version: str, run_id: str) -> RunCompleted:
    return run_completed(ref, model=MODEL, run_id=run_id, view_version=view_version, threshold=0.5)
