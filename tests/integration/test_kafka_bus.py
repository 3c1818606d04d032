"""The adapter against a real broker, where the client does not do what it should."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer

from evenkeel.libs.bus import kafka as adapter
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from tests.running import eventually

pytestmark = pytest.mark.anyio

TP, GROUP = ("worn.raw", 0), "worn"


async def test_a_commit_that_never_ends_costs_a_consumer_and_no_record(
    broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen after kills of the broker: the client waits for its group's coordinator for ever, and only a new one helps."""
    answered = AIOKafkaConsumer.commit
    deaf: set[AIOKafkaConsumer] = set()

    async def commit(consumer: AIOKafkaConsumer, *arguments: Any) -> None:
        if not deaf and consumer._group_id == GROUP:
            deaf.add(consumer)
        if consumer in deaf:
            await asyncio.Event().wait()
        await answered(consumer, *arguments)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", commit)
    monkeypatch.setattr(adapter, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(adapter, "CALL_SECONDS", 5.0)
    bus = KafkaBus(broker, "test", GROUP)
    await bus.start()
    await bus.create_raw_topic(TP[0], 1)
    bus.assign({TP: 0})
    read: list[int] = []

    async def is_committed() -> bool:
        await bus.publish([OutgoingRecord(*TP, None, b"%d" % len(read), [])])
        read.extend(record.offset for record in (await bus.getmany(100, 100)).get(TP, ()))
        return bool(read) and await bus.commit({TP: read[-1] + 1})

    try:
        assert not await is_committed()
        await eventually(is_committed, "a commit that is answered")
        assert len(deaf) == 1
        assert read == list(range(len(read)))
    finally:
        await bus.stop()
