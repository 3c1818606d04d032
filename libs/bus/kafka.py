"""The broker by aiokafka.

What was learnt on aiokafka 0.14 and Kafka 4.3 (guarantees.md, section 3): calls hang while the broker does not answer, so
each has a time limit; a producer that saw an error is thrown away, because it fails an expired batch and sends the next,
and so is a consumer, because it never recovers if it was assigned anew while it looked for its group's coordinator, and
some commits never end (a quarter of an hour of load with seven kills of the broker showed one); batches are built by hand,
one in flight per partition, because that is both the fastest way and the only ordered one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as KafkaTopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, TopicAlreadyExistsError
from aiokafka.structs import OffsetAndMetadata

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.topics import Topic
from evenkeel.libs.bus.protocol import PROMPT, FetchSettings, OutgoingRecord, TopicPartition
from evenkeel.libs.errors import Retry

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
    """See evenkeel.libs.bus.protocol.Bus."""

    def __init__(self, broker: str, client_id: str, group_id: str | None = None, fetch: FetchSettings = PROMPT) -> None:
        self._broker, self._client_id, self._group_id, self._fetch = broker, client_id, group_id, fetch
        self._consumer: AIOKafkaConsumer | None = None
        self._producer: AIOKafkaProducer | None = None
        self._connecting = asyncio.Lock()
        self._next: dict[TopicPartition, int] = {}
        """What is assigned, and the offset of each that `getmany` gives next."""
        self._paused: set[TopicPartition] = set()
        self._committing: asyncio.Future[None] | None = None
        self._committing_since = 0.0
        self._is_worn_out = False
        """Whether the consumer is to be replaced, because a commit of its got no answer."""

    async def start(self) -> None:
        await self._live_consumer()
        await self._live_producer()

    async def _live_consumer(self) -> AIOKafkaConsumer:
        async with self._connecting:
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
                if self._next:
                    _point(consumer, self._next)
                    consumer.pause(*(KafkaTopicPartition(*tp) for tp in self._paused))
            return self._consumer

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
        self._next, self._paused = dict(positions), set()
        if self._consumer is not None:
            _point(self._consumer, positions)

    def pause(self, partitions: Iterable[TopicPartition]) -> None:
        wanted = set(partitions)
        self._paused |= wanted
        if self._consumer is not None:
            self._consumer.pause(*(KafkaTopicPartition(*tp) for tp in wanted))

    def resume(self, partitions: Iterable[TopicPartition]) -> None:
        wanted = set(partitions)
        self._paused -= wanted
        if self._consumer is not None:
            self._consumer.resume(*(KafkaTopicPartition(*tp) for tp in wanted))

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, Sequence[Record]]:
        if self._is_worn_out:
            await self._drop_consumer()
        consumer = await self._live_consumer()
        try:
            batch = await _call("fetch", consumer.getmany(timeout_ms=timeout_ms, max_records=max_records))
        except Retry:
            await self._drop_consumer()
            raise
        for tp, records in batch.items():
            if records:
                self._next[tp.topic, tp.partition] = records[-1].offset + 1
        return cast(
            "dict[TopicPartition, Sequence[Record]]",
            {(tp.topic, tp.partition): records for tp, records in batch.items()},
        )

    async def _drop_consumer(self) -> None:
        """The next call that needs a consumer makes one, which goes on at the same positions."""
        consumer, self._consumer, self._is_worn_out = self._consumer, None, False
        if consumer is not None:
            await _quietly(consumer.stop())
        if self._committing is not None:
            self._committing.cancel()
            self._committing = None

    async def beginning_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets((await self._live_consumer()).beginning_offsets, partitions)

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        return await self._offsets((await self._live_consumer()).end_offsets, partitions)

    async def _offsets(
        self, ask: Callable[[list[KafkaTopicPartition]], Awaitable[Any]], partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        # All topics at once, but each by itself: of those asked for together, this client waits for one that is new to
        # it after the other, a tenth of a second each, which was most of a service's start.
        by_topic: defaultdict[str, list[KafkaTopicPartition]] = defaultdict(list)
        for topic, partition in partitions:
            by_topic[topic].append(KafkaTopicPartition(topic, partition))
        found = await _call("offsets", asyncio.gather(*map(ask, by_topic.values())))
        return {(tp.topic, tp.partition): offset for offsets in found for tp, offset in offsets.items()}

    async def read_between(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> AsyncIterator[Sequence[Record]]:
        left = {KafkaTopicPartition(*tp): after for tp, (first, after) in ranges.items() if first < after}
        if not left:
            return
        consumer = AIOKafkaConsumer(bootstrap_servers=self._broker, client_id=self._client_id, **CONSUMER_SETTINGS)
        try:
            await _call("connect", consumer.start())
            consumer.assign(list(left))
            for tp in left:
                consumer.seek(tp, ranges[tp.topic, tp.partition][0])
            while left:
                batch = await _call("fetch", consumer.getmany(timeout_ms=200, max_records=5000))
                for tp, records in batch.items():
                    within = [record for record in records if record.offset < left.get(tp, 0)]
                    if within:
                        yield cast("Sequence[Record]", within)
                for tp in [tp for tp, after in left.items() if await consumer.position(tp) >= after]:
                    del left[tp]
                    consumer.pause(tp)
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
            together.add_done_callback(_looked_at)
            if self._producer is producer:
                self._producer = None
            await _quietly(producer.stop())
            raise

    async def commit(self, positions: Mapping[TopicPartition, int]) -> bool:
        if self._group_id is None or not positions:
            return True
        now = asyncio.get_running_loop().time()
        if self._committing is not None and not self._committing.done():
            if now - self._committing_since > CALL_SECONDS:
                self._is_worn_out = True
            return False
        offsets = {KafkaTopicPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in positions.items()}
        # Not cancelled while the client lives: it would leave its request behind, with an error that nobody fetches.
        committing = self._committing = asyncio.ensure_future(self._reader.commit(offsets))
        committing.add_done_callback(_looked_at)
        self._committing_since = now
        await asyncio.wait({committing}, timeout=STOP_SECONDS)
        return committing.done() and _succeeded(committing)

    def group_reader(self, topic: str) -> KafkaGroupReader:
        if self._group_id is None:
            raise ValueError("a group reader needs a group id")
        return KafkaGroupReader(self._broker, self._client_id, f"{self._group_id}-shared", topic, self._fetch)


class KafkaGroupReader:
    """See evenkeel.libs.bus.protocol.GroupReader."""

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


def _point(consumer: AIOKafkaConsumer, positions: Mapping[TopicPartition, int]) -> None:
    consumer.assign([KafkaTopicPartition(*tp) for tp in positions])
    for tp, offset in positions.items():
        consumer.seek(KafkaTopicPartition(*tp), offset)


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
    await _ignored(asyncio.wait_for(awaitable, STOP_SECONDS))


async def _ignored(awaitable: Awaitable[object]) -> bool:
    """Whether it did what it should. In a task of its own: stopped without its broker, a client lets out that it cancelled
    its own tasks, and that must not look as if the caller was cancelled."""
    task = asyncio.ensure_future(awaitable)
    await asyncio.wait({task})
    return _succeeded(task)


def _looked_at(done: asyncio.Future[Any]) -> None:
    """Fetch what a call ended with, or asyncio complains of it whenever it is collected."""
    if not done.cancelled():
        done.exception()


def _succeeded(task: asyncio.Future[Any]) -> bool:
    """Whether a call that is done did what it should; raises what is not the broker's fault."""
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    if isinstance(error, (KafkaError, TimeoutError, ConnectionError, OSError, asyncio.CancelledError)):
        log.debug("broker call given up", error=f"{type(error).__name__} {error}")
    elif error is not None:
        raise error
    return error is None


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
