"""Original records as they came, read back from `ingest.event-rejected`: to look at, and to send again.

A rejected record is numbered by its offset on that topic, which has one partition; it is there as long as the topic
keeps it. Nothing is stored a second time.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any, Final, NamedTuple

import structlog
from pydantic import ValidationError

from evenkeel.contracts.envelope import EnvelopeError, Record, attributes_of
from evenkeel.contracts.http.ingest import RejectedLine, RejectedRecord, RejectedRecords, SentAgain, SentTo
from evenkeel.contracts.ingest import EventRejected
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.errors import Refused
from evenkeel.libs.service import Host
from evenkeel.services.ingest.context import IngestContext

log = structlog.get_logger(__name__)

TOPIC: Final = topic_of(EventRejected, "ingest").name
CHUNK: Final = 500
LOOKED_AT: Final = 20_000
"""Records that one call looks at; it says where to go on from."""


class Rejection(NamedTuple):
    number: int
    time: str
    data: EventRejected


class RejectedTopic:
    """Reads the topic backwards."""

    def __init__(self, runtime: Host[Any]) -> None:
        self._runtime = runtime
        self._ctx: IngestContext = runtime.context

    async def newest(self, stream: str | None, rule: str | None, before: int | None, limit: int) -> RejectedRecords:
        end, found = await self._end(), list[Rejection]()
        at = end if before is None else min(before, end)
        floor = max(0, at - LOOKED_AT)
        while at > floor and len(found) < limit:
            start = max(floor, at - CHUNK)
            records = await self._between(start, at)
            for record in reversed(records):
                rejection = _read(record)
                if rejection is not None and _matches(rejection.data, stream, rule):
                    found.append(rejection)
            at = start if records else 0  # what is gone was deleted from the beginning on
        found = found[:limit]
        if len(found) == limit:
            at = found[-1].number
        return RejectedRecords(rejected=[_line(rejection) for rejection in found], before=at if at > 0 else None)

    async def _between(self, start: int, end: int) -> list[Record]:
        """Those that are still there, oldest first."""
        tp, bus = (TOPIC, 0), self._runtime.bus
        first = max(start, (await bus.beginning_offsets([tp]))[tp])
        return [record async for batch in bus.read_between({tp: (first, end)}) for record in batch]

    async def one(self, number: int) -> Rejection:
        end = await self._end()
        if 0 <= number < end:
            for record in await self._between(number, number + 1):
                rejection = _read(record)
                if rejection is not None:
                    return rejection
        raise Refused(
            404,
            "No such record",
            f"There is no rejected record {number}; {end} were rejected so far, and old ones are deleted after a time.",
            field="number",
            fix="`evenkeel rejected list` shows the numbers.",
        )

    async def redrive(self, number: int) -> SentAgain:
        rejection = await self.one(number)
        data, raw = rejection.data, rejection.data.raw
        if raw.topic not in self._ctx.routes:
            read = ", ".join(sorted(self._ctx.routes)) or "none"
            raise Refused(
                409,
                "Nobody reads it",
                f"No declared stream reads {raw.topic} any more, where record {number} came from; read are: {read}.",
                field="number",
                fix="Declare a stream on that topic, or send the record to another one yourself.",
            )
        if data.original_value is None and data.original_key is None and not data.original_headers:
            raise Refused(
                409,
                "Not kept",
                f"Record {number} was too large to be kept, or empty: only {raw.topic}/{raw.partition}/{raw.offset} has it.",
                field="number",
                fix="Read it from there, and send it again in smaller parts.",
            )
        headers = [(name, b64decode(value)) for name, value in data.original_headers]
        again = OutgoingRecord(
            raw.topic, raw.partition, _bytes(data.original_key), _bytes(data.original_value), headers
        )
        await self._runtime.bus.publish([again])
        log.info("rejected record sent again", number=number, topic=raw.topic, partition=raw.partition)
        sent_to = SentTo(topic=raw.topic, partition=raw.partition)
        return SentAgain(number=number, sent_to=sent_to, event_id=data.event_id)

    async def _end(self) -> int:
        return (await self._runtime.bus.end_offsets([(TOPIC, 0)]))[TOPIC, 0]


def as_rejected_record(rejection: Rejection) -> RejectedRecord:
    """Everything about a rejected record; its value as text where it is text."""
    data = rejection.data
    value = _bytes(data.original_value)
    try:
        text = None if value is None else value.decode()
    except UnicodeDecodeError:
        text = None
    shown = {"number": rejection.number, "time": rejection.time, "original_text": text}
    return RejectedRecord.model_validate(data.model_dump() | shown)


def _line(rejection: Rejection) -> RejectedLine:
    data = rejection.data
    return RejectedLine(
        number=rejection.number,
        time=rejection.time,
        stream=data.stream,
        kind=data.kind,
        rule=data.rule,
        field=data.field,
        event_id=data.event_id,
        reason=data.reason,
    )


def _matches(data: EventRejected, stream: str | None, rule: str | None) -> bool:
    return stream in (None, data.stream) and (data.rule == rule or (rule is None and data.rule != "duplicate"))


def _read(record: Record) -> Rejection | None:
    try:
        time = attributes_of(record.headers)["ce_time"].decode()
        return Rejection(record.offset, time, EventRejected.model_validate_json(record.value or b""))
    except (EnvelopeError, ValidationError, ValueError):
        return None  # a stranger's record on our topic


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else b64decode(text)
