"""The HTTP door: checks records at once with the contract that the raw topic's reader uses, then writes to that topic."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

from fastapi import Query, Request

from evenkeel.contracts.envelope import HEARTBEAT_HEADER, Headers, format_us
from evenkeel.contracts.http import ingest as http
from evenkeel.contracts.http.ingest import BATCH, MAX_RECORDS, STRUCTURED
from evenkeel.contracts.ids import label_stream
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.errors import Refused, Retry
from evenkeel.libs.fields import Fault
from evenkeel.libs.routes import Routes
from evenkeel.libs.runtime.outputs import partition_of
from evenkeel.libs.service import Host
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.domain.contract import Kind
from evenkeel.services.ingest.domain.json_record import parse, written
from evenkeel.services.ingest.domain.stream import Route
from evenkeel.services.ingest.handlers import heartbeat_us
from evenkeel.services.ingest.rejected import RejectedTopic, as_rejected_record
from evenkeel.services.ingest.store import IngestStore, StreamState

SHOWN_ERRORS: Final = 100


class Door:
    """A plain producer of the raw topics, with bounded patience."""

    def __init__(self, runtime: Host[Any]) -> None:
        self._runtime = runtime
        self._ctx: IngestContext = runtime.context
        self._waiting: set[asyncio.Task[bool]] = set()

    def route(self, stream: str, kind: Kind) -> Route:
        """Where the stream's records go; raises Refused."""
        name = stream if kind == "event" else label_stream(stream)
        for route in self._ctx.routes.values():
            if route.name == name and route.topic == self._ctx.streams[name].topic:
                return route
        known = sorted(self._ctx.current)
        if stream in known:
            raise Refused(
                404, "No labels", f"Stream {stream} declares no label.", field="stream", fix="Declare `label:` for it."
            )
        raise Refused(
            404,
            "Unknown stream",
            f"There is no stream {stream}. Declared are: {', '.join(known) or 'none'}.",
            field="stream",
            fix="Declare it with `evenkeel apply`, or use one of these names.",
        )

    def partitions(self, route: Route) -> int:
        count = self._ctx.partitions.get(route.topic)
        if count is None:
            raise Retry(f"topic {route.topic} is not there yet")
        return count

    def check(self, route: Route, value: bytes, headers: Headers) -> OutgoingRecord:
        """The record to write; raises Fault. A repeat is no fault here: the first one counts."""
        checked = route.contract.check(value, headers)
        key = checked.event_id.encode()
        partition = partition_of(key, self.partitions(route))
        try:
            self._ctx.streams[route.name].judge(checked, route, partition)
        except Fault as fault:
            if fault.rule != "duplicate":
                raise
        return OutgoingRecord(route.topic, partition, key, value, headers)

    async def write(self, records: Sequence[OutgoingRecord]) -> None:
        """Returns once the broker has acknowledged; raises Refused when it has not in time."""
        own = self._ctx.own
        if len(self._waiting) >= own.max_waiting_requests:
            raise _not_now("Too many requests wait for the broker.")
        # Left to end by itself when time is up: the client must not be cancelled in the middle of a batch.
        publishing = asyncio.create_task(self._published(records))
        self._waiting.add(publishing)
        publishing.add_done_callback(self._waiting.discard)
        done, _ = await asyncio.wait({publishing}, timeout=own.acknowledge_seconds)
        if not done:
            raise _not_now(f"The broker has not acknowledged within {own.acknowledge_seconds:g} s.")
        if not publishing.result():
            raise _not_now("The broker is not available.")

    async def _published(self, records: Sequence[OutgoingRecord]) -> bool:
        try:
            await self._runtime.bus.publish(records)
        except Retry:
            return False
        return True


def _not_now(detail: str) -> Refused:
    detail = f"{detail} The records may or may not be kept."
    return Refused(503, "Unavailable", detail, fix="Try again with the same ids.")


def routes(runtime: Host[Any]) -> Routes:
    ctx: IngestContext = runtime.context
    door, rejections, found = Door(runtime), RejectedTopic(runtime), Routes()

    @found.answer(http.STREAMS)
    async def streams() -> http.Streams:
        states = await runtime.query(lambda c: IngestStore(c).stream_states())
        return http.Streams(streams=[_stream(ctx, name, states) for name in sorted(ctx.current)])

    @found.answer(http.STREAM)
    async def stream(stream: str) -> http.Stream:
        door.route(stream, "event")
        return _stream(ctx, stream, await runtime.query(lambda c: IngestStore(c).stream_states()))

    @found.answer(http.SEND_EVENTS)
    async def send_events(stream: str, request: Request) -> http.Taken:
        return await _take(door, door.route(stream, "event"), request)

    @found.answer(http.SEND_LABELS)
    async def send_labels(stream: str, request: Request) -> http.Taken:
        return await _take(door, door.route(stream, "label"), request)

    @found.answer(http.HEARTBEAT)
    async def heartbeat(stream: str, body: http.HeartbeatRequest) -> http.HeartbeatTaken:
        route = door.route(stream, body.kind)
        time = body.time.encode()
        try:
            heartbeat_us(time)
        except Fault as fault:
            raise Refused(422, "Invalid time", fault.reason, field="time", fix=fault.fix) from None
        headers = [(HEARTBEAT_HEADER, time)]
        await door.write([OutgoingRecord(route.topic, n, None, None, headers) for n in range(door.partitions(route))])
        return http.HeartbeatTaken(stream=stream, kind=body.kind, time=body.time)

    @found.answer(http.REJECTED)
    async def rejected(query: Annotated[http.RejectedQuery, Query()]) -> http.RejectedRecords:
        return await rejections.newest(query.stream, query.rule, query.before, query.limit)

    @found.answer(http.REJECTED_RECORD)
    async def rejected_record(number: int) -> http.RejectedRecord:
        return as_rejected_record(await rejections.one(number))

    @found.answer(http.REDRIVE)
    async def redrive(number: int) -> http.SentAgain:
        return await rejections.redrive(number)

    return found


async def _take(door: Door, route: Route, request: Request) -> http.Taken:
    body = await request.body()
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    try:
        items = _items(body, content_type, request)
    except Fault as fault:
        raise _broken(route, [_fault(None, fault)], 1) from None
    records, faults = [], []
    for number, (value, headers) in enumerate(items):
        try:
            records.append(door.check(route, value, headers))
        except Fault as fault:
            faults.append(_fault(number, fault))
    if faults:
        raise _broken(route, faults, len(items))
    await door.write(records)
    return http.Taken(stream=route.stream, kind=route.kind, accepted=len(records))


def _items(body: bytes, content_type: str, request: Request) -> list[tuple[bytes, Headers]]:
    """Each record as it will be written: value and headers; raises Fault."""
    trace = request.headers.get("traceparent")
    common: list[tuple[str, bytes]] = [] if trace is None else [("traceparent", trace.encode())]
    if content_type not in ("application/json", STRUCTURED, BATCH):
        raise Fault(
            "shape",
            f"Content-Type is {content_type!r}.",
            f"Send application/json, {STRUCTURED} or {BATCH}.",
            field="Content-Type",
        )
    if content_type == STRUCTURED:
        return [(body, [("content-type", STRUCTURED.encode()), *common])]
    if content_type == BATCH:
        common.append(("content-type", STRUCTURED.encode()))
    elif "ce-id" in request.headers:
        found = [(name, value) for name, value in request.headers.items() if name.startswith("ce-")]
        attributes = [(name.replace("-", "_", 1), value.encode()) for name, value in found]
        return [(body, [("content-type", b"application/json"), *attributes, *common])]
    if content_type != BATCH and not body.lstrip().startswith(b"["):
        return [(body, common)]
    parsed = parse(body)
    if not isinstance(parsed, list) or not parsed:
        raise Fault("shape", "The body is not an array of at least one record.", "Send an array with records.")
    if len(parsed) > MAX_RECORDS:
        raise Fault("size", f"The body has {len(parsed)} records, at most {MAX_RECORDS}.", "Send fewer at once.")
    return [(written(item), common) for item in parsed]


def _fault(index: int | None, fault: Fault) -> http.RecordFault:
    return http.RecordFault(
        index=index, id=fault.event_id, rule=fault.rule, field=fault.field, reason=fault.reason, fix=fault.fix
    )


def _broken(route: Route, faults: list[http.RecordFault], count: int) -> Refused:
    first = faults[0]
    return Refused(
        422,
        "Records break the contract",
        f"{len(faults)} of {count} records break the contract of {route.name}; nothing was taken. First: {first.reason}",
        field=first.field,
        fix=first.fix,
        more={"errors": [fault.model_dump() for fault in faults[:SHOWN_ERRORS]]},
    )


def _stream(ctx: IngestContext, name: str, states: Mapping[str, StreamState]) -> http.Stream:
    events, labels = states.get(name), states.get(label_stream(name))
    return http.Stream(
        stream=name,
        topic=ctx.current[name].topic,
        events=None if events is None else _inflow(ctx, events),
        labels=None if labels is None else _inflow(ctx, labels),
    )


def _inflow(ctx: IngestContext, state: StreamState) -> http.Inflow:
    counts = {what: state.counts.get(what, 0) for what in ("accepted", "late", "heartbeats", "wait_expired")}
    partitions = {
        str(number): http.RawPartition(mark=_time(mark), next_offset=state.positions.get(number, 0))
        for number, mark in state.marks.items()
    }
    return http.Inflow(
        topic=state.topic,
        declaration=next((r.declaration for r in ctx.routes.values() if r.topic == state.topic), None),
        watermark=_time(state.watermark_us),
        partitions=partitions,
        rejected=state.rejected,
        **counts,
    )


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else format_us(time_us)
