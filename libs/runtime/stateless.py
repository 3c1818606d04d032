"""A stateless one-to-one step (stream scoring): replicas share the partitions by consumer group.

It keeps no positions and no counter of its own. An output passes on its input's identity (shard and sequence, with this
service's name) and goes to the partition of its input's key, so that a repeat after a crash, which has the same identity,
is recognised downstream. Only prefixes whose outputs are all acknowledged are committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import structlog
from pydantic import ValidationError

from evenkeel.contracts.envelope import (
    IN_BAND_TYPES,
    SEAL_TYPE,
    EnvelopeError,
    Event,
    Record,
    attributes_of,
    encode,
    format_us,
    origin_of,
    parse_us,
    seal_value,
    sealed_sources,
    type_of,
)
from evenkeel.contracts.ids import derived_id
from evenkeel.contracts.topics import topic_of, topics_carrying
from evenkeel.libs.bus.protocol import GroupReader, OutgoingRecord
from evenkeel.libs.errors import Retry, Stop
from evenkeel.libs.runtime.batch import payload_fault, refuse_nul
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.outputs import partition_of, source_of
from evenkeel.libs.service import Stateless

if TYPE_CHECKING:
    from evenkeel.libs.runtime.runtime import Runtime

log = structlog.get_logger(__name__)
COMMIT_SECONDS: Final = 0.5


async def run_stateless(handler: Stateless[Any], runtime: Runtime[Any]) -> None:
    """Score for as long as the service lives."""
    step = _Step(handler, runtime)
    reader = runtime.bus.group_reader(step.topic)
    while not runtime.stopping:
        try:
            await reader.start()
            await step.consume(reader)
        except Retry as error:
            runtime.metrics.retries.labels("broker").inc()
            log.warning("scoring waits", error=str(error))
            await asyncio.sleep(0.5)
        finally:
            await reader.stop()


class _Step:
    def __init__(self, handler: Stateless[Any], runtime: Runtime[Any]) -> None:
        self._handler, self._runtime = handler, runtime
        (self._input,) = topics_carrying(handler.payload)
        self._output = topic_of(handler.output, runtime.service.name)
        self.topic = self._input.name
        if self._input.partitions != self._output.partitions:
            raise Stop(
                f"{self._input.name} and {self._output.name} need the same partition count: output follows input"
            )
        self._types = type_of(self._input.name), type_of(self._output.name)
        self._validate = handler.payload.__pydantic_validator__.validate_json
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        self._dead: deque[tuple[Record, str]] = deque()

    async def consume(self, reader: GroupReader) -> None:
        loop = asyncio.get_running_loop()
        acknowledged: dict[tuple[str, int], int] = {}
        committed_at = loop.time()
        try:
            while not self._runtime.stopping:
                batch = await reader.getmany(timeout_ms=200, max_records=self._runtime.settings.max_batch_records)
                records = [record for partition in batch.values() for record in partition]
                if records:
                    outgoing = await loop.run_in_executor(self._threads, self._score, records)
                    await self._bury()
                    await self._publish(outgoing)
                    failpoint("score.sent")
                    acknowledged |= {tp: partition[-1].offset + 1 for tp, partition in batch.items() if partition}
                if acknowledged and loop.time() - committed_at > COMMIT_SECONDS:
                    await reader.commit(acknowledged)
                    acknowledged, committed_at = {}, loop.time()
        finally:
            if acknowledged:
                with contextlib.suppress(Retry):
                    await reader.commit(acknowledged)

    async def _publish(self, outgoing: list[OutgoingRecord]) -> None:
        wait_seconds = 0.1
        while outgoing:
            try:
                await self._runtime.bus.publish(outgoing)
                break
            except Retry as error:
                self._runtime.metrics.retries.labels("broker").inc()
                log.warning("scoring waits", error=str(error))
                await asyncio.sleep(wait_seconds)
                wait_seconds = min(wait_seconds * 2, 5.0)
        self._runtime.metrics.published.labels(self._output.name).inc(len(outgoing))

    async def _bury(self) -> None:
        if self._dead:
            dead, self._dead = list(self._dead), deque()
            await self._runtime.record([self._runtime.dead_letter(record, reason) for record, reason in dead])

    def _score(self, records: Sequence[Record]) -> list[OutgoingRecord]:
        """In the scoring thread. Order within a partition is kept, with watermarks where they stood."""
        decoded = [self._decode(record) for record in records]
        events = [event for event in decoded if isinstance(event, Event)]
        outputs = iter(self._handler.handler(events, self._runtime.context) if events else ())
        recorded = format_us(self._runtime.clock.now_us()).encode()
        trace = self._runtime.tracing.batch()
        outgoing = []
        for event in decoded:
            if isinstance(event, OutgoingRecord):
                outgoing.append(event)
            elif event is not None:
                payload = next(outputs)
                if payload is not None:
                    key = self._output.key(payload).encode()
                    partition = partition_of(key, self._output.partitions)
                    headers = self._headers(event, recorded, trace.context_for(event, b""))
                    value = payload.__pydantic_serializer__.to_json(payload)
                    outgoing.append(OutgoingRecord(self._output.name, partition, key, value, headers))
        trace.finish()
        self._runtime.metrics.consumed.labels(self.topic).inc(len(records))
        return outgoing

    def _headers(self, event: Event[Any], recorded: bytes, traceparent: str | None) -> list[tuple[str, bytes]]:
        origin = origin_of(event.attributes)
        source, shard, sequence = origin if origin is not None else (b"", b"", event.offset)
        return encode(
            id=self._handler.id_of(event.id),
            source=source_of(self._runtime.service.name, source.rpartition(b"/")[2].decode()).encode(),
            type=self._types[1],
            time_us=event.time_us,
            recorded=recorded,
            sequence=sequence,
            shard=shard,
            correlation_id=event.correlation_id,
            causation_id=event.id,
            stream=event.attribute("stream"),
            watermark_us=event.watermark_us,
            traceparent=traceparent,
        )

    def _passed_on(self, record: Record, type_name: str) -> OutgoingRecord:
        """A watermark or seal on another topic is another record: under its input's id the audit log would hold it twice.

        What a sealed store's records became here is sealed with them.
        """
        own, key, value = self._runtime.service.name, record.key, record.value
        headers = [
            (name, derived_id(own, text.decode(), type_name, 0).encode() if name == "ce_id" else text)
            for name, text in record.headers
        ]
        if type_name == SEAL_TYPE:
            sources = sealed_sources(value)
            value = seal_value([*sources, *(source_of(own, source.rpartition("/")[2]) for source in sources)])
        return OutgoingRecord(self._output.name, record.partition, key, value, headers)

    def _decode(self, record: Record) -> Event[Any] | OutgoingRecord | None:
        try:
            attributes = attributes_of(record.headers)
            if attributes["ce_type"] in IN_BAND_TYPES:
                return self._passed_on(record, attributes["ce_type"].decode())
            if attributes["ce_type"] != self._types[0]:
                raise EnvelopeError(f"ce_type is {attributes['ce_type']!r}, this topic carries {self._types[0]!r}")
            value = record.value or b""
            refuse_nul(value)
            data = self._validate(value)
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            return Event(data, event_id, time_us, record.topic, record.partition, record.offset, attributes)
        except ValidationError as error:
            self._dead.append((record, payload_fault(error)))
        except (EnvelopeError, ValueError, RecursionError) as error:
            self._dead.append((record, f"envelope: {error}"))
        return None
