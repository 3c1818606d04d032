"""The broker by aiokafka.

What was learnt on aiokafka 0.14 and Kafka 4.3 (guarantees.md, section 3): calls hang while the broker does not answer, so
each has a time limit; a producer that saw an error is thrown away, because it fails an expired batch and sends the next;
batches are built by hand, one in flight per partition, because that is both the fastest way and the only ordered one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from aiokafka.structs import OffsetAndMetadata

from contracts.envelope import Record
from contracts.topics import Topic
from libs.bus.protocol import PROMPT, FetchSettings, OutgoingRecord, TopicPartition
from libs.errors import Retry

T = TypeVar("T")
log = structlog.get_logger(__name__)

CALL_SECONDS: Final = 30.0
STOP_SECONDS: Final = 3.0

PRODUCER_SETTINGS: Final[dict[str, Any]] = {
    "acks": "all",
    "enable_idempotence": False,
    "compression_type": "snappy",
    "max_batch_size": 524_288,
    "max_request_size": 1_048_576,
    "linger_ms": 0,
    "request_timeout_ms": 20_000,
    "retry_backoff_ms": 100,
}
"""Idempotence is neither needed nor sufficient: repeats are known by their sequence (guarantees.md, section 3)."""

CONSUMER_SETTINGS: Final[dict[str, Any]] = {
    "enable_auto_commit": False,
    "auto_offset_reset": "none",
    "isolation_level": "read_uncommitted",
    "check_crcs": True,
    "max_partition_fetch_bytes": 2_097_152,
    "fetch_max_wait_ms": 100,
    "request_timeout_ms": 40_000,
    "retry_backoff_ms": 100,
}


async def _call(what: str, awaitable: Awaitable[T], seconds: float = CALL_SECONDS) -> T:
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except (KafkaError, TimeoutError, ConnectionError, OSError) as error:
        raise Retry(f"broker: {what}: {type(error).__name__} {error}".rstrip()) from error


class KafkaBus:
    """See libs.bus.protocol.Bus."""

    def __init__(self, broker: str, client_id: str, group_id: str | None = None, fetch: FetchSettings = PROMPT) -> None:
        self._broker, self._client_id, self._group_id, self._fetch = broker, client_id, group_id, fetch
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()

    async def start(self) -> None:
        if self._consumer is None:
            settings = CONSUMER_SETTINGS | {
                "fetch_max_wait_ms": self._fetch.max_wait_ms,
                "fetch_min_bytes": self._fetch.min_bytes,
            }
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._broker, client_id=self._client_id, group_id=self._group_id, **settings
            )
            try:
                await _call("connect", consumer.start())
            except Retry:
                await _quietly(consumer.stop())
                raise
            self._consumer = consumer
        await self._live_producer()

    async def _live_producer(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._broker, client_id=self._client_id, **PRODUCER_SETTINGS
                )
                try:
                    await _call("connect", producer.start())
                except Retry:
                    await _quietly(producer.stop())
                    raise
                self._producer = producer
            return self._producer

    async def stop(self) -> None:
        consumer, producer, self._consumer, self._producer = self._consumer, self._producer, None, None
        await asyncio.gather(*(_quietly(client.stop()) for client in (consumer, producer) if client is not None))

    async def partition_counts(self, topics: Iterable[str]) -> dict[str, int]:
        async with _Admin(self._broker, self._client_id) as admin:
            found = await _call("describe topics", admin.describe_topics(list(topics)))
        return {t["topic"]: len(t["partitions"]) for t in found if t["error_code"] == 0}

    async def create_topics(self, topics: Iterable[Topic]) -> None:
        await self._create([_new_topic(t.name, t.partitions, t.config) for t in topics])

    async def create_raw_topic(self, name: str, partitions: int) -> None:
        config = {"compression.type": "uncompressed", "message.timestamp.type": "LogAppendTime"}
        await self._create([_new_topic(name, partitions, config)])

    async def _create(self, topics: list[NewTopic]) -> None:
        async with _Admin(self._broker, self._client_id) as admin:
            existing = set(await _call("list topics", admin.list_topics()))
            for topic in topics:
                if topic.name in existing:
                    continue
                try:
                    answer = await _call("create topics", admin.create_topics([topic]))
                except TopicAlreadyExistsError:
                    continue
                for name, code, *rest in answer.topic_errors:
                    if code not in (0, TopicAlreadyExistsError.errno):
                        raise Retry(f"broker: topic {name} could not be created: error {code} {rest}")

    @property
    def _reader(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise Retry("broker: not connected")
        return self._consumer

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        self._reader.assign([KafkaTopicPartition(*tp) for tp in positions])
        for tp, offset in positions.items():
            self._reader.seek(KafkaTopicPartition(*tp), offset)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        self._reader.pause(*(KafkaTopicPartition(*tp) for tp in partitions))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        self._reader.resume(*(KafkaTopicPartition(*tp) for tp in partitions))

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        batch = await _call("fetch", self._reader.getmany(timeout_ms=timeout_ms, max_records=max_records))
        return cast(
            "dict[TopicPartition, Sequence[Record]]",
            {(tp.topic, tp.partition): records for tp, records in batch.items()},
        )

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        found = await _call("offsets", self._reader.beginning_offsets([KafkaTopicPartition(*tp) for tp in partitions]))
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        found = await _call("offsets", self._reader.end_offsets([KafkaTopicPartition(*tp) for tp in partitions]))
        return {(tp.topic, tp.partition): offset for tp, offset in found.items()}

    async def read(self, tp: TopicPartition, start: int, end: int) -> list[Record]:
        consumer = AIOKafkaConsumer(bootstrap_servers=self._broker, client_id=self._client_id, **CONSUMER_SETTINGS)
        partition = KafkaTopicPartition(*tp)
        try:
            await _call("connect", consumer.start())
            consumer.assign([partition])
            first = (await _call("offsets", consumer.beginning_offsets([partition])))[partition]
            last = min(end, (await _call("offsets", consumer.end_offsets([partition])))[partition])
            found: list[Record] = []
            if max(start, first) < last:
                consumer.seek(partition, max(start, first))
            while max(start, first) < last and await consumer.position(partition) < last:
                batch = await _call("fetch", consumer.getmany(partition, timeout_ms=500))
                found += [record for records in batch.values() for record in records if record.offset < last]
            return found
        finally:
            await _quietly(consumer.stop())

    def ends(self) -> dict[TopicPartition, int]:
        found = ((tp, self._reader.highwater(tp)) for tp in self._reader.assignment())
        return {(tp.topic, tp.partition): end for tp, end in found if end is not None}

    async def publish(self, records: Sequence[OutgoingRecord]) -> None:
        by_partition: defaultdict[TopicPartition, list[OutgoingRecord]] = defaultdict(list)
        for record in records:
            by_partition[record.topic, record.partition].append(record)
        producer = await self._live_producer()
        sends = [asyncio.ensure_future(_send_in_order(producer, tp, group)) for tp, group in by_partition.items()]
        together = asyncio.gather(*sends)
        try:
            await _call("publish", together, CALL_SECONDS + len(records) / 1000)
        except Retry:
            for send in sends:
                send.cancel()
            # Looked at, or asyncio complains of it whenever it is collected.
            together.add_done_callback(lambda done: done.cancelled() or done.exception())
            if self._producer is producer:
                self._producer = None
            await _quietly(producer.stop())
            raise

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        if self._group_id is None or not positions:
            return
        offsets = {KafkaTopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in positions.items()}
        await _quietly(self._reader.commit(offsets))

    def group_reader(self, topic: str) -> KafkaGroupReader:
        if self._group_id is None:
            raise ValueError("a group reader needs a group id")
        return KafkaGroupReader(self._broker, self._client_id, f"{self._group_id}-shared", topic, self._fetch)


class KafkaGroupReader:
    """See libs.bus.protocol.GroupReader."""

    def __init__(self, broker: str, client_id: str, group_id: str, topic: str, fetch: FetchSettings) -> None:
        settings = CONSUMER_SETTINGS | {
            "fetch_max_wait_ms": fetch.max_wait_ms,
            "fetch_min_bytes": fetch.min_bytes,
            "auto_offset_reset": "earliest",
            "session_timeout_ms": 10_000,
            "max_poll_interval_ms": 300_000,
        }
        self._topic = topic
        self._settings = settings | {"bootstrap_servers": broker, "client_id": client_id, "group_id": group_id}
        self._consumer: AIOKafkaConsumer | None = None

    async def start(self) -> None:
        consumer = AIOKafkaConsumer(self._topic, **self._settings)
        try:
            await _call("connect", consumer.start())
        except Retry:
            await _quietly(consumer.stop())
            raise
        self._consumer = consumer

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _quietly(consumer.stop())

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        assert self._consumer is not None
        batch = await _call("fetch", self._consumer.getmany(timeout_ms=timeout_ms, max_records=max_records))
        return cast(
            "dict[TopicPartition, Sequence[Record]]",
            {(tp.topic, tp.partition): records for tp, records in batch.items()},
        )

    async def commit(self, positions: Mapping[TopicPartition, int]) -> None:
        assert self._consumer is not None
        offsets = {KafkaTopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in positions.items()}
        await _quietly(self._consumer.commit(offsets))

    async def rewind(self) -> None:
        assert self._consumer is not None
        await _call("rewind", self._consumer.seek_to_committed())


def _new_topic(name: str, partitions: int, config: dict[str, str]) -> NewTopic:
    # The empty assignment is what this client wants beside -1, the broker's default replication factor.
    return NewTopic(name, partitions, -1, replica_assignments={}, topic_configs=config)


async def _send_in_order(producer: AIOKafkaProducer, tp: TopicPartition, records: list[OutgoingRecord]) -> None:
    topic, partition = tp
    batch = producer.create_batch()
    for record in records:
        while batch.append(key=record.key, value=record.value, timestamp=None, headers=record.headers) is None:
            if not batch.record_count():
                raise Retry(f"broker: a record for {topic} is larger than {PRODUCER_SETTINGS['max_batch_size']} bytes")
            await (await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
    await (await producer.send_batch(batch, topic, partition=partition))


async def _quietly(awaitable: Awaitable[object]) -> None:
    try:
        await asyncio.wait_for(awaitable, STOP_SECONDS)
    except (KafkaError, TimeoutError, ConnectionError, OSError) as error:
        log.debug("broker call given up", error=f"{type(error).__name__} {error}")
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        # The client cancels its own tasks when it stops without a broker, and lets that out: nobody cancelled us.
        log.debug("broker call given up", error=f"the client cancelled itself {error}")


class _Admin:
    """An admin client for the length of one call."""

    def __init__(self, broker: str, client_id: str) -> None:
        self._admin = AIOKafkaAdminClient(bootstrap_servers=broker, client_id=client_id, request_timeout_ms=15_000)

    async def __aenter__(self) -> AIOKafkaAdminClient:
        try:
            await _call("connect", self._admin.start())
        except Retry:
            await _quietly(self._admin.close())
            raise
        return self._admin

    async def __aexit__(self, *_: object) -> None:
        await _quietly(self._admin.close())
