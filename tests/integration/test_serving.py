"""Serving against a real broker: vectors scored, champions swapped, requests answered and recorded."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.feature import VectorComputed, ViewUpdated
from evenkeel.contracts.governance import SubjectErased
from evenkeel.contracts.ids import label_stream, view_stream
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared, RollbackTarget
from evenkeel.contracts.serving import ActivationFailed, PredictionMade, ReplicaSeen, VersionActivated
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.clock import HOUR_US, MINUTE_US, parse_us
from evenkeel.libs.features import FeaturePlan, FeatureState, compile_plan
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.packages.package import PackageRef, read_package
from evenkeel.libs.packages.scorer import Scorer
from evenkeel.libs.service import Cause, Derived
from evenkeel.services.serving.service import service
from evenkeel.services.serving.settings import ServingSettings
from evenkeel.services.serving.store import ServingStore
from tests.running import Running, eventually, publish_events, read_events, read_topic, running, write_token
from tests.tiny_packages import tiny_package

pytestmark = pytest.mark.anyio

NOON_US = parse_us("2013-03-01T12:00:00Z")
NOON = format_us(NOON_US)
CARRIERS = ["AA", "UA", "DL"]


@dataclass(frozen=True)
class World:
    """One model, declared, with packages in a data folder of its own."""

    broker: str
    folder: Path
    model: str
    stream: StreamSpec
    plan: FeaturePlan
    headers: dict[str, str]

    def package(self, estimator: Any = "logistic", **changes: Any) -> PackageRef:
        """Trained on four columns that are named after this model's features."""
        fields = {"model": self.model, "view_version": self.plan.view_version, "features": self.plan.names}
        return tiny_package(self.folder / "artifacts", self.folder / "keys", estimator, **fields | changes)

    def scorer(self, ref: PackageRef) -> Scorer:
        return Scorer(read_package(self.folder / "artifacts", ref.digest, verification_keys(self.folder / "keys")))

    async def publish(self, source: str, *payloads: Payload, **meta: Any) -> None:
        """`meta` for all of them; `stream` unless it is the view's."""
        meta = {"time": NOON, "stream": view_stream(self.model, self.plan.view_version)} | meta
        await publish_events(self.broker, source, [(payload, meta) for payload in payloads])

    async def promote(self, epoch: int, ref: PackageRef, **changes: Any) -> None:
        fields: dict[str, Any] = {
            "model": self.model,
            "epoch": epoch,
            "version": epoch,
            "package": ref.digest,
            "package_uri": ref.uri,
            "view_version": self.plan.view_version,
            "threshold": 0.5,
            "cause": "promotion",
            "cause_id": f"gates-{epoch}",
        }
        await self.publish("registry", ChampionChanged(**fields | changes))

    def vector(self, event_id: str, values: Sequence[float | None], **changes: Any) -> VectorComputed:
        fields: dict[str, Any] = {
            "model": self.model,
            "stream": self.model + "-flights",
            "event_id": event_id,
            "view_version": self.plan.view_version,
            "declaration": 0,
            "values": list(values),
        }
        return VectorComputed(**fields | changes)

    async def of(self, payload: type[Any]) -> list[Event[Any]]:
        return [event for event in await read_events(self.broker, payload) if event.data.model == self.model]

    async def wait(self, payload: type[Any], count: int, *, may_repeat: bool = False) -> list[Event[Any]]:
        """`may_repeat`: the broker was away, after which the wire may carry a record twice."""

        async def enough() -> list[Event[Any]] | None:
            found = await self.of(payload)
            if may_repeat:
                found = list({event.id: event for event in found}.values())
            return found if len(found) >= count else None

        found = await eventually(enough, f"{count} {payload.__name__} of {self.model}")
        assert len(found) == count
        return found

    @asynccontextmanager
    async def serving(self, **own: Any) -> AsyncIterator[tuple[Running, httpx2.AsyncClient]]:
        settings = ServingSettings(replica=own.pop("replica", "r1"), **own)
        async with (
            running(service, self.broker, self.folder, settings, http=True) as up,
            httpx2.AsyncClient(base_url=up.url, headers=self.headers, timeout=20) as client,
        ):
            yield up, client

    async def active(self, client: httpx2.AsyncClient, epoch: int) -> dict[str, Any]:
        async def check() -> dict[str, Any] | None:
            for one in (await client.get("/v1/models")).json()["models"]:
                if one["model"] == self.model and one["champion"] and one["champion"]["epoch"] == epoch:
                    champion: dict[str, Any] = one["champion"]
                    return champion
            return None

        return await eventually(check, f"epoch {epoch} of {self.model}")

    async def ends(self) -> dict[str, int]:
        """Partition → end of the view's topic."""
        ends: dict[str, int] = {}
        for record in await read_topic(self.broker, topic_of(ViewUpdated, "feature").name):
            ends[str(record.partition)] = record.offset + 1
        return ends

    async def view_is_read(self, up: Running) -> None:
        ends = await self.ends()

        async def read() -> bool:
            found = up.runtime.context.views.complete((self.model, self.plan.view_version), {}, None)
            return found is not None and found.position == ends

        await eventually(read, f"the view at {ends}")

    async def predict(self, client: httpx2.AsyncClient, **body: Any) -> dict[str, Any]:
        answer = await client.post(f"/v1/models/{self.model}/predict", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@pytest.fixture
async def world(broker: str, tmp_path: Path, request: pytest.FixtureRequest) -> World:
    model = request.node.name.removeprefix("test_").replace("_", "-")[:40]
    stream = StreamSpec.model_validate(
        {
            "topic": f"{model}.scheduled",
            "id": "flight_id",
            "time": "scheduled",
            "fields": {
                "distance": {"type": "number", "min": 0, "max": 20_000, "required": True},
                "carrier": {"type": "category", "values": CARRIERS, "required": True},
            },
            "label": {
                "topic": f"{model}.arrived",
                "id": "flight_id",
                "joins": "flight_id",
                "time": "landed",
                "horizon": "2d",
                "fields": {"delay": {"type": "number"}, "carrier": {"type": "category", "values": CARRIERS}},
            },
        }
    )
    name = f"{model}-flights"
    spec = ModelSpec.model_validate(
        {
            "task": "binary",
            "stream": name,
            "label": "delay > 15",
            "features": [
                {"fields": ["distance"]},
                {"categories": ["carrier"]},
                {"of": f"{name}.label.delay", "by": ["carrier"], "compute": ["count", "mean"], "over": ["1h"]},
            ],
        }
    )
    plan = compile_plan(spec, {name: stream})
    headers = {"authorization": f"Bearer {write_token(tmp_path, 'client')}"}
    world = World(broker, tmp_path, model, stream, plan, headers)
    declared = ModelDeclared.of(name=model, spec=spec, streams={name: stream}, view_version=plan.view_version)
    await world.publish("registry", declared)
    return world


def features(world: World, *values: float | None) -> dict[str, float | None]:
    return dict(zip(world.plan.names, values, strict=True))


async def test_a_vector_becomes_a_prediction(world: World) -> None:
    ref = world.package()
    await world.promote(1, ref)
    rows: list[list[float | None]] = [[1.0, 2.0, None, 4.0], [-3.5, 0.0, 1.5, 2.0]]
    async with world.serving() as (up, client):
        await world.active(client, 1)
        await world.publish(
            "feature",
            *(world.vector(f"e{number}", row) for number, row in enumerate(rows)),
            world.vector("other", rows[0], view_version="another"),
            world.vector("short", [1.0]),
            stream=view_stream(world.model, world.plan.view_version),
        )
        made = await world.wait(PredictionMade, 2)
        unscored = up.runtime.context.metrics.unscored
        assert unscored.labels("view_version")._value.get() == 2
    expected = world.scorer(ref).predict(np.array(rows, np.float32))
    vectors = {event.data.event_id: event for event in await world.of(VectorComputed)}
    for event in made:
        data, vector = event.data, vectors[event.data.event_id]
        assert data.score == expected[int(data.event_id[1:])]
        assert data.decision == (data.score >= 0.5)
        assert (data.version, data.epoch, data.package, data.origin) == (1, 1, ref.digest, "stream")
        assert (data.vector_id, data.values, event.causation_id) == (vector.id, None, vector.id)
        assert (event.stream, event.time_us) == (view_stream(world.model, world.plan.view_version), vector.time_us)


async def test_a_swap_is_receipted_once_and_a_rollback_needs_no_loading(world: World) -> None:
    first, second = world.package(), world.package("hist_gradient_boosting")
    given = features(world, 100.0, 1.0, 3.0, 5.0)
    row = np.array([[100.0, 1.0, 3.0, 5.0]], np.float32)
    async with world.serving() as (_, client):
        waiting = await client.post(f"/v1/models/{world.model}/predict", json={"features": given})
        assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "1")
        for epoch, version, ref in ((1, 1, first), (2, 2, second), (3, 1, first)):
            await world.promote(epoch, ref, version=version, cause="rollback" if epoch == 3 else "promotion")
            champion = await world.active(client, epoch)
            assert (champion["version"], champion["package"]) == (version, ref.digest)
            answer = await world.predict(client, features=given)
            assert (answer["version"], answer["epoch"]) == (version, epoch)
            assert answer["score"] == world.scorer(ref).predict(row)[0]
        await world.promote(2, second)
        receipts = await world.wait(VersionActivated, 3)
    assert [(r.data.epoch, r.data.version, r.data.package) for r in receipts] == [
        (1, 1, first.digest),
        (2, 2, second.digest),
        (3, 1, first.digest),
    ]
    assert {r.data.replica for r in receipts} == {"r1"}
    causes = {event.data.epoch: event.id for event in (await world.of(ChampionChanged))[:3]}
    assert [r.causation_id for r in receipts] == [causes[1], causes[2], causes[3]]
    async with world.serving() as (_, client):
        await world.active(client, 3)
        assert (await world.predict(client, features=given))["epoch"] == 3
    assert len(await world.of(VersionActivated)) == 3
    assert not await world.of(ActivationFailed)


async def test_a_package_that_was_tampered_with_is_refused_while_the_old_one_answers(world: World) -> None:
    good = world.package()
    bad = world.package("hist_gradient_boosting")
    other_view = world.package(view_version="another")
    model = world.folder / bad.uri / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(bytes(content))
    missing = PackageRef("sha256:" + "0" * 64, "artifacts/sha256/" + "0" * 64, 1)
    unsigned = world.package(run_id="unsigned")
    (world.folder / unsigned.uri / "signature.json").unlink()
    given = features(world, 100.0, 1.0, 3.0, 5.0)
    async with world.serving() as (_, client):
        await world.promote(1, good)
        await world.active(client, 1)
        for epoch, ref in enumerate((bad, missing, unsigned, other_view), 2):
            await world.promote(epoch, ref)
            failures = await world.wait(ActivationFailed, epoch - 1)
            assert (await world.predict(client, features=given))["epoch"] == 1
        assert [failure.data.reason for failure in failures] == ["digest", "not_found", "signature", "view_version"]
        assert [failure.data.epoch for failure in failures] == [2, 3, 4, 5]
        await world.promote(6, good)
        await world.active(client, 6)


async def test_a_failed_champion_is_tried_again(world: World) -> None:
    ref = world.package()
    aside = world.folder / "aside"
    (world.folder / ref.uri).rename(aside)
    await world.promote(1, ref)
    async with world.serving(retry_seconds=0.05) as (_, client):
        await world.wait(ActivationFailed, 1)
        aside.rename(world.folder / ref.uri)
        await world.active(client, 1)
        await world.wait(VersionActivated, 1)
    assert len(await world.of(ActivationFailed)) == 1


async def test_only_the_named_rollback_target_answers_if_nothing_else_can(world: World) -> None:
    good = world.package()
    missing = PackageRef("sha256:" + "0" * 64, "artifacts/sha256/" + "0" * 64, 1)
    target = RollbackTarget(version=1, package=good.digest, package_uri=good.uri, threshold=0.25)
    await world.promote(2, missing, rollback_target=target, previous_version=1)
    async with world.serving() as (_, client):
        champion = await world.active(client, 2)
        assert (champion["version"], champion["is_fallback"], champion["threshold"]) == (1, True, 0.25)
        (failure,) = await world.wait(ActivationFailed, 1)
        assert "version 1, answers instead" in failure.data.detail
        assert not await world.of(VersionActivated)


async def test_live_and_request_time_vectors_are_the_same_at_the_same_position(world: World) -> None:
    ref = world.package()
    await world.promote(1, ref)
    live = FeatureState(world.plan)
    async with world.serving() as (up, client):
        await world.active(client, 1)
        expected: dict[str, list[float]] = {}
        for step in range(6):
            watermark_us = NOON_US + step * 17 * MINUTE_US
            for number in range(40):
                # The newest is half an hour old: what is in the window depends on the time it is read at.
                record, time_us = {"carrier": CARRIERS[number % 3], "delay": 0.1 * number - step}, watermark_us
                time_us -= (30 + number) * MINUTE_US
                live.fold(label_stream(world.plan.stream), time_us, f"l{step}-{number}", record)
            updates = live.take_changes(watermark_us)
            await world.publish(
                "feature",
                *(
                    ViewUpdated(view=world.model, view_version=world.plan.view_version, slot=slot, tile=list(tile))
                    for slot, tile in updates
                ),
                watermark=format_us(watermark_us),
            )
            await world.view_is_read(up)
            for carrier in CARRIERS:
                event = {"flight_id": f"f{step}{carrier}", "carrier": carrier, "distance": 1.5}
                later_us = watermark_us + HOUR_US // 3
                for at_us, more in ((watermark_us, {}), (later_us, {"scheduled": format_us(later_us)})):
                    answer = await world.predict(client, event=event | more)
                    assert answer["event_id"] == event["flight_id"]
                    vector = expected[answer["prediction_id"]] = live.vector(event, at_us)
                    assert answer["score"] == world.scorer(ref).predict(np.array([vector], np.float32))[0]
        predictions = await world.wait(PredictionMade, 6 * 6)
    assert {event.id: event.data.values for event in predictions} == expected
    final = max((e for e in predictions if e.data.event_id == "f5UA"), key=lambda e: e.time_us).data
    assert final.view_position == await world.ends()
    assert final.origin == "request"
    async with world.serving() as (up, client):
        await world.active(client, 1)
        again = up.runtime.context.views.complete((world.model, world.plan.view_version), event, watermark_us)
        assert again is not None
        assert again.vector == live.vector(event, watermark_us)
        assert again.position == final.view_position


async def test_slots_that_come_before_their_declaration_are_not_lost(broker: str, world: World) -> None:
    late = world.model + "-late"
    spec = ModelSpec.model_validate(
        {
            "task": "binary",
            "stream": world.plan.stream,
            "label": "delay > 15",
            "features": [{"of": f"{world.plan.stream}.label", "compute": ["count"], "over": ["1h"]}],
        }
    )
    streams = {world.plan.stream: world.stream}
    plan = compile_plan(spec, streams)
    state = FeatureState(plan)
    state.fold(label_stream(plan.stream), NOON_US, "l", {})
    slots = [
        ViewUpdated(view=late, view_version=plan.view_version, slot=slot, tile=list(tile))
        for slot, tile in state.take_changes(NOON_US)
    ]
    async with world.serving() as (up, _):
        context = up.runtime.context
        await world.publish("feature", *slots)

        async def kept() -> bool:
            return (late, plan.view_version) in context._rows

        await eventually(kept, "the slot in the store")
        await world.publish(
            "registry", ModelDeclared.of(name=late, spec=spec, streams=streams, view_version=plan.view_version)
        )

        async def completed() -> list[float] | None:
            found = context.views.complete((late, plan.view_version), {}, NOON_US)
            return None if found is None else found.vector

        assert await eventually(completed, "the view") == [1.0]


async def test_expired_slots_leave_the_store(world: World) -> None:
    def count(connection: Any) -> int:
        numbers = {row.view: row.number for row in ServingStore(connection).views()}
        return len(list(ServingStore(connection).slots(numbers[world.model])))

    async with world.serving() as (up, _):
        live = FeatureState(world.plan)
        for minutes in (0, 307):
            at_us = NOON_US + minutes * MINUTE_US
            live.fold(label_stream(world.plan.stream), at_us, f"l{minutes}", {"carrier": "UA", "delay": 1})
            slots = [
                ViewUpdated(view=world.model, view_version=world.plan.view_version, slot=slot, tile=list(tile))
                for slot, tile in live.take_changes(at_us)
            ]
            await world.publish("feature", *slots, watermark=format_us(at_us))
            await world.view_is_read(up)

        async def swept() -> bool:
            return await up.runtime.query(count) == 1

        await eventually(swept, "one slot of two left")


async def test_requests_are_recorded_before_they_are_answered(world: World) -> None:
    ref = world.package()
    await world.promote(1, ref)
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with world.serving() as (_, client):
        await world.active(client, 1)
        one = features(world, 1.0, None, 2.5, 3)
        answers = await asyncio.gather(
            *(world.predict(client, features=one, event_id=f"e{number}") for number in range(40))
        )
        several = await world.predict(client, instances=[one, features(world, 2, 0, 0, 0)])
        timed = await client.post(
            f"/v1/models/{world.model}/predict",
            json={"features": one | {"carrier": "UA"}, "event_time": "2013-03-05T00:00:00Z"},
            headers={"traceparent": trace},
        )
        inferred = await client.post(
            f"/v2/models/{world.model}/versions/1/infer",
            json={
                "id": "r7",
                "parameters": {"event_id": "e-v2"},
                "inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [1.0, None, 2.5, 3]}],
            },
        )
        made = {event.id: event for event in await world.wait(PredictionMade, 44)}
    assert [made[a["prediction_id"]].data.event_id for a in answers] == [f"e{number}" for number in range(40)]
    event = made[answers[0]["prediction_id"]]
    assert event.data.values == [1.0, None, 2.5, 3.0]
    assert (event.data.origin, event.data.vector_id, event.data.view_position) == ("request", None, None)
    assert (event.data.score, event.data.decision) == (answers[0]["score"], answers[0]["decision"])
    assert event.stream == view_stream(world.model, world.plan.view_version)
    assert len(several["predictions"]) == 2
    assert {made[p["prediction_id"]].correlation_id for p in several["predictions"]} == {
        made[several["predictions"][0]["prediction_id"]].correlation_id
    }
    late = made[timed.json()["prediction_id"]]
    assert (late.time_us, late.traceparent) == (parse_us("2013-03-05T00:00:00Z"), trace)
    assert late.data.values == [1.0, 1.0, 2.5, 3.0]
    body = inferred.json()
    outputs = {output["name"]: output["data"][0] for output in body["outputs"]}
    assert (body["id"], body["model_name"], body["model_version"]) == ("r7", world.model, "1")
    assert made[outputs["prediction_id"]].data.event_id == "e-v2"
    assert outputs["score"] == answers[0]["score"]


async def test_health_and_metadata_are_those_of_the_protocol(world: World) -> None:
    await world.promote(1, world.package())
    v2 = f"/v2/models/{world.model}/infer"
    good = {"inputs": [{"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}]}
    nobody = {"authorization": "Bearer x"}
    async with world.serving() as (up, client):
        await world.active(client, 1)
        assert (await client.get("/v2/health/ready", headers=nobody)).json() == {"ready": True}
        assert (await client.get("/v2/health/live", headers=nobody)).json() == {"live": True}
        assert (await client.get("/v2")).json()["extensions"] == ["binary_tensor_data"]
        described = (await client.get(f"/v2/models/{world.model}")).json()
        assert described["parameters"]["features"] == ",".join(world.plan.names)
        assert (await client.get(f"/v2/models/{world.model}/versions/1/ready")).json()["ready"] is True
        assert "evenkeel_prediction_seconds" in (await client.get("/metrics")).text
        up.runtime.context.successions = {}
        assert (await client.get(f"/v2/models/{world.model}/ready")).status_code == 503
        assert (await client.post(v2, json=good)).status_code == 503


async def test_without_the_broker_requests_are_answered_and_recorded_in_the_end(
    kafka: EmbeddedKafka, world: World
) -> None:
    await world.promote(1, world.package())
    given = features(world, 1.0, 2.0, 3.0, 4.0)
    async with world.serving() as (up, client):
        await world.active(client, 1)
        await world.wait(VersionActivated, 1)
        await asyncio.to_thread(kafka.stop)
        answers = [await world.predict(client, features=given, event_id=f"away-{n}") for n in range(20)]
        waiting = await up.runtime.query(lambda connection: len(list(connection.scan("runtime_outbox"))))
        assert waiting > 0
        await asyncio.to_thread(kafka.start)
        made = await world.wait(PredictionMade, 20, may_repeat=True)
        assert {event.id for event in made} == {answer["prediction_id"] for answer in answers}


async def test_a_full_disk_refuses_instead_of_answering_unrecorded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.promote(1, world.package())
    monkeypatch.setenv("EVENKEEL_SERVING_STORE_BYTES", str(2**20))
    row = features(world, 1.0, 2.0, 3.0, 4.0)
    async with world.serving(max_rows=2000) as (up, client):
        await world.active(client, 1)
        many = {"instances": [row] * 2000}
        answer = await client.post(f"/v1/models/{world.model}/predict", json=many)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "recorded" in answer.json()["detail"]
        assert (await world.predict(client, features=row))["epoch"] == 1
        with pytest.raises(ValueError, match="too large to be published"):
            await up.runtime.record([too_large(world)])
        assert (await world.predict(client, features=row))["epoch"] == 1
    # The wire may carry a record twice, with one id: what was refused is not there at all.
    assert len({event.id for event in await world.of(PredictionMade)}) == 2


def too_large(world: World) -> Derived:
    failed = ActivationFailed(
        model=world.model,
        version=1,
        epoch=9,
        package="sha256:" + "0" * 64,
        replica="r",
        reason="load",
        detail="x" * 2**20,
    )
    return Derived(failed, Cause("c", 0, "c"))


async def test_a_replica_announces_itself_and_leaves(world: World) -> None:
    await world.promote(4, world.package())

    async def seen() -> list[ReplicaSeen]:
        return [e.data for e in await read_events(world.broker, ReplicaSeen) if e.data.replica == "one"]

    async with world.serving(replica="one", url="http://one.example:8105") as (_, client):
        await world.active(client, 4)

        async def is_announced() -> bool:
            return bool(await seen())

        await eventually(is_announced, "the announcement")
    # The goodbye is published now, or by the next start: it does not hold a process up that is to end.
    async with world.serving(replica="one", url="http://two.example:8105"):

        async def is_there_again() -> bool:
            return len(await seen()) >= 3

        await eventually(is_there_again, "the second announcement")
    found = (await seen())[:3]
    assert [(one.state, one.url) for one in found] == [
        ("ready", "http://one.example:8105"),
        ("stopping", "http://one.example:8105"),
        ("ready", "http://two.example:8105"),
    ]
    assert [one.epochs[world.model] for one in found] == [4, 4, 4]


async def test_an_erased_subject_is_folded(world: World) -> None:
    await world.publish("governance", SubjectErased(stream="s", subject="x"))
    async with world.serving() as (up, _):

        async def folded() -> bool:
            return bool(up.runtime.metrics.consumed.labels("governance.subject-erased.v1")._value.get())

        await eventually(folded, "the erasure")


def test_serving_imports_no_sql_engine_and_no_training_library() -> None:
    script = (
        "import sys, evenkeel.services.serving.service, evenkeel.libs.packages.scorer\n"
        "print([m for m in ('sqlalchemy', 'alembic', 'sklearn', 'skl2onnx', 'onnx', 'deltalake') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
