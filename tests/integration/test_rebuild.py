"""Stores that are lost, or restored from an older copy, and made again from the topics while traffic goes on: equal to one
that was never lost, and nothing doubled for whoever listens."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.apps.cli.verify import verify_data_folder
from evenkeel.contracts.envelope import CLOCK_TYPE, SEAL_TYPE, Event, attributes_of, parse_us
from evenkeel.contracts.feature import DatasetCommitted, VectorComputed, ViewStarted
from evenkeel.contracts.governance import CheckpointSigned
from evenkeel.contracts.http.registry import DeclaredModels
from evenkeel.contracts.monitor import AlertChanged, DriftDetected, PerformanceDegraded, WindowMeasured
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ApprovalDecided, ChampionChanged, GateDecided, ModelDeclared, StreamDeclared
from evenkeel.contracts.runtime import SourcesSealed
from evenkeel.contracts.serving import ActivationFailed, PredictionMade, ReplicaSeen, VersionActivated
from evenkeel.contracts.topics import published_by, topics_carrying
from evenkeel.contracts.trainer import RetrainDecided, RunFailed, RunStarted
from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.log import SqlTiles, duplicate_leaves, head
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.errors import Stop
from evenkeel.libs.process.ports import free_port
from evenkeel.services.feature.service import service as feature
from evenkeel.services.feature.settings import FeatureSettings
from evenkeel.services.feature.store import FeatureStore
from evenkeel.services.governance.service import service as governance
from evenkeel.services.monitor.service import service as monitor
from evenkeel.services.registry.service import service as registry
from evenkeel.services.serving.service import service as serving
from evenkeel.services.trainer.service import service as trainer
from tests.feature_log import DECLARATION, Feature
from tests.integration.test_feature import Told, days, published, windows, write
from tests.integration.test_governance import PROMPT, on_the_topics, publish
from tests.integration.test_monitor import DAYS, Upstream, facts, feed, measured_until, stream
from tests.integration.test_registry import T0, T1, changes, declaration, run
from tests.kills import WALL_CLOCK
from tests.model_life import MODEL, Life
from tests.records import ReadRecord
from tests.running import Running, eventually, publish_events, read_events, read_topic, rebuilt, running, write_token
from tests.tiny_packages import tiny_package
from tests.unit.monitor.scenes import day, declared

pytestmark = pytest.mark.anyio


@pytest.fixture
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker for each test: what one service said in a test is what it said in its life."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker"), free_port()) as kafka:
        asyncio.run(create_map_topics(kafka.address))
        yield kafka.address


SETTINGS: Final = FeatureSettings(view_flush_ms=20, snapshot_records=60, compact_commits=2, table_days=1)


async def rebuild(name: str, broker: str | None, data_dir: Path, expect: int = 0) -> dict[str, Any]:
    """`evenkeel rebuild` as people run it; what it prints. Without a broker, it finds or starts the data folder's own."""
    arguments = ["-m", "evenkeel.apps.cli.main", "rebuild", name, "--data-dir", str(data_dir), "--json"]
    arguments += [] if broker is None else ["--broker", broker]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == expect, (out, err)
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


def damage(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.write_bytes(b"no database, whatever its name says" * 200)


async def heard(broker: str, payload: type[Payload], topic: str | None = None) -> list[Event[Any]]:
    """The events that count for a consumer which knows no more than the envelope: repeats by sequence, and what sealed
    sources say behind their seal, do not."""
    name = topic or topics_carrying(payload)[0].name
    marks: dict[Any, int] = {}
    sealed: set[tuple[str, int]] = set()
    events = []
    for record in await read_topic(broker, name):
        attributes = attributes_of(record.headers)
        source, sequence = attributes["ce_source"].decode(), int(attributes["ce_sequence"])
        key = (source, attributes["ce_shard"], record.partition)
        if (source, record.partition) in sealed or sequence <= marks.get(key, 0):
            continue
        marks[key] = sequence
        if attributes["ce_type"] == SEAL_TYPE.encode():
            sealed |= {(one, record.partition) for one in SourcesSealed.model_validate_json(record.value).sources}
        elif attributes["ce_type"] != CLOCK_TYPE.encode():
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            data = payload.model_validate_json(record.value)
            events.append(Event(data, event_id, time_us, name, record.partition, record.offset, attributes))
    return events


def dump(path: Path, tables: Iterable[str], without: Collection[str] = ()) -> dict[str, list[Any]]:
    """The rows of an SQLite store, table by table, but for some columns."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        return {
            table: sorted(
                (
                    {name: value for name, value in dict(row).items() if name not in without}
                    for row in connection.execute(f"SELECT * FROM {table}")
                ),
                key=repr,
            )
            for table in tables
        }


async def refuses_to_start(service: Any, broker: str, data_dir: Path) -> str:
    with pytest.raises(Stop) as stopped:
        async with running(service, broker, data_dir, accept_new_store=False):
            pass
    return str(stopped.value)


def lose(data_dir: Path, name: str) -> None:
    for path in data_dir.glob(f"{name}.db*"):
        path.unlink()


async def all_read(found: Running) -> None:
    """Until the service has read everything that its topics hold now."""
    await eventually(found.runtime.has_read_all, "all to be read")


def states(data_dir: Path) -> dict[str, Any]:
    """What a feature store holds, whatever its journal and snapshots look like."""
    found = Feature(data_dir)
    try:
        return {
            name: (windows(view), view.watermark_us, view.counts, sorted(view._waiting), view.cut_us)
            for name, view in found.context.views.items()
        }
    finally:
        found.close()


async def test_feature_comes_back_as_if_never_lost(broker: str, tmp_path: Path) -> None:
    log, parts = days()
    quiet = Feature(tmp_path / "quiet")
    quiet.consume(log.records)
    expected = {model: quiet.vectors(model) for model in ("delay", "load")}
    quiet.close()
    data_dir = tmp_path / "data"
    await write(broker, parts[0])
    async with running(feature, broker, data_dir, SETTINGS) as found:
        await all_read(found)
    shutil.copytree(data_dir, tmp_path / "older")
    await write(broker, parts[1])
    async with running(feature, broker, data_dir, SETTINGS) as found:
        await all_read(found)

    lose(data_dir, "feature")
    assert "run `evenkeel rebuild feature`" in await refuses_to_start(feature, broker, data_dir)
    before = len(await heard(broker, VectorComputed))
    await asyncio.gather(write(broker, parts[2]), rebuilt(feature, broker, data_dir, SETTINGS))
    async with running(feature, broker, data_dir, SETTINGS, accept_new_store=False) as found:
        await write(broker, parts[3])
        await all_read(found)
    assert len(await heard(broker, VectorComputed)) > before

    lose(data_dir, "feature")
    for path in (tmp_path / "older").glob("feature.db*"):
        shutil.copy(path, data_dir)
    assert "older than what" in await refuses_to_start(feature, broker, data_dir)
    await rebuilt(feature, broker, data_dir, SETTINGS)
    for part in parts[4:]:
        await write(broker, part)
    async with running(feature, broker, data_dir, SETTINGS, accept_new_store=False) as found:
        await all_read(found)
        await eventually(partial(all_announced, found), "the training tables")
        views = dict(found.runtime.context.views)

    vectors = await heard(broker, VectorComputed)
    for model, wanted in expected.items():
        mine = [e for e in vectors if e.data.model == model]
        assert Counter(e.data.event_id for e in mine) == Counter(wanted.keys())
        assert {e.data.event_id: e.data.values for e in mine} == wanted
    assert states(data_dir) == states(tmp_path / "quiet")
    for model in expected:
        view = views[model]
        await eventually(partial(published, Told(broker), view, windows(view)), f"the view of {model} to be published")


async def test_a_model_declared_while_its_streams_ran_comes_back_as_it_was(broker: str, tmp_path: Path) -> None:
    """With another label it keeps its windows, with other features it begins anew, and one is new to these streams."""
    log, parts = days()
    changed = DECLARATION.replace("delay > 15", "delay > 5").replace("[sum, min], over: [2h]", "[sum, max], over: [3h]")
    changed += "  fresh: {task: regression, stream: flights, label: delay, features: [{fields: [load]}]}\n"

    def declares(*models: str) -> list[ReadRecord]:
        before = len(log.records)
        log.declare([], models, load_declaration(changed, "changed.yaml"))
        return log.records[before:]

    async with running(feature, broker, tmp_path, SETTINGS) as found:
        for part in (*parts[:3], declares("delay"), parts[3], parts[4], declares("load", "fresh"), *parts[5:9]):
            await write(broker, part)
            await all_read(found)
        await eventually(partial(all_announced, found), "the training tables")
        await all_read(found)
    never_lost = shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-never-lost"))
    heard_before = {payload: [e.id for e in await heard(broker, payload)] for payload in FEATURED}
    lose(tmp_path, "feature")
    # What has left the tables is what was said, whatever the settings say today.
    await rebuilt(feature, broker, tmp_path, SETTINGS.model_copy(update={"table_days": 30}))
    assert {payload: [e.id for e in await heard(broker, payload)] for payload in FEATURED} == heard_before
    found_again, wanted = states(tmp_path), states(never_lost)
    for model in (
        "delay",
        "load",
        "fresh",
    ):  # of a model without events, only the watermark is kept, with others' events
        assert found_again[model] == wanted[model]
    stored = dump(tmp_path / "feature.db", ("commits", "views", "waiting"), CHANCE)
    assert stored == dump(never_lost / "feature.db", ("commits", "views", "waiting"), CHANCE)
    assert any(commit["kept_from_us"] for commit in stored["commits"])
    for part in parts[9:]:
        await write(broker, part)
    async with running(feature, broker, tmp_path, SETTINGS, accept_new_store=False) as found:
        await all_read(found)
    assert len(await heard(broker, VectorComputed)) > len(heard_before[VectorComputed])


FEATURED: Final = (VectorComputed, DatasetCommitted, ViewStarted)
CHANCE: Final = ("cause_id",)
"""Which of two streams' events was folded last when a commit was cut depends on batches."""


async def all_announced(found: Any) -> bool:
    return not await found.runtime.query(lambda connection: FeatureStore(connection).staged())


# -- registry ----------------------------------------------------------------------------------------------------------


async def test_a_damaged_store_is_rebuilt_while_nothing_runs(tmp_path: Path) -> None:
    token = write_token(tmp_path, "scientist")

    async def models(declared: str | None = None) -> DeclaredModels:
        async with (
            running(registry, kafka.address, tmp_path, http=True, accept_new_store=False) as found,
            found.client(token) as client,
        ):
            if declared is not None:
                await client.registry.apply(declared)
            return await client.registry.models()

    kafka = EmbeddedKafka(tmp_path, free_port())
    with kafka:
        before = await models(declaration("loop"))
    assert [model.model for model in before.models] == ["loop"]
    damage(tmp_path, "registry.db*")
    with kafka, pytest.raises(Stop, match="is damaged .*run `evenkeel rebuild registry`"):
        await models()
    told = await rebuild("registry", None, tmp_path)
    assert told["rebuilt"]
    assert str(tmp_path / "registry.db") in told["aside"]
    with kafka:
        assert await models() == before


REGISTRY_TABLES: Final = ("streams", "models", "versions", "gates", "champions", "approvals", "receipts")


async def test_registry_comes_back_with_what_people_commanded(broker: str, tmp_path: Path) -> None:
    token = write_token(tmp_path, "scientist", "approver", "client")
    refs = [tiny_package(tmp_path / "artifacts", tmp_path / "keys", seed=n) for n in range(6)]
    careful = declaration("loop", "    promotion: {risk: approval}\n")
    path = tmp_path / "registry.db"
    async with (
        running(registry, broker, tmp_path, http=True) as found,
        found.client(token) as client,
    ):
        await client.registry.apply(declaration("loop"))
        view = (await client.registry.model("loop")).view_version

        async def ended(number: int, champion: str | None = None, lower: float = 0.01) -> None:
            completed = run("loop", refs[number], view, number, champion, lower)
            await publish_events(broker, "trainer", [(completed, {"time": T0, "id": f"run-{number}"})])

        async def trained(number: int, champion: str | None = None, lower: float = 0.01) -> None:
            await ended(number, champion, lower)
            await eventually(partial(decided, broker, f"run-loop-{number}"), f"run {number} to be decided")

        await trained(0)
        await trained(1, refs[0].digest, lower=-0.001)
        await trained(2, refs[0].digest)
        (_, second) = await changes(broker, "loop", 2)
        seen = VersionActivated(
            model="loop", version=second.version, epoch=2, package=second.package, replica="r1", load_seconds=0.1
        )
        await publish_events(broker, "serving", [(seen, {"time": T1})])
        await client.registry.rollback("loop", epoch=2, reason="a person saw it")
        await client.registry.apply(careful)
        await trained(3, refs[0].digest)
        (asked,) = (await client.registry.approvals("loop")).approvals
        assert await approved(client, asked.nonce, refs[3].digest)
        await trained(4, refs[3].digest)
        await all_read(found)
    before = dump(path, REGISTRY_TABLES)
    assert len(before["champions"]) == 4
    assert {row["state"] for row in before["approvals"]} == {"approved", "open"}
    never_lost = shutil.copytree(tmp_path, tmp_path.with_name("never-lost"))
    lose(tmp_path, "registry")
    assert "run `evenkeel rebuild registry`" in await refuses_to_start(registry, broker, tmp_path)
    assert (await rebuild("registry", broker, tmp_path))["published"] == SEALS_OF_REGISTRY
    assert dump(path, REGISTRY_TABLES) == before
    # Once more, and a run ends meanwhile.
    lose(tmp_path, "registry")
    await asyncio.gather(rebuild("registry", broker, tmp_path), ended(5, refs[3].digest))
    async with running(registry, broker, tmp_path, accept_new_store=False) as found:
        await eventually(partial(decided, broker, "run-loop-5"), "the run that ended meanwhile to be decided")
        await all_read(found)
    again = dump(path, REGISTRY_TABLES, WALL_CLOCK)
    async with (
        running(registry, broker, tmp_path, http=True, accept_new_store=False) as found,
        found.client(token) as client,
    ):
        (_, asked, _) = (await client.registry.approvals("loop")).approvals
        assert await approved(client, asked.nonce, refs[4].digest)
    assert [e.data.epoch for e in await heard(broker, ChampionChanged)] == [1, 2, 3, 4, 5]
    for payload in (StreamDeclared, ModelDeclared, GateDecided, ApprovalDecided, ChampionChanged):
        ids = [event.id for event in await heard(broker, payload)]
        assert len(ids) == len(set(ids))
    async with running(registry, broker, never_lost) as found:
        await all_read(found)
    assert dump(never_lost / "registry.db", REGISTRY_TABLES, WALL_CLOCK) == again


async def approved(client: AsyncClient, nonce: str, package: str) -> bool:
    answer = await client.registry.approve("loop", nonce=nonce, package=package, approved=True, approver="Ada")
    return answer.promoted


SEALS_OF_REGISTRY: Final = sum(topic.partitions for topic in published_by("registry"))


async def decided(broker: str, run_id: str) -> bool:
    return len([e for e in await read_events(broker, GateDecided) if e.data.run_id == run_id]) == 5


async def all_signed(found: Any, broker: str) -> None:
    await all_read(found)

    async def signed() -> bool:
        return bool(found.runtime.context.signed_size == found.runtime.context.size)

    await eventually(signed, "a checkpoint over all leaves")
    await all_read(found)


# -- governance --------------------------------------------------------------------------------------------------------


async def test_the_audit_log_comes_back_leaf_by_leaf(broker: str, tmp_path: Path) -> None:
    """Anchored checkpoints vouch for the new log, and its root is the one that was never lost."""
    life = Life().tell()
    for first in range(0, len(life.records), 10):
        await publish(broker, life.records[first : first + 10])
        if first % 20 == 0:
            async with running(governance, broker, tmp_path, PROMPT) as found:
                await all_signed(found, broker)
    async with running(governance, broker, tmp_path, PROMPT) as found:
        await all_signed(found, broker)
        never_lost = await found.runtime.query(head)
    signed = [e.data for e in await read_events(broker, CheckpointSigned)]
    assert len(signed) > 2
    assert signed[-1].size == never_lost.size
    lose(tmp_path, "governance")
    assert "run `evenkeel rebuild governance`" in await refuses_to_start(governance, broker, tmp_path)
    (declared,) = [r for r in life.records if r.topic == "registry.stream-declared.v1"]
    await asyncio.gather(publish(broker, [declared]), rebuilt(governance, broker, tmp_path, PROMPT))
    async with running(governance, broker, tmp_path, PROMPT, accept_new_store=False) as found:
        await all_signed(found, broker)
        again = await found.runtime.query(lambda c: merkle.root(SqlTiles(c), never_lost.size))
        repeated = await found.runtime.query(duplicate_leaves)
        grown = await found.runtime.query(head)
    assert again == never_lost.root
    assert grown.size == await on_the_topics(broker)
    assert len(repeated) == 1, "the record that was published twice is a duplicate, and nothing else is"
    report = verify_data_folder(tmp_path)
    assert report["ok"], report["problems"]
    assert report["signed_leaves"] == grown.size


# -- monitor -----------------------------------------------------------------------------------------------------------

MONITOR_TABLES: Final = (
    "declarations",
    "champions",
    "evidence",
    "facts",
    "states",
    "slots",
    "windows",
    "signals",
    "alerts",
)


async def test_monitor_comes_back_and_repeats_no_signal(broker: str, tmp_path: Path) -> None:
    await facts(broker, tmp_path)
    events = stream()
    second = next(i for i, e in enumerate(events) if e.order_us >= day(12))
    async with Upstream(broker) as upstream:
        async with running(monitor, broker, tmp_path) as found:
            await feed(upstream, events[:second], day(12), DAY_US // 4)
            await measured_until(broker, day(12))
            await all_read(found)
        windows_before = dump(tmp_path / "monitor.db", MONITOR_TABLES)
        said = {payload: [e.id for e in await heard(broker, payload)] for payload in MONITORED}
        assert said[DriftDetected]
        lose(tmp_path, "monitor")
        assert "run `evenkeel rebuild monitor`" in await refuses_to_start(monitor, broker, tmp_path)
        await rebuilt(monitor, broker, tmp_path)
        assert dump(tmp_path / "monitor.db", MONITOR_TABLES) == windows_before
        assert {payload: [e.id for e in await heard(broker, payload)] for payload in MONITORED} == said
        lose(tmp_path, "monitor")
        late = [e for e in events[second:] if e.order_us < day(DAYS)]
        await asyncio.gather(rebuilt(monitor, broker, tmp_path), upstream.send(late, day(DAYS) + 1))
    async with running(monitor, broker, tmp_path, accept_new_store=False) as found:
        await measured_until(broker, day(DAYS))
        await all_read(found)
    for payload in MONITORED:
        ids = [e.id for e in await heard(broker, payload)]
        assert len(ids) == len(set(ids)), payload.__name__


async def test_monitor_comes_back_when_a_model_was_declared_later(broker: str, tmp_path: Path) -> None:
    """From then on both wait for each other: nothing that was measured before may change for that."""
    await facts(broker, tmp_path)
    events = stream()
    first, last = (next(i for i, e in enumerate(events) if e.order_us >= day(n)) for n in (4, 6))
    later = declared().model_copy(update={"name": "later"})
    of_later = {VectorComputed: "later", PredictionMade: "later"}
    async with Upstream(broker) as upstream, Upstream(broker, "later", of_later) as other:
        async with running(monitor, broker, tmp_path) as found:
            await feed(upstream, events[:first], day(4), DAY_US // 4)
            await measured_until(broker, day(4))
            await all_read(found)
            await publish_events(broker, "registry", [(later, {"time": T0})])
            await all_read(found)
            await upstream.send(events[first:last], day(6))
            await other.send([], day(6))
            await measured_until(broker, day(6))
            await all_read(found)
        before = dump(tmp_path / "monitor.db", MONITOR_TABLES)
        said = {payload: [e.id for e in await heard(broker, payload)] for payload in MONITORED}
        lose(tmp_path, "monitor")
        await rebuilt(monitor, broker, tmp_path)
    assert {payload: [e.id for e in await heard(broker, payload)] for payload in MONITORED} == said
    assert dump(tmp_path / "monitor.db", MONITOR_TABLES) == before


MONITORED: Final = (WindowMeasured, DriftDetected, PerformanceDegraded, AlertChanged)


# -- trainer and serving -----------------------------------------------------------------------------------------------


async def upstream_of(broker: str, name: str) -> None:
    """What the other services say in the life of a model."""
    records = [record for record in Life().tell().records if not record.topic.startswith(f"{name}.")]
    # Nobody says anything about a model before it is declared.
    await publish(broker, [record for record in records if record.topic.startswith("registry.")])
    await publish(broker, [record for record in records if not record.topic.startswith("registry.")])


IDLE_TRAINER: Final = replace(trainer, background=())
"""It decides, and carries nothing out."""


async def test_trainer_comes_back_and_answers_no_trigger_again(broker: str, tmp_path: Path) -> None:
    await upstream_of(broker, "trainer")
    columns = "run_id, model, trigger, decided_us, state, attempt, correlation_id"

    def jobs() -> list[Any]:
        with sqlite3.connect(tmp_path / "trainer.db") as connection:
            return sorted(connection.execute(f"SELECT {columns} FROM jobs").fetchall())

    async with running(IDLE_TRAINER, broker, tmp_path) as found:
        await all_read(found)
    before = jobs(), dump(tmp_path / "trainer.db", ("models", "cuts"))
    said = {
        payload: [e.id for e in await heard(broker, payload)] for payload in (RetrainDecided, RunStarted, RunFailed)
    }
    lose(tmp_path, "trainer")
    assert "run `evenkeel rebuild trainer`" in await refuses_to_start(IDLE_TRAINER, broker, tmp_path)
    await rebuilt(IDLE_TRAINER, broker, tmp_path)
    assert (jobs(), dump(tmp_path / "trainer.db", ("models", "cuts"))) == before
    for payload, ids in said.items():
        assert [e.id for e in await heard(broker, payload)] == ids, payload.__name__


async def test_serving_comes_back_and_tells_no_receipt_again(broker: str, tmp_path: Path) -> None:
    await upstream_of(broker, "serving")

    async def receipts() -> list[str] | None:
        return [e.id for e in await heard(broker, ActivationFailed)] or None

    async with running(serving, broker, tmp_path):
        told = await eventually(receipts, "a receipt for a package that is nowhere")
    shutil.rmtree(tmp_path / "serving.lmdb")
    await rebuilt(serving, broker, tmp_path)
    before = len(await heard(broker, ReplicaSeen))

    async def seen_again() -> bool:
        return len(await heard(broker, ReplicaSeen)) > before

    async with running(serving, broker, tmp_path, accept_new_store=False) as found:
        assert found.runtime.context.facts[MODEL].epoch == 4
        await eventually(seen_again, "the replica to be seen again")
    assert await receipts() == told


async def test_what_retention_has_deleted_is_said_before_anything_changes(broker: str, tmp_path: Path) -> None:
    _, parts = days()
    await write(broker, parts[0])
    async with running(feature, broker, tmp_path, SETTINGS) as found:
        await all_read(found)
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    partition = TopicPartition("ingest.event-accepted.v1", 0)
    await admin.delete_records({partition: RecordsToDelete(before_offset=3)})
    await admin.close()
    before = (tmp_path / "feature.db").read_bytes()
    told = await rebuild("feature", broker, tmp_path, expect=1)
    assert "ingest.event-accepted.v1/0 up to 2" in told["error"]
    assert "Nothing was changed" in told["error"]
    assert (tmp_path / "feature.db").read_bytes() == before
    ingest = await rebuild("ingest", broker, tmp_path, expect=1)
    assert "cannot be rebuilt from the topics yet" in ingest["error"]
