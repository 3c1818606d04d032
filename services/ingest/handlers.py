"""What ingest does: folds declarations, and turns each raw record into an accepted or a rejected event."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Final

from evenkeel.contracts.envelope import HEARTBEAT_HEADER, Event, Headers, Record, format_us, parse_us
from evenkeel.contracts.governance import SubjectErased
from evenkeel.contracts.ids import record_place, rejected_record_id
from evenkeel.contracts.ingest import EventAccepted, EventRejected, LabelAccepted, RawRecord
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.libs.fields import LAST_TIME_US, Fault, in_bounds, shown
from evenkeel.libs.runtime.originals import KEPT_BYTES, base64_of, size_of
from evenkeel.libs.service import Cause, Derived, Each, Output, Raw, Watermark
from evenkeel.libs.telemetry.tracing import new_traceparent
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.domain.contract import Checked, Kind
from evenkeel.services.ingest.domain.stream import Judged, Route, Stream

ACCEPTED: Final[dict[Kind, type[Payload]]] = {"event": EventAccepted, "label": LabelAccepted}
_is_traceparent: Final = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def on_stream_declared(event: Event[StreamDeclared], ctx: IngestContext) -> Iterable[Payload]:
    """From here on the stream's records are checked under this declaration."""
    ctx.declare(event.data.name, event.data.spec, event.offset)
    return ()


def on_subject_erased(event: Event[SubjectErased], ctx: IngestContext) -> Iterable[Payload]:
    """Nothing to destroy: as long as personal fields are refused in declarations, there are no subject keys."""
    return ()


def on_raw_records(records: Sequence[Record], ctx: IngestContext) -> Iterable[Output]:
    """One outcome for each record of one raw topic, then the watermark if it moved."""
    route = ctx.routes[records[0].topic]
    stream = ctx.streams[route.name]
    before_us = stream.clock.watermark_us
    outputs: list[Output] = []
    for record in in_order_of_arrival(records):
        stream.read(route, record.partition, record.offset)
        try:
            time_us = heartbeat_of(record)
            if time_us is not None:
                stream.heartbeat(route, record.partition, time_us)
                continue
            checked = route.contract.check(record.value, record.headers)
            judged = stream.accept(checked, route, record.partition)
        except Fault as fault:
            stream.reject(fault)
            outputs.append(rejected(record, fault, route, stream, ctx))
        else:
            outputs.append(accepted(record, checked, judged, route, stream, ctx))
    ctx.save(route.name, stream)
    return [*outputs, *advanced(route, stream, before_us)]


def advanced(route: Route, stream: Stream, before_us: int | None) -> list[Output]:
    """The watermark as an output, if it moved."""
    watermark_us = stream.clock.watermark_us
    if watermark_us is None or watermark_us == before_us:
        return []
    return [Watermark(ACCEPTED[route.kind], route.name, watermark_us)]


def in_order_of_arrival(records: Sequence[Record]) -> Sequence[Record]:
    """By the broker's clock across partitions, and as they are within each: a partition that is read first must not run
    ahead of the others."""
    if records[0].partition == records[-1].partition:
        return records
    latest: dict[int, int] = {}
    arrived: list[int] = []
    for record in records:
        before = latest.get(record.partition, 0)
        latest[record.partition] = stamp = max(before, record.timestamp)
        arrived.append(stamp)
    return [records[number] for number in sorted(range(len(records)), key=arrived.__getitem__)]


def accepted(
    record: Record, checked: Checked, judged: Judged, route: Route, stream: Stream, ctx: IngestContext
) -> Derived:
    """The event or label of a record, at its own time. It takes its turn then, or if it is late at its stream's watermark."""
    event_id = judged.event_id
    trace = traceparent_of(record.headers) if record.headers else None
    cause = Cause(
        record_place(record.topic, record.partition, record.offset),
        checked.time_us,
        event_id,
        trace or new_traceparent(event_id, ctx.settings.trace_ratio),
    )
    arrived, raw = arrived_of(record), raw_record(record)
    payload: EventAccepted | LabelAccepted
    if route.kind == "event":
        payload = EventAccepted.checked(
            stream=route.stream,
            generation=1,
            event_id=checked.event_id,
            fields=checked.fields,
            declaration=route.declaration,
            arrived=arrived,
            late=judged.late,
            raw=raw,
        )
    else:
        payload = LabelAccepted.checked(
            stream=route.stream,
            generation=1,
            event_id=checked.event_id,
            label_id=checked.record_id,
            fields=checked.fields,
            declaration=route.declaration,
            arrived=arrived,
            late=judged.late,
            raw=raw,
        )
    order_us = checked.time_us
    if judged.late and stream.clock.watermark_us is not None:
        order_us = max(order_us, stream.clock.watermark_us)
    return Derived(payload, cause, checked.time_us, event_id, route.name, order_us)


def rejected(record: Record, fault: Fault, route: Route, stream: Stream, ctx: IngestContext) -> Derived:
    """The record with what is wrong with it, byte for byte, at the stream's own time."""
    place = record_place(record.topic, record.partition, record.offset)
    time_us = stream.time_us
    cause = Cause(
        place,
        ctx.now_us if time_us is None else time_us,
        place,
        traceparent_of(record.headers) or new_traceparent(place, ctx.settings.trace_ratio),
    )
    original: dict[str, Any] = {}
    reason = fault.reason
    if size_of(record) <= KEPT_BYTES:
        original = {
            "original_key": base64_of(record.key),
            "original_value": base64_of(record.value),
            "original_headers": [(name, base64_of(value) or "") for name, value in record.headers],
        }
    else:
        reason += " It is too large to be kept here, and stays in the raw topic as long as that keeps it."
    payload = EventRejected(
        stream=route.stream,
        kind=route.kind,
        rule=fault.rule,
        field=fault.field,
        reason=reason,
        fix=fault.fix,
        event_id=fault.event_id,
        raw=raw_record(record),
        **original,
    )
    return Derived(payload, cause, id=rejected_record_id(place), stream=route.name)


def heartbeat_of(record: Record) -> int | None:
    """The time of a heartbeat, which is a record without a value; None for any other record; raises Fault."""
    if not record.headers or record.value:
        return None
    return next((heartbeat_us(text) for name, text in record.headers if name == HEARTBEAT_HEADER), None)


def heartbeat_us(text: bytes) -> int:
    """The time that a heartbeat names; raises Fault."""
    try:
        found = text.decode()
        return in_bounds(parse_us(found), found, HEARTBEAT_HEADER)
    except (ValueError, OverflowError, AttributeError):
        raise Fault(
            "event_time",
            f"The heartbeat's time is {shown(text)}.",
            "Send RFC 3339 text with a zone, such as 2013-01-01T05:15:00Z.",
            field=HEARTBEAT_HEADER,
        ) from None


def traceparent_of(headers: Headers) -> str | None:
    """The W3C trace context that the producer sent, if it is well formed."""
    for name, value in headers:
        if name == "traceparent" and value is not None and _is_traceparent(value):
            return value.decode()
    return None


def arrived_of(record: Record) -> str | None:
    """The record's stamp; None if it has none (Kafka says -1), or one that nobody could calculate with."""
    stamp_us = record.timestamp * 1_000
    return format_us(stamp_us) if 0 <= stamp_us <= LAST_TIME_US else None


def raw_record(record: Record) -> RawRecord:
    return RawRecord.checked(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        sha256=sha256(record.value or b"").hexdigest(),
    )


HANDLERS: Final = (
    Each(StreamDeclared, on_stream_declared),
    Each(SubjectErased, on_subject_erased),
    Raw(on_raw_records),
)
