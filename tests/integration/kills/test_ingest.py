"""Ingest killed at every step: each raw record one outcome, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from evenkeel.contracts.envelope import HEARTBEAT_HEADER, format_us
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.clock import HOUR_US, MINUTE_US, parse_us
from evenkeel.services.ingest.service import service
from tests.integration.test_ingest import declare, order
from tests.kills import same, stories, trial

pytestmark = pytest.mark.anyio

KILLS = (
    "loop.fetched@3",
    "loop.begun@2",
    "loop.handled@3",
    "loop.outbox@2",
    "loop.positions@3",
    "loop.committed@2",
    "publish.sent@2",
    "publish.deleted@1",
)
START_US = parse_us("2013-01-01T00:00:00Z")
STREAM = "killed"


def part(number: int) -> list[OutgoingRecord]:
    """Two hours: good events and labels, repeats, contradictions, bad ones and heartbeats on two partitions each."""
    topic, labels = f"{STREAM}.raw", f"{STREAM}.labels"
    records = []
    for step in range(24):
        at = format_us(START_US + number * 2 * HOUR_US + step * 5 * MINUTE_US)
        partition, name = step % 2, f"{number}-{step}"
        values: list[Any] = [order(name, at, amount=step)]
        if step % 6 == 2:
            values.append(order(name, at, amount=step))
        if step % 6 == 3:
            values.append(order(name, at, amount=step + 1))
        if step % 6 == 4:
            values += [b"{not json", order(name + "x", at, amount=-1)]
        if step % 6 == 5 and number:
            values.append(order(f"{number - 1}-{step}", at, amount="as it was"))
        records += [raw(topic, partition, value) for value in values]
        if step % 3 == 0:
            label = {"return_id": f"r{name}", "order_id": name, "decided_at": at, "returned": step % 2 == 0}
            records.append(raw(labels, partition, label))
    end = format_us(START_US + (number + 1) * 2 * HOUR_US).encode()
    records += [OutgoingRecord(t, p, None, None, [(HEARTBEAT_HEADER, end)]) for t in (topic, labels) for p in (0, 1)]
    return records


def raw(topic: str, partition: int, value: Any) -> OutgoingRecord:
    data = value if isinstance(value, bytes) else orjson.dumps(value)
    return OutgoingRecord(topic, partition, b"key", data, [])


async def test_killed_at_every_step(
    broker: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "12")
    await declare(broker, STREAM, wait="24h")
    ingest = trial(service, broker, tmp_path, postgres)
    producer = KafkaBus(broker, "raw")
    await producer.start()
    for topic in (f"{STREAM}.raw", f"{STREAM}.labels"):
        await producer.create_raw_topic(topic, 2)
    for number, failpoint in enumerate(KILLS):
        await producer.publish(part(number))
        await ingest.kill(failpoint)
    await producer.publish(part(len(KILLS)))
    await producer.stop()
    same(await ingest.settle(answers), "the answers")
    ingest.was_killed_at_every_step()
    # A rejected record has its stream's time, which depends on how far the other partition had been read.
    told = list((await stories(service, broker, timeless=["ingest.event-rejected.v1"])).values())
    assert len(told) == len(ingest.copies)
    same(told, "the events")
    sent = sum(record.value is not None for number in range(len(KILLS) + 1) for record in part(number))
    assert len(told[0]) == sent, "one outcome for each record"


async def answers(client: AsyncClient) -> Any:
    found = await client.ingest.stream(STREAM)
    assert found.events is not None
    assert found.events.watermark == format_us(START_US + 2 * HOUR_US * (len(KILLS) + 1))
    assert found.events.rejected["duplicate"]
    assert found.events.rejected["id_conflict"]
    return found
