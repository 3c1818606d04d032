"""Serving killed at every step: each vector's prediction, each swap's receipt and the view as if nothing had happened."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.feature import ViewUpdated
from evenkeel.contracts.ids import label_stream, view_stream
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.contracts.serving import PredictionMade, ReplicaSeen, VersionActivated
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.clock import MINUTE_US, parse_us
from evenkeel.libs.features import FeatureState, compile_plan
from evenkeel.libs.packages.package import PackageRef
from evenkeel.services.serving.service import service
from tests.kills import Copy, same, stories, trial, without_wall_clock
from tests.makers import champion_changed, vector_computed
from tests.running import eventually, publish_events, read_topic
from tests.tiny_packages import tiny_package

pytestmark = pytest.mark.anyio

KILLS = (
    ("score.sent@2", "m0"),
    ("loop.fetched@2", None),
    ("loop.begun@2", None),
    ("swap.verified@2", "m1"),
    ("loop.handled@2", None),
    ("loop.outbox@2", None),
    ("swap.done@3", "m2"),
    ("loop.positions@2", None),
    ("loop.committed@1", "m3"),
    ("publish.sent@6", None),
    ("publish.deleted@4", None),
)
MODELS = ("m0", "m1", "m2", "m3")
VECTORS_EACH = 70
START_US = parse_us("2013-03-01T12:00:00Z")
CARRIERS = ("AA", "UA", "DL")
STREAM = StreamSpec.model_validate(
    {
        "topic": "scheduled",
        "id": "flight_id",
        "time": "scheduled",
        "fields": {"distance": {"type": "number"}, "carrier": {"type": "category", "values": CARRIERS}},
        "label": {
            "topic": "arrived",
            "id": "flight_id",
            "joins": "flight_id",
            "time": "landed",
            "horizon": "2d",
            "fields": {"delay": {"type": "number"}, "carrier": {"type": "category", "values": CARRIERS}},
        },
    }
)
SPEC = ModelSpec.model_validate(
    {
        "task": "binary",
        "stream": "flights",
        "label": "delay > 15",
        "features": [
            {"fields": ["distance"]},
            {"categories": ["carrier"]},
            {"of": "flights.label.delay", "by": ["carrier"], "compute": ["count", "mean"], "over": ["1h"]},
        ],
    }
)
PLAN = compile_plan(SPEC, {"flights": STREAM})
END_US = START_US + len(KILLS) * 40 * MINUTE_US


def promotion(model: str, ref: PackageRef) -> list[Payload]:
    declared = ModelDeclared.of(name=model, spec=SPEC, streams={"flights": STREAM}, view_version=PLAN.view_version)
    changed = champion_changed(ref, model=model, view_version=PLAN.view_version)
    return [declared, changed]


def vectors(number: int) -> list[Payload]:
    return [
        vector_computed(
            model="m0",
            stream="flights",
            event_id=f"e{number}-{n}",
            view_version=PLAN.view_version,
            values=[n * 10.0, n % 3, number, n % 7 - 3.5],
        )
        for n in range(VECTORS_EACH)
    ]


async def test_killed_at_every_step(broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "20")
    monkeypatch.setenv("EVENKEEL_SERVING_REPLICA", "r1")
    seed, live = tmp_path / "seed", FeatureState(PLAN)
    shape: dict[str, Any] = {"view_version": PLAN.view_version, "features": PLAN.names}
    refs = {name: tiny_package(seed / "artifacts", seed / "keys", model=name, **shape) for name in MODELS}
    serving = trial(service, broker, tmp_path, seed=seed)
    (killed,) = serving.killed
    answered: list[str] = []
    for number, (failpoint, model) in enumerate(KILLS):
        at = {"time": format_us(START_US + number * 40 * MINUTE_US)}
        if model is not None:
            await publish_events(broker, "registry", [(one, at) for one in promotion(model, refs[model])])
        watermark_us = START_US + (number + 1) * 40 * MINUTE_US
        slots = [
            (one, at | {"stream": view_stream("m0", PLAN.view_version), "watermark": format_us(watermark_us)})
            for one in view(live, number, watermark_us)
        ]
        await publish_events(broker, "feature", slots)
        await publish_events(broker, "feature", [(one, at | {"stream": "m0"}) for one in vectors(number)])
        await killed.killed(failpoint, partial(ask, answered=answered) if failpoint.startswith("publish") else None)
    wanted = {f"e{number}-{n}" for number in range(len(KILLS)) for n in range(VECTORS_EACH)}
    told = [await told_by(broker, killed, wanted, 1)]
    assert set(answered) <= set(await predictions(broker, "request")), "what was answered is recorded"
    assert answered
    told.append(await told_by(broker, serving.quiet, wanted, 2))
    same(told, "the answers")
    serving.was_killed_at_every_step()
    seen = topic_of(ReplicaSeen, "serving").name
    receipts = list((await stories(service, broker, apart=[seen])).values())
    assert len(receipts) == len(serving.copies)
    same(receipts, "the receipts")
    assert sorted(one.value["model"] for one in receipts[0].values()) == list(MODELS)


def view(live: FeatureState, number: int, watermark_us: int) -> list[Payload]:
    """The slots that forty minutes of labels have changed."""
    for minute in range(40):
        time_us = watermark_us - (40 - minute) * MINUTE_US
        fields = {"carrier": CARRIERS[minute % 3], "delay": 0.5 * minute - number}
        live.fold(label_stream("flights"), time_us, f"l{number}-{minute}", fields)
    return [
        ViewUpdated(view="m0", view_version=PLAN.view_version, slot=slot, tile=list(tile))
        for slot, tile in live.take_changes(watermark_us)
    ]


async def ask(client: AsyncClient, answered: list[str]) -> None:
    answer = await client.serving.predict("m0", event={"carrier": "UA", "distance": 1.0})
    answered.append(answer.prediction_id)


async def told_by(broker: str, copy: Copy, wanted: set[str], times: int) -> Any:
    """What a copy answers once it has scored every vector, which then stands on the topic at least so many times."""
    async with copy.undisturbed() as (up, client):

        async def scored() -> bool:
            made = await predictions(broker, "stream")
            return set(made) == wanted and min(made.values()) >= times

        async def receipted() -> bool:
            store = up.runtime.store_ids[0]
            found = (await stories(service, broker)).get(store, {}).values()
            return sum(one.topic == topic_of(VersionActivated, "serving").name for one in found) == len(MODELS)

        await asyncio.gather(
            eventually(scored, f"{copy.data_dir.name} to score", 60),
            eventually(receipted, f"{copy.data_dir.name} to tell its swaps", 60),
        )
        found = {"models": (await client.serving.models()).model_dump(mode="json")}
        for carrier in CARRIERS:
            for at_us in (END_US, END_US + 20 * MINUTE_US):
                event = {
                    "flight_id": f"f-{carrier}",
                    "carrier": carrier,
                    "distance": 1.5,
                    "scheduled": format_us(at_us),
                }
                answer = await client.serving.predict("m0", event=event)
                found[f"{carrier} {at_us}"] = answer.model_dump(mode="json")
        return without_wall_clock(found)


async def predictions(broker: str, origin: str) -> dict[str, int]:
    """Event id (of a request: prediction id) → how often it was told; each time the same, at the same place."""
    counts: dict[str, int] = {}
    first: dict[str, Any] = {}
    for record in await read_topic(broker, topic_of(PredictionMade, "serving").name):
        if record.value is None:
            continue
        made, headers = PredictionMade.model_validate_json(record.value), dict(record.headers)
        if made.origin != origin:
            continue
        name = made.event_id if origin == "stream" else headers["ce_id"].decode()
        headers.pop("ce_recordedtime")
        whole = (record.partition, record.key, record.value, headers)
        assert first.setdefault(name, whole) == whole, "a repeat has the same identity and says the same"
        counts[name] = counts.get(name, 0) + 1
    return counts
