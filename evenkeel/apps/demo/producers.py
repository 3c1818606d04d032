"""Three producers, plain Kafka clients, behind a gate that opens hour by hour."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

from aiokafka import AIOKafkaProducer

from evenkeel.apps.demo.flights import TOPICS, Flights, RawRecord, partition_of
from evenkeel.contracts.envelope import HEARTBEAT_HEADER
from evenkeel.libs.clock import DAY_US, format_us

BEYOND_US: Final = 30 * DAY_US
"""The last heartbeat lies this far after the last record: beyond every horizon that the demo declares."""
IN_FLIGHT_HOURS: Final = 6


class Producers:
    """Writes each hour's records, then a heartbeat on every partition of the three raw topics."""

    def __init__(self, broker: str) -> None:
        settings: dict[str, Any] = {
            "bootstrap_servers": broker,
            "acks": "all",
            "enable_idempotence": True,
            "linger_ms": 5,
        }
        self._producers = {topic: AIOKafkaProducer(client_id=f"demo-{topic}", **settings) for topic in TOPICS}
        self._partitions: dict[str, list[int]] = {}
        self.sent = 0
        self.hour_us = 0

    async def __aenter__(self) -> Self:
        for topic, producer in self._producers.items():
            await producer.start()
            self._partitions[topic] = sorted(await producer.partitions_for(topic))
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*(producer.stop() for producer in self._producers.values()))

    async def replay(self, flights: Flights, gate: Callable[[int], Awaitable[None]]) -> None:
        """Send everything; `gate(hour_end_us)` returns when that hour may go out. All is acknowledged on return."""
        waiting: list[list[asyncio.Future[Any]]] = []
        for end_us, records in flights.hours():
            await gate(end_us)
            waiting.append(await self._send(records, end_us))
            self.sent += len(records)
            self.hour_us = end_us
            if len(waiting) > IN_FLIGHT_HOURS:
                await asyncio.gather(*waiting.pop(0))
        waiting.append(await self._send([], self.hour_us + BEYOND_US))
        for futures in waiting:
            await asyncio.gather(*futures)

    async def _send(self, records: list[RawRecord], heartbeat_us: int) -> list[asyncio.Future[Any]]:
        """One batch a partition: the hour's records, then the heartbeat."""
        by_partition: dict[tuple[str, int], list[RawRecord]] = {
            (topic, partition): [] for topic, partitions in self._partitions.items() for partition in partitions
        }
        for record in records:
            partition = partition_of(record.id, len(self._partitions[record.topic]))
            by_partition[record.topic, partition].append(record)
        header = [(HEARTBEAT_HEADER, format_us(heartbeat_us).encode())]
        sent = []
        for (topic, partition), group in by_partition.items():
            producer = self._producers[topic]
            batch = producer.create_batch()
            for record in group:
                while batch.append(key=record.id.encode(), value=record.value, timestamp=None, headers=[]) is None:
                    sent.append(await producer.send_batch(batch, topic, partition=partition))
                    batch = producer.create_batch()
            if batch.append(key=b"heartbeat", value=None, timestamp=None, headers=header) is None:
                sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = producer.create_batch()
                batch.append(key=b"heartbeat", value=None, timestamp=None, headers=header)
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        return sent
