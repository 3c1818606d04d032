"""What the stream benchmarks share: the events, their broker, and throughput as the broker saw it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.envelope import HEARTBEAT_HEADER
from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.clock import DAY_US, format_us, parse_us
from evenkeel.libs.features import compile_plan
from evenkeel.libs.process.child import ChildProcess
from evenkeel.libs.process.ports import free_port
from evenkeel.libs.runtime.outputs import partition_of
from tests.bench.bench import Bench, Unavailable, cpu_seconds, tail
from tests.bench.http_load import metrics
from tests.running import publish_events

START: Final = "2013-01-01T00:00:00Z"
START_US: Final = parse_us(START)
PARTITIONS: Final = 3
RAW: Final = "bench.orders"
LABELS: Final = "bench.returns"
ACCEPTED: Final = "ingest.event-accepted.v1"
VECTORS: Final = "feature.vector-computed.v1"
CHUNK: Final = 20_000
READY_SECONDS: Final = 30.0
STREAM: Final = StreamSpec.model_validate(
    {
        "topic": RAW,
        "id": "order_id",
        "time": "ordered_at",
        "fields": {
            "customer": {"type": "string", "required": True},
            "amount": {"type": "number", "min": 0},
            "items": {"type": "integer"},
            "country": {"type": "string"},
            "channel": {"type": "category", "values": ["web", "app", "shop"]},
            "voucher": {"type": "boolean"},
            "weight": {"type": "number"},
            "note": {"type": "string"},
        },
        "label": {
            "topic": LABELS,
            "id": "order_id",
            "joins": "order_id",
            "time": "decided_at",
            "horizon": "1h",
            "fields": {"returned": {"type": "boolean"}},
        },
    }
)
MODEL: Final = "returned"
SPEC: Final = ModelSpec.model_validate(
    {
        "task": "binary",
        "stream": "orders",
        "label": "returned",
        "features": [
            {
                "of": "orders.amount",
                "by": ["customer"],
                "compute": ["count", "sum", "mean", "std"],
                "over": ["1m", "1h", "24h"],
            },
        ],
    }
)
PLAN: Final = compile_plan(SPEC, {"orders": STREAM})


class Measured(NamedTuple):
    """What came out of a topic, by the broker's clock."""

    events: int
    at_first: int
    """Events appended in the first millisecond: their work was done before."""
    first_ms: int
    last_ms: int

    @property
    def per_second(self) -> float:
        if self.last_ms <= self.first_ms:
            raise Unavailable(f"{self.events} events came out at one moment: too few to tell how fast.")
        return (self.events - self.at_first) / (self.last_ms - self.first_ms) * 1e3


def orders(count: int, customers: int) -> Iterator[tuple[str, bytes]]:
    """(customer, record) in event-time order over 24 hours; records are JSON of about 300 bytes."""
    random = np.random.default_rng(2)
    who, amounts = random.integers(0, customers, count).tolist(), random.gamma(2.0, 20.0, count).round(2).tolist()
    note = "x" * 72
    for number in range(count):
        customer = f"customer-{who[number]:07d}"
        record = {
            "order_id": f"order-{number:09d}",
            "ordered_at": format_us(START_US + number * DAY_US // count // 1000 * 1000),
            "customer": customer,
            "amount": amounts[number],
            "items": number % 7 + 1,
            "country": "DE",
            "channel": "web",
            "voucher": number % 5 == 0,
            "weight": amounts[number] / 4,
            "note": note,
        }
        yield customer, orjson.dumps(record)


@asynccontextmanager
async def broker(bench: Bench) -> Any:
    """A broker of this benchmark's own, with the map's topics."""
    bench.say("starting a broker")
    kafka = EmbeddedKafka(bench.folder / "broker", free_port())
    await asyncio.to_thread(kafka.start)
    try:
        await create_map_topics(kafka.address)
        yield kafka.address
    finally:
        await asyncio.to_thread(kafka.stop)


async def make_topic(address: str, name: str) -> None:
    """A topic whose records carry the broker's time, as those of the map do."""
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    config = {"message.timestamp.type": "LogAppendTime"}
    await admin.create_topics([NewTopic(name, PARTITIONS, 1, topic_configs=config)])
    await admin.close()


async def fill(address: str, count: int, customers: int, topic: str = RAW, *, by_customer: bool = False) -> None:
    """Write the orders, then a heartbeat on every partition of orders and labels, so that nothing waits for more."""
    bus = KafkaBus(address, "bench")
    await bus.start()
    try:
        await bus.create_raw_topic(topic, PARTITIONS)
        batch: list[OutgoingRecord] = []
        for number, (customer, value) in enumerate(orders(count, customers)):
            key = customer.encode() if by_customer else b"%d" % number
            batch.append(OutgoingRecord(topic, partition_of(key, PARTITIONS), key, value, []))
            if len(batch) == CHUNK:
                await bus.publish(batch)
                batch.clear()
        if batch:
            await bus.publish(batch)
        if topic == RAW:
            await bus.create_raw_topic(LABELS, PARTITIONS)
            header = [(HEARTBEAT_HEADER, format_us(START_US + 2 * DAY_US).encode())]
            beats = [OutgoingRecord(t, p, b"beat", None, header) for t in (RAW, LABELS) for p in range(PARTITIONS)]
            await bus.publish(beats)
    finally:
        await bus.stop()


async def declare_stream(address: str) -> None:
    await publish_events(address, "registry", [(StreamDeclared.of(name="orders", spec=STREAM), {"time": START})])


async def declare_model(address: str) -> None:
    fact = ModelDeclared.of(name=MODEL, spec=SPEC, streams={"orders": STREAM}, view_version=PLAN.view_version)
    await publish_events(address, "registry", [(fact, {"time": START})])


class Outlet:
    """A topic from here on: how many records it gets, and how fast."""

    def __init__(self, address: str, topic: str) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False, auto_offset_reset="none")
        partitions = BY_NAME[topic].partitions if topic in BY_NAME else PARTITIONS
        self._partitions = [TopicPartition(topic, number) for number in range(partitions)]
        self._begins: dict[TopicPartition, int] = {}

    async def open(self) -> None:
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        self._begins = await self._consumer.end_offsets(self._partitions)

    async def close(self) -> None:
        await self._consumer.stop()

    async def count(self) -> int:
        """Records so far, watermarks included."""
        ends = await self._consumer.end_offsets(self._partitions)
        return sum(ends[tp] - begin for tp, begin in self._begins.items())

    async def complete(self, least: int, seconds: float, is_running: Callable[[], bool]) -> bool:
        """Wait until there are that many and no more come for a moment; False if the time is over before."""
        until = asyncio.get_running_loop().time() + seconds
        before = -1
        while True:
            found = await self.count()
            if found >= least and found == before:
                return True
            if asyncio.get_running_loop().time() > until or not is_running():
                return False
            before = found
            await asyncio.sleep(0.3 if found >= least else 0.1)

    async def measure(self) -> Measured:
        """The events: records with a value."""
        ends = await self._consumer.end_offsets(self._partitions)
        for tp, begin in self._begins.items():
            self._consumer.seek(tp, begin)
        events, at_first, first_ms, last_ms = 0, 0, 2**63, 0
        while [tp for tp in self._partitions if await self._consumer.position(tp) < ends[tp]]:
            for records in (await self._consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    if record.value is None:
                        continue
                    events += 1
                    if record.timestamp < first_ms:
                        first_ms, at_first = record.timestamp, 0
                    at_first += record.timestamp == first_ms
                    last_ms = max(last_ms, record.timestamp)
        return Measured(events, at_first, first_ms, last_ms)


async def listening(port: int, process: ChildProcess, log: Path) -> float:
    """The service's CPU time when its port opens: its imports are over, its work begins."""
    until = asyncio.get_running_loop().time() + READY_SECONDS
    while asyncio.get_running_loop().time() < until:
        try:
            await metrics(port)
        except OSError:
            if not process.is_running:
                break
            await asyncio.sleep(0.01)
            continue
        return cpu_seconds(process.pid)
    raise Unavailable(f"it did not start: {tail(log)}")
