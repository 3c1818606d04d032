"""Three brokers: what two of them acknowledged survives the loss of a leader, a frozen node, and two nodes gone at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.ingest import EventAccepted
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.services.ingest.service import service
from tests.chaos.cluster import Cluster
from tests.chaos.load import ORDERS, Sent, Shop, Writer
from tests.running import eventually, publish_events, read_events, running

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

SPEC = StreamSpec.model_validate(
    {
        "topic": ORDERS,
        "id": "order_id",
        "time": "ordered_at",
        "disorder": "2h",
        "fields": {"customer": {"type": "string"}, "amount": {"type": "number"}},
    }
)


class Orders:
    """A producer that sends ten orders at a time and knows which are acknowledged."""

    def __init__(self, broker: str) -> None:
        self._writer = Writer(broker)
        self._numbers = count()
        self.sent: set[bytes] = set()
        self.acknowledged: set[bytes] = set()

    def next(self) -> Sent:
        record = Shop().order(next(self._numbers))
        self.sent.add(record.id)
        return record

    async def produce(self) -> None:
        while True:
            records = [self.next() for _ in range(10)]
            await self._writer.write(records)
            self.acknowledged |= {record.id for record in records}
            await asyncio.sleep(0.02)

    async def more(self) -> None:
        """Until new ones are acknowledged, two writes on: the second one began after the call."""
        wanted = len(self.acknowledged) + 20
        await eventually(lambda: _true(len(self.acknowledged) >= wanted), "new acknowledged records", 60)

    async def close(self) -> None:
        await self._writer.close()


async def _true(found: bool) -> bool:
    return found


async def refused(broker: str, record: Sent) -> bool:
    """Whether a record cannot be written now."""
    producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", request_timeout_ms=2_000)
    try:
        async with asyncio.timeout(5):
            await producer.start()
            await producer.send_and_wait(record.topic, record.value, key=record.id)
    except (KafkaError, OSError, TimeoutError):
        return True
    finally:
        with_time = asyncio.wait_for(producer.stop(), 2)
        await asyncio.gather(with_time, return_exceptions=True)
    return False


async def test_no_acknowledged_record_is_lost(tmp_path: Path) -> None:
    with Cluster(tmp_path / "cluster") as cluster:
        await create_map_topics(cluster.address)
        await publish_events(
            cluster.address,
            "registry",
            [(StreamDeclared.of(name="orders", spec=SPEC), {"time": "2026-01-01T00:00:00Z"})],
        )
        orders = Orders(cluster.address)
        async with running(service, cluster.address, tmp_path / "data") as ingest:
            producing = asyncio.create_task(orders.produce())
            await orders.more()

            leader = await cluster.leader(ORDERS)
            cluster.kill(leader)
            await orders.more()
            await asyncio.to_thread(cluster.start, leader)

            frozen = await cluster.leader(ORDERS)
            cluster.freeze(frozen)
            await orders.more()
            cluster.thaw(frozen)
            await orders.more()

            down = [1, 2]
            for node in down:
                cluster.kill(node)
            assert await refused(cluster.address, orders.next())
            await asyncio.to_thread(cluster.start, *down)
            await orders.more()

            async def all_accepted() -> bool:
                accepted = {e.data.event_id.encode() for e in await read_events(cluster.address, EventAccepted)}
                return orders.acknowledged <= accepted

            producing.cancel()
            await asyncio.gather(producing, return_exceptions=True)
            await orders.close()
            await eventually(all_accepted, "every acknowledged record to be accepted", 60)
            await eventually(lambda: _true(ingest.runtime.not_ready_reason is None), "ingest to be ready", 60)
        events = {event.id: event.data.event_id for event in await read_events(cluster.address, EventAccepted)}
        assert {one.encode() for one in events.values()} <= orders.sent
        assert max(Counter(events.values()).values()) == 1
