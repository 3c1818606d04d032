"""From what a handler gave back to records: ids, sequences, partitions and envelopes, all fixed inside the transaction."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec

from evenkeel.contracts.envelope import CLOCK_TYPE, SEAL_TYPE, encode, format_us, is_sampled, type_of
from evenkeel.contracts.ids import derived_id
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.runtime import ClockAdvanced, SourcesSealed
from evenkeel.contracts.topics import Plane, Topic, published_by, topic_of
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.service import Derived, Output, Seal, Watermark
from evenkeel.libs.telemetry.tracing import BatchTrace

MAX_VALUE_BYTES: Final = 450_000
"""Of one record of ours. A batch of the client takes 524,288 bytes, of which keys and headers need some."""
CLOCK_SHARD: Final = "clock"
_unpack = msgspec.msgpack.Decoder(list[OutgoingRecord])


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key on our own topics: CRC-32, as librdkafka's `consistent` partitioner.

    >>> partition_of(b"UA1545", 3)
    2
    """
    return zlib.crc32(key) % partitions


def source_of(service: str, store_id: str) -> str:
    """The CloudEvents source of what a store says."""
    return f"/evenkeel/{service}/{store_id}"


def pack(records: list[OutgoingRecord]) -> bytes:
    """One outbox row."""
    return msgspec.msgpack.encode(records)


def unpack(blob: bytes) -> list[OutgoingRecord]:
    return [OutgoingRecord(*record) for record in _unpack.decode(blob)]


class Published(Protocol):
    """What is on the topics already, while a store is rebuilt."""

    def has(self, topic: Topic, partition: int, event_id: str, stream: str | None, order_us: int) -> bool: ...

    def has_watermark(self, topic: str, partition: int, stream: str, time_us: int) -> bool: ...


class OutputBuilder:
    """Builds the records of one transaction; `finish` says the last of them. Sequences it hands out are the store's once the
    transaction commits."""

    def __init__(
        self,
        service: str,
        store_id: str,
        sequences: Mapping[str, int],
        now_us: int,
        trace: BatchTrace,
        published: Published | None = None,
    ) -> None:
        self._service, self._store_id, self._now_us, self._published = service, store_id, now_us, published
        self._source = source_of(service, store_id).encode()
        self._recorded = format_us(now_us).encode()
        self._before = sequences
        self._trace = trace
        self._indices: dict[tuple[str, str], int] = {}
        self.sequences: dict[str, int] = {}
        self.records: list[OutgoingRecord] = []
        self._clocks: dict[str, tuple[Topic, dict[str, int]]] = {}
        """By topic: how far its streams have come."""
        self._routes: dict[type[Payload], tuple[Topic, bytes]] = {}

    def _route(self, payload: type[Payload]) -> tuple[Topic, bytes]:
        route = self._routes.get(payload)
        if route is None:
            topic = topic_of(payload, self._service)
            route = self._routes[payload] = (topic, type_of(topic.name))
        return route

    def add(self, outputs: Iterable[Output], shard: str) -> None:
        """Append the outputs of one handler call, in order."""
        sequence = self.sequences.get(shard, self._before.get(shard, 0))
        shard_bytes = shard.encode()
        for output in outputs:
            if isinstance(output, Derived):
                sequence += self._add_derived(output, shard_bytes, sequence + 1)
            elif isinstance(output, Watermark):
                self._advance(output)
            else:
                sequence = self._add_seals(output, shard, sequence)
        if sequence != self._before.get(shard, 0):
            self.sequences[shard] = sequence

    def _add_derived(self, output: Derived, shard: bytes, sequence: int) -> bool:
        """False if it is on its topic already."""
        payload, cause = output.payload, output.cause
        topic, type_name = self._route(type(payload))
        event_id = output.id
        if event_id is None:
            slot = (cause.id, topic.name)
            index = self._indices.get(slot, 0)
            self._indices[slot] = index + 1
            event_id = derived_id(self._service, cause.id, topic.name, index)
        key = topic.key(payload).encode()
        partition = partition_of(key, topic.partitions)
        time_us = cause.time_us if output.time_us is None else output.time_us
        if self._published is not None:
            order_us = time_us if output.order_us is None else output.order_us
            if self._published.has(topic, partition, event_id, output.stream, order_us):
                return False
        traceparent = self._trace.context_for(cause, shard)
        if topic.plane is Plane.CONTROL and (traceparent is None or not is_sampled(traceparent)):
            traceparent = self._trace.begin(
                event_id, topic.name
            )  # facts are few, and each may start a turn of the loop
        headers = encode(
            id=event_id,
            source=self._source,
            type=type_name,
            time_us=time_us,
            recorded=self._recorded,
            sequence=sequence,
            shard=shard,
            correlation_id=cause.correlation_id,
            causation_id=None if payload.follows_from() == cause.id else cause.id,
            stream=output.stream,
            order_us=output.order_us,
            traceparent=traceparent,
        )
        value = payload.__pydantic_serializer__.to_json(payload)
        if len(value) > MAX_VALUE_BYTES:
            raise ValueError(
                f"a {topic.name} of {len(value)} bytes is too large to be published, at most {MAX_VALUE_BYTES}"
            )
        self.records.append(OutgoingRecord(topic.name, partition, key, value, headers))
        return True

    def _advance(self, output: Watermark) -> None:
        topic, _ = self._route(output.payload)
        _, streams = self._clocks.setdefault(topic.name, (topic, {}))
        streams[output.stream] = max(output.time_us, streams.get(output.stream, output.time_us))

    def finish(self) -> list[OutgoingRecord]:
        """All records of the transaction; behind everything else, how far the streams of each topic have come."""
        clocks, self._clocks = self._clocks, {}
        for topic, streams in clocks.values():
            if topic.compacted and self._published is not None:
                continue  # silent until the store is whole, as its events
            for partition in range(topic.partitions):
                self._add_clock(topic, partition, streams)
        return self.records

    def _add_clock(self, topic: Topic, partition: int, streams: Mapping[str, int]) -> None:
        published = self._published
        if published is not None:
            streams = {s: us for s, us in streams.items() if not published.has_watermark(topic.name, partition, s, us)}
        if streams:
            said = ClockAdvanced(watermarks={stream: format_us(us) for stream, us in sorted(streams.items())})
            sequence = self.sequences.get(CLOCK_SHARD, self._before.get(CLOCK_SHARD, 0)) + 1
            self.sequences[CLOCK_SHARD] = sequence
            # A compacted topic keeps the last one of each partition.
            self._add_in_band(
                topic, partition, CLOCK_TYPE, CLOCK_TYPE, said, max(streams.values()), CLOCK_SHARD, sequence
            )

    def _add_seals(self, output: Seal, shard: str, sequence: int) -> int:
        said = SourcesSealed(sources=sorted(source_of(self._service, store) for store in output.stores))
        for topic in published_by(self._service):
            for partition in range(topic.partitions):
                sequence += 1
                # A compacted topic would drop a former seal with the same key.
                key = f"{SEAL_TYPE}/{self._store_id}/{sequence}"
                self._add_in_band(topic, partition, key, SEAL_TYPE, said, self._now_us, shard, sequence)
        return sequence

    def _add_in_band(
        self,
        topic: Topic,
        partition: int,
        key: str,
        type_name: str,
        said: Payload,
        time_us: int,
        shard: str,
        sequence: int,
    ) -> None:
        event_id = derived_id(self._service, f"{self._store_id}/{shard}/{sequence}", type_name, 0)
        headers = encode(
            id=event_id,
            source=self._source,
            type=type_name.encode(),
            time_us=time_us,
            recorded=self._recorded,
            sequence=sequence,
            shard=shard.encode(),
            correlation_id=event_id,
        )
        value = said.__pydantic_serializer__.to_json(said)
        self.records.append(OutgoingRecord(topic.name, partition, key.encode(), value, headers))
