"""What stands in the topics, read with librdkafka: records as they are, and events by the CloudEvents headers alone."""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any, Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

SERVICES: Final = ("ingest", "feature", "trainer", "registry", "serving", "monitor", "governance")
CLOCK: Final = "io.evenkeel.clock-advanced.v1"
HEARTBEAT: Final = "evenkeel-heartbeat"
VIEW: Final = "feature.view-updated.v1"
_MAP_TOPIC: Final = re.compile(rf"({'|'.join(SERVICES)})\.[a-z-]+\.v[0-9]+")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_US: Final = {"ms": 1_000, "s": 10**6, "m": 60 * 10**6, "h": 3_600 * 10**6, "d": 86_400 * 10**6}
READ_SECONDS: Final = 60.0
_NO_LEADER_YET: Final = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


@lru_cache(maxsize=65_536)
def time_us(text: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time."""
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(microseconds=1)


def duration_us(text: str | int) -> int:
    """Microseconds of a declared duration, such as 36h."""
    found = re.fullmatch(r"([0-9]+)(ms|s|m|h|d)", str(text))
    return int(found[1]) * _UNITS_US[found[2]] if found else int(text)


class Record(NamedTuple):
    """One Kafka record; `timestamp` is the broker's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(slots=True, eq=False)
class Event:
    """A record of one of the system's topics that carries an envelope; a clock record among them."""

    record: Record
    id: str
    source: str
    shard: str
    sequence: int | None
    time_us: int
    recorded: str
    stream: str
    order_us: int
    """When it takes its turn: a late event does at its stream's watermark."""
    is_clock: bool
    data: dict[str, Any]

    @property
    def topic(self) -> str:
        return self.record.topic

    @property
    def place(self) -> str:
        return self.record.place

    @property
    def origin(self) -> tuple[str, str, int | None]:
        """By this a repeat is known: (store, shard, sequence)."""
        return self.source, self.shard, self.sequence


def event_of(record: Record) -> Event | None:
    """None for a record that is no event of the system: somebody else wrote it."""
    try:
        found = {name: value.decode() for name, value in record.headers if value is not None}
        kind, sequence = found["ce_type"], found.get("ce_sequence")
        if found["ce_specversion"] != "1.0" or kind not in (CLOCK, "io.evenkeel." + record.topic):
            return None
        return Event(
            record=record,
            id=found["ce_id"],
            source=found["ce_source"],
            shard=found.get("ce_shard", ""),
            sequence=None if sequence is None else int(sequence),
            time_us=time_us(found["ce_time"]),
            recorded=found.get("ce_recordedtime", ""),
            stream=found.get("ce_stream", ""),
            order_us=time_us(found.get("ce_ordertime", found["ce_time"])),
            is_clock=kind == CLOCK,
            data=json.loads(record.value or b""),
        )
    except (KeyError, ValueError, TypeError):
        return None


@dataclass
class Topics:
    """All topics as they stood at one moment."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    """By offset within each partition."""
    ends: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)
    """(topic, partition) → the first offset that is there and the one after the last."""

    @cached_property
    def events(self) -> dict[str, list[Event]]:
        """Every event of the system's topics, repeats among them, in the order of their records."""
        return {
            topic: [event for event in map(event_of, records) if event is not None]
            for topic, records in self.records.items()
            if is_ours(topic)
        }

    @cached_property
    def _once(self) -> dict[str, list[Event]]:
        once: dict[str, list[Event]] = {}
        for topic, events in self.events.items():
            seen: dict[str, Event] = {}
            for event in events:
                if not event.is_clock:
                    seen.setdefault(event.id, event)
            once[topic] = list(seen.values())
        return once

    def once(self, topic: str) -> list[Event]:
        """The events of a topic without clock records, each at its first place only."""
        return self._once.get(topic, [])

    def data(self, topic: str) -> Iterator[dict[str, Any]]:
        return (event.data for event in self.once(topic))

    @cached_property
    def by_place(self) -> dict[tuple[str, int, int], Record]:
        return {(r.topic, r.partition, r.offset): r for records in self.records.values() for r in records}

    @cached_property
    def raw(self) -> set[str]:
        """The producers' topics, as the declarations name them."""
        specs = [declared["spec"] for declared in self.data("registry.stream-declared.v1")]
        labels = [spec["label"]["topic"] for spec in specs if spec.get("label")]
        return {spec["topic"] for spec in specs} | set(labels)

    @cached_property
    def logged(self) -> set[str]:
        """What the audit log holds: everything that services say, but for governance's own words and the view's cache."""
        return {
            topic for topic in self.records if is_ours(topic) and topic != VIEW and service_of(topic) != "governance"
        }


def is_ours(topic: str) -> bool:
    return _MAP_TOPIC.fullmatch(topic) is not None


def service_of(topic: str) -> str:
    return topic.partition(".")[0]


def end_offsets(broker: str) -> dict[tuple[str, int], tuple[int, int]]:
    """(first offset, offset after the last) of every partition of every topic."""
    consumer = _consumer(broker)
    try:
        return _ends(consumer, _partitions(consumer))
    finally:
        consumer.close()


def read_topics(broker: str) -> Topics:
    """Every record of every topic, to its end of now."""
    consumer = _consumer(broker)
    try:
        topics = Topics()
        partitions = _partitions(consumer)
        topics.records = {topic: [] for topic, _ in partitions}
        topics.ends = _ends(consumer, partitions)
        waiting = {place for place, (first, end) in topics.ends.items() if end > first}
        consumer.assign([TopicPartition(*place, topics.ends[place][0]) for place in waiting])
        found: dict[tuple[str, int], list[Record]] = {place: [] for place in waiting}
        idle = 0
        while waiting:
            messages = consumer.consume(10_000, 0.5)
            idle = 0 if messages else idle + 1
            if idle * 0.5 > READ_SECONDS:
                raise TimeoutError(f"{broker} gave no more records of {sorted(waiting)}")
            for message in messages:
                place, offset, error = (
                    (message.topic() or "", message.partition() or 0),
                    message.offset() or 0,
                    message.error(),
                )
                if error is not None:
                    if error.code() != KafkaError._PARTITION_EOF:
                        raise RuntimeError(str(error))
                    waiting.discard(place)
                    continue
                end = topics.ends[place][1]
                if offset < end:
                    headers: Any = message.headers() or ()
                    stamp = message.timestamp()[1]
                    found[place].append(Record(*place, offset, stamp, message.key(), message.value(), headers))
                if offset + 1 >= end:
                    waiting.discard(place)
        for (topic, _), records in sorted(found.items()):
            topics.records[topic] += records
        return topics
    finally:
        consumer.close()


def _consumer(broker: str) -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": broker,
            "group.id": f"oracle-{secrets.token_hex(8)}",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "check.crcs": True,
            "fetch.wait.max.ms": 20,
            "log_level": 0,
        }
    )


def _partitions(consumer: Consumer) -> list[tuple[str, int]]:
    topics = consumer.list_topics(timeout=READ_SECONDS).topics
    return [
        (name, number) for name, topic in topics.items() if not name.startswith("__") for number in topic.partitions
    ]


def _ends(consumer: Consumer, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    return {place: _range(consumer, TopicPartition(*place)) for place in partitions}


def _range(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """First offset and the one after the last; a broker that has just come back does not lead each partition at once."""
    until = time.monotonic() + READ_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=READ_SECONDS, cached=False)
        except KafkaException as error:
            if error.args[0].code() not in _NO_LEADER_YET or time.monotonic() > until:
                raise
        consumer.poll(0.1)
