"""What tests need: records as a producer writes them, topics as an auditor reads them, services as processes or in-process.

Nothing here stands in for a part of the system: the broker is Kafka, the stores are the real ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition

from evenkeel.contracts.envelope import HEARTBEAT_HEADER, IN_BAND_TYPES, Event, Record, attributes_of, parse_us
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.topics import topics_carrying
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import FetchSettings
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.service import Service
from evenkeel.libs.settings import Settings
from evenkeel.libs.store.format import claim_folder

T = TypeVar("T")
WAIT_SECONDS: Final = 60.0
"""Longer than a call to a broker that is away may take (`CALL_SECONDS` of libs/bus/kafka.py), and then some more."""


async def eventually(check: Callable[[], Awaitable[T | None]], what: str, seconds: float = WAIT_SECONDS) -> T:
    """Poll until `check` gives something that is true or not empty; AssertionError names what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = await check()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        await asyncio.sleep(0.02)


class Producer:
    """An outside producer: any Kafka client would do."""

    def __init__(self, broker: str) -> None:
        self._producer = AIOKafkaProducer(bootstrap_servers=broker, acks="all", linger_ms=1)

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def send(
        self,
        topic: str,
        value: bytes | dict[str, Any] | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> tuple[int, int]:
        """(partition, offset) of the acknowledged record."""
        data = orjson.dumps(value) if isinstance(value, dict) else value
        sent = await self._producer.send_and_wait(topic, data, key=key, partition=partition, headers=list(headers))
        return sent.partition, sent.offset

    async def heartbeat(self, topic: str, time: str) -> None:
        """On every partition: nothing earlier than `time` will come."""
        for partition in await self._producer.partitions_for(topic):
            await self._producer.send_and_wait(
                topic, None, key=b"heartbeat", partition=partition, headers=[(HEARTBEAT_HEADER, time.encode())]
            )


async def publish_events(broker: str, source: str, payloads: Sequence[tuple[Payload, dict[str, Any]]]) -> None:
    """Write payloads to their topics as `source` (a service's name) would: for testing one service alone.

    The mapping holds `time` (RFC 3339) and optionally `id`, `stream`, and `watermark`: how far the stream has come behind it
    all.
    """
    from evenkeel.libs.runtime.outputs import OutputBuilder
    from evenkeel.libs.service import Cause, Derived, Watermark
    from evenkeel.libs.telemetry.tracing import Tracing

    bus = KafkaBus(broker, f"test-{source}")
    start = time.time_ns()
    trace = Tracing(source, "test").batch()
    builder = OutputBuilder(source, f"test{start}", {}, start // 1000, trace)
    for number, (payload, meta) in enumerate(payloads):
        time_us = parse_us(meta["time"])
        event_id = meta.get("id") or f"test-{start}-{number}"
        watermark = meta.get("watermark")
        stream = meta.get("stream")
        builder.add(
            [Derived(payload, Cause(f"cause-{event_id}", time_us, event_id), id=event_id, stream=stream)], "test"
        )
        if watermark is not None:
            builder.add([Watermark(type(payload), stream, parse_us(watermark))], "test")
    await bus.start()
    try:
        await bus.publish(builder.finish())
    finally:
        await bus.stop()


async def read_topic(broker: str, topic: str) -> list[Any]:
    """Every record of a topic from its beginning to its present end, by offset within each partition."""
    records = [record async for batch in _batches(broker, topic) for record in batch]
    return sorted(records, key=lambda r: (r.partition, r.offset))


async def _batches(broker: str, topic: str) -> AsyncIterator[Sequence[Any]]:
    """What `read_topic` gives, as it is fetched."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker, enable_auto_commit=False, auto_offset_reset="none")
    await consumer.start()
    try:
        counts = await KafkaBus(broker, "test-reader").partition_counts([topic])
        partitions = [KafkaTopicPartition(topic, partition) for partition in range(counts.get(topic, 0))]
        consumer.assign(partitions)
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        for tp in partitions:
            consumer.seek(tp, begins[tp])
        while [tp for tp in partitions if await consumer.position(tp) < ends[tp]]:
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                yield batch
    finally:
        await consumer.stop()


async def read_events(broker: str, payload: type[Payload], topic: str | None = None) -> list[Event[Any]]:
    """The events of a payload's topic, decoded; watermarks and seals are left out."""
    name = topic or topics_carrying(payload)[0].name
    return list(_events(await read_topic(broker, name), payload))


async def each_event(broker: str, payload: type[Payload]) -> AsyncIterator[Event[Any]]:
    """As `read_events`, of which there may be more than memory can hold; in order within a partition only."""
    async for batch in _batches(broker, topics_carrying(payload)[0].name):
        for event in _events(batch, payload):
            yield event


def _events(records: Iterable[Record], payload: type[Payload]) -> Iterator[Event[Any]]:
    for record in records:
        attributes = attributes_of(record.headers)
        if attributes["ce_type"] not in IN_BAND_TYPES:
            data = payload.model_validate_json(record.value or b"")
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            yield Event(data, event_id, time_us, record.topic, record.partition, record.offset, attributes)


@dataclass
class Running:
    """A service running in this process, on a port of its own."""

    runtime: Runtime[Any]
    url: str
    _task: asyncio.Task[None]

    def client(self, token: str | None = None) -> AsyncClient:
        """The typed client of this service. Each call is sent once: what comes back is what is looked at."""
        return AsyncClient({self.runtime.service.name: self.url}, token=token, attempts=1)

    async def stop(self) -> None:
        self.runtime.stop()
        await self._task


@contextlib.asynccontextmanager
async def running(
    service: Service[Any],
    broker: str,
    data_dir: Path,
    own: Any = None,
    *,
    http: bool = False,
    group: str | None = None,
    **settings: Any,
) -> AsyncIterator[Running]:
    """Run a service in this process until the block ends; it is ready inside the block. `http=True` opens its port.

    Without `group`, its consumer group is one of its data folder's own.
    """
    import uvicorn

    from evenkeel.libs.http.app import create_app

    group = group or f"test-{service.name}-{data_dir.name}"
    # Tests of one module share a broker, and each starts its services anew.
    settings = {"accept_new_store": True} | settings
    claim_folder(data_dir)
    shared = Settings(data_dir=data_dir, broker=broker, **settings)
    claim_folder(data_dir)
    bus = KafkaBus(broker, group, group, FetchSettings(max_wait_ms=20))
    runtime: Runtime[Any] = Runtime(service, shared, own if own is not None else service.settings(), bus)
    await create_map_topics(broker)
    server, serving, url = None, None, ""
    if http:
        config = uvicorn.Config(create_app(runtime), port=0, log_config=None, access_log=False, lifespan="off")
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.005)
        url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    task = asyncio.create_task(runtime.run())

    async def ready() -> bool:
        if task.done():
            task.result()
        return runtime.not_ready_reason is None

    try:
        await eventually(ready, f"{service.name} to be ready: {runtime.not_ready_reason}")
        yield Running(runtime, url, task)
    finally:
        runtime.stop()
        if server is not None and serving is not None:
            server.should_exit = True
            await serving
        await task


async def rebuilt(service: Service[Any], broker: str, data_dir: Path, own: Any = None) -> int:
    """Rebuild a service's store as `evenkeel rebuild` does, in this process; how many records it published."""
    bus = KafkaBus(broker, f"test-{service.name}", f"test-{service.name}", FetchSettings(max_wait_ms=20))
    settings = Settings(data_dir=data_dir, broker=broker)
    runtime: Runtime[Any] = Runtime(service, settings, own if own is not None else service.settings(), bus)
    await runtime.prepare_rebuild()
    task = asyncio.create_task(runtime.run())

    async def whole() -> bool:
        if task.done():
            task.result()
        return runtime.rebuilt.is_set()

    await eventually(whole, f"{service.name} to be rebuilt: {runtime.not_ready_reason}")
    runtime.stop()
    await task
    return runtime.publisher.count


HOLDER: Final = "tester"
"""Whom facts name that were commanded with a token of a test."""


def write_token(data_dir: Path, *roles: str) -> str:
    """A token with these roles, in the data folder's tokens file."""
    import hashlib
    import json
    import secrets

    token, path = secrets.token_urlsafe(24), data_dir / "keys" / "tokens.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else {}
    known[hashlib.sha256(token.encode()).hexdigest()] = {"name": HOLDER, "roles": list(roles)}
    path.write_text(json.dumps(known))
    return token
