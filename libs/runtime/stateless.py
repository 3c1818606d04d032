"""A stateless one-to-one step (stream scoring): replicas share the partitions by consumer group.

It keeps no positions and no counter of its own. An output passes on its input's identity (shard and sequence, with this
service's name) and goes to the partition of its input's key, so that a repeat after a crash, which has the same identity,
is recognised downstream. Only prefixes whose outputs are all acknowledged are committed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog

from evenkeel.contracts.envelope import Event, Record, encode, format_us, origin_of, type_of
from evenkeel.contracts.ids import derived_id
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.runtime import ClockAdvanced, SourcesSealed
from evenkeel.contracts.topics import topic_of, topics_carrying
from evenkeel.libs.bus.protocol import GroupReader, OutgoingRecord
from evenkeel.libs.clock import Clock
from evenkeel.libs.errors import Retry, Stop, Undecodable
from evenkeel.libs.runtime.dead_letters import dead_letter
from evenkeel.libs.runtime.decoding import Decoder, open_envelope
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.outputs import partition_of, source_of
from evenkeel.libs.runtime.waiting import Backoff
from evenkeel.libs.service import Context, Host, Stateless
from evenkeel.libs.telemetry.tracing import Tracing

C = TypeVar("C", bound=Context)
log = structlog.get_logger(__name__)
COMMIT_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Scored:
    """What came of one batch."""

    outgoing: list[OutgoingRecord]
    dead: list[tuple[Record, str]]
    """What could not be used, and why."""


class StatelessStep(Generic[C]):
    """From inputs to outputs; pure but for the context. Belongs to the scoring thread."""

    def __init__(self, handler: Stateless[C], service: str, context: C, clock: Clock, tracing: Tracing) -> None:
        """Raises Stop if an output could not go to the partition of its input."""
        self._handler, self._service, self._context = handler, service, context
        self._clock, self._tracing = clock, tracing
        (self.input,) = topics_carrying(handler.payload)
        self.output = topic_of(handler.output, service)
        if self.input.partitions != self.output.partitions:
            raise Stop(f"{self.input.name} and {self.output.name} need the same partition count: output follows input")
        self._type = type_of(self.output.name)
        self._decoder = Decoder([self.input])

    def score(self, records: Sequence[Record]) -> Scored:
        """Order within a partition is kept, with clock records where they stood."""
        dead: list[tuple[Record, str]] = []
        decoded = [self._decode(record, dead) for record in records]
        events = [event for event in decoded if isinstance(event, Event)]
        payloads = iter(self._handler.handler(events, self._context) if events else ())
        recorded = format_us(self._clock.now_us()).encode()
        trace = self._tracing.batch()
        outgoing = []
        for one in decoded:
            if isinstance(one, OutgoingRecord):
                outgoing.append(one)
            elif one is not None:
                payload = next(payloads)
                if payload is not None:
                    key = self.output.key(payload).encode()
                    partition = partition_of(key, self.output.partitions)
                    headers = self._headers(one, payload, recorded, trace.context_for(one, b""))
                    value = payload.__pydantic_serializer__.to_json(payload)
                    outgoing.append(OutgoingRecord(self.output.name, partition, key, value, headers))
        trace.finish()
        return Scored(outgoing, dead)

    def _decode(self, record: Record, dead: list[tuple[Record, str]]) -> Event[Any] | OutgoingRecord | None:
        """None for what is added to `dead`."""
        try:
            found = self._decoder.decode(record, open_envelope(record))
        except Undecodable as error:
            dead.append((record, str(error)))
            return None
        return self._passed_on(record, found) if isinstance(found.data, (ClockAdvanced, SourcesSealed)) else found

    def _passed_on(self, record: Record, event: Event[ClockAdvanced | SourcesSealed]) -> OutgoingRecord:
        """What travels in band is another record on another topic: under its input's id the audit log would hold it twice.

        What a sealed store's records became here is sealed with them.
        """
        own, value = self._service, record.value
        headers = [
            (
                name,
                derived_id(own, event.id, event.attributes["ce_type"].decode(), 0).encode()
                if name == "ce_id"
                else text,
            )
            for name, text in record.headers
        ]
        if isinstance(event.data, SourcesSealed):
            theirs = event.data.sources
            ours = [source_of(own, source.rpartition("/")[2]) for source in theirs]
            sealed = SourcesSealed(sources=sorted({*theirs, *ours}))
            value = sealed.__pydantic_serializer__.to_json(sealed)
        return OutgoingRecord(self.output.name, record.partition, record.key, value, headers)

    def _headers(
        self, event: Event[Any], payload: Payload, recorded: bytes, traceparent: str | None
    ) -> list[tuple[str, bytes]]:
        origin = origin_of(event.attributes)
        source, shard, sequence = origin if origin is not None else (b"", b"", event.offset)
        return encode(
            id=self._handler.id_of(event.id),
            source=source_of(self._service, source.rpartition(b"/")[2].decode()).encode(),
            type=self._type,
            time_us=event.time_us,
            recorded=recorded,
            sequence=sequence,
            shard=shard,
            correlation_id=event.correlation_id,
            causation_id=None if payload.follows_from() == event.id else event.id,
            stream=event.attribute("stream"),
            order_us=event.order_us,
            traceparent=traceparent,
        )


class Scoring(Generic[C]):
    """Scores for as long as the service lives. Belongs to the event loop."""

    def __init__(self, handler: Stateless[C], service: str, host: Host[C]) -> None:
        """Raises Stop if an output could not go to the partition of its input."""
        self._service, self._host = service, host
        self._step = StatelessStep(handler, service, host.context, host.clock, host.tracing)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")

    async def run(self) -> None:
        reader = self._host.bus.group_reader(self._step.input.name)
        while not self._host.stopping:
            try:
                await reader.start()
                await self._consume(reader)
            except Retry as error:
                self._note(error)
                await asyncio.sleep(0.5)
            finally:
                await reader.stop()

    def _note(self, error: Retry) -> None:
        self._host.metrics.retries.labels("broker").inc()
        log.warning("scoring waits", error=str(error))

    async def _consume(self, reader: GroupReader) -> None:
        loop = asyncio.get_running_loop()
        acknowledged: dict[tuple[str, int], int] = {}
        committed_at = loop.time()
        try:
            while not self._host.stopping:
                batch = await reader.getmany(timeout_ms=200, max_records=self._host.settings.max_batch_records)
                records = [record for partition in batch.values() for record in partition]
                if records:
                    scored = await loop.run_in_executor(self._thread, self._step.score, records)
                    self._host.metrics.consumed.labels(self._step.input.name).inc(len(records))
                    if scored.dead:
                        await self._host.record([dead_letter(self._service, *one) for one in scored.dead])
                    await self._publish(scored.outgoing)
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
        backoff = Backoff(0.1)
        while outgoing:
            try:
                await self._host.bus.publish(outgoing)
                break
            except Retry as error:
                self._note(error)
                await asyncio.sleep(backoff.seconds())
        self._host.metrics.published.labels(self._step.output.name).inc(len(outgoing))
