"""The HTTP door: checks records at once with the contract that the raw topic's reader uses, then writes to that topic."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from evenkeel.contracts.envelope import HEARTBEAT_HEADER, Headers, format_us
from evenkeel.contracts.ids import label_stream
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.errors import Refused, Retry
from evenkeel.libs.fields import Fault
from evenkeel.libs.http.problems import problem
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.runtime.outputs import partition_of
from evenkeel.libs.service import Host
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.domain.cloudevents import BATCH, STRUCTURED
from evenkeel.services.ingest.domain.contract import Kind
from evenkeel.services.ingest.domain.json_record import parse, written
from evenkeel.services.ingest.domain.stream import Route
from evenkeel.services.ingest.handlers import heartbeat_us
from evenkeel.services.ingest.rejected import Originals, shown_original
from evenkeel.services.ingest.store import IngestStore, StreamState

MAX_RECORDS: Final = 2_000
SHOWN_ERRORS: Final = 100
_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_MANY: Final[dict[str, Any]] = {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": MAX_RECORDS}
RECORDS: Final[dict[str, dict[str, Any]]] = {
    "application/json": {"anyOf": [_OBJECT, _MANY]},
    STRUCTURED: _OBJECT,
    BATCH: _MANY,
}
"""Bodies of records by media type; what a record holds is its stream's declaration."""


class Heartbeat(BaseModel):
    """Nothing earlier than `time` will come, on any partition of the stream's raw topic."""

    model_config = ConfigDict(extra="forbid")

    time: str
    kind: Literal["event", "label"] = "event"


class Door:
    """A plain producer of the raw topics, with bounded patience."""

    def __init__(self, runtime: Host[Any]) -> None:
        self._runtime = runtime
        self._ctx: IngestContext = runtime.context
        self._waiting: set[asyncio.Task[JSONResponse | None]] = set()

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

    async def write(self, records: Sequence[OutgoingRecord]) -> JSONResponse | None:
        """Returns once the broker has acknowledged; a problem when it has not in time."""
        own = self._ctx.own
        if len(self._waiting) >= own.max_waiting_requests:
            return _not_now("Too many requests wait for the broker.")
        # Left to end by itself when time is up: the client must not be cancelled in the middle of a batch.
        publishing = asyncio.create_task(self._publish(records))
        self._waiting.add(publishing)
        publishing.add_done_callback(self._waiting.discard)
        done, _ = await asyncio.wait({publishing}, timeout=own.acknowledge_seconds)
        if not done:
            return _not_now(f"The broker has not acknowledged within {own.acknowledge_seconds:g} s.")
        return publishing.result()

    async def _publish(self, records: Sequence[OutgoingRecord]) -> JSONResponse | None:
        try:
            await self._runtime.bus.publish(records)
        except Retry:
            return _not_now("The broker is not available.")
        return None


def _not_now(detail: str) -> JSONResponse:
    return problem(
        503, "Unavailable", f"{detail} The records may or may not be kept.", fix="Try again with the same ids."
    )


def routers(runtime: Host[Any]) -> Sequence[APIRouter]:
    return [_streams(runtime), _rejected_records(runtime)]


def _streams(runtime: Host[Any]) -> APIRouter:
    routes = router("/v1/streams")
    door, ctx = Door(runtime), runtime.context

    @routes.get("", **role("producer"))
    async def list_streams() -> list[dict[str, Any]]:
        states = await runtime.query(lambda c: IngestStore(c).stream_states())
        return [_described(ctx, name, states) for name in sorted(ctx.current)]

    @routes.get("/{stream}", **role("producer"))
    async def get_stream(stream: str) -> dict[str, Any]:
        door.route(stream, "event")
        states = await runtime.query(lambda c: IngestStore(c).stream_states())
        return _described(ctx, stream, states)

    @routes.post("/{stream}/events", status_code=202, **role("producer", body=RECORDS))
    async def post_events(stream: str, request: Request) -> JSONResponse:
        return await _post(door, door.route(stream, "event"), request)

    @routes.post("/{stream}/labels", status_code=202, **role("producer", body=RECORDS))
    async def post_labels(stream: str, request: Request) -> JSONResponse:
        return await _post(door, door.route(stream, "label"), request)

    @routes.post("/{stream}/heartbeat", status_code=202, **role("producer"))
    async def post_heartbeat(stream: str, heartbeat: Heartbeat) -> JSONResponse:
        route = door.route(stream, heartbeat.kind)
        time = heartbeat.time.encode()
        try:
            heartbeat_us(time)
        except Fault as fault:
            raise Refused(422, "Invalid time", fault.reason, field="time", fix=fault.fix) from None
        headers = [(HEARTBEAT_HEADER, time)]
        records = [OutgoingRecord(route.topic, n, None, None, headers) for n in range(door.partitions(route))]
        answer = await door.write(records)
        return answer or JSONResponse({"stream": stream, "kind": heartbeat.kind, "time": heartbeat.time}, 202)

    return routes


def _rejected_records(runtime: Host[Any]) -> APIRouter:
    routes = router("/v1/rejected")
    originals = Originals(runtime)

    @routes.get("", **role("operator"))
    async def list_rejected(
        stream: str | None = None,
        rule: str | None = None,
        before: Annotated[int | None, Query(ge=0)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    ) -> dict[str, Any]:
        """What was rejected, the newest first; repeats only if `rule` asks for `duplicate`."""
        return await originals.newest(stream, rule, before, limit)

    @routes.get("/{number}", **role("operator"))
    async def show_rejected(number: int) -> dict[str, Any]:
        return shown_original(await originals.one(number))

    @routes.post("/{number}/redrive", **role("operator"))
    async def redrive(number: int) -> dict[str, Any]:
        """Send the original record again, byte for byte: with the same id, to the same raw partition."""
        return await originals.redrive(number)

    return routes


async def _post(door: Door, route: Route, request: Request) -> JSONResponse:
    body = await request.body()
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    try:
        items = _items(body, content_type, request)
    except Fault as fault:
        return _rejected(route, [_error(None, fault)], 1)
    records, errors = [], []
    for number, (value, headers) in enumerate(items):
        try:
            records.append(door.check(route, value, headers))
        except Fault as fault:
            errors.append(_error(number, fault))
    if errors:
        return _rejected(route, errors, len(items))
    answer = await door.write(records)
    return answer or JSONResponse({"stream": route.stream, "kind": route.kind, "accepted": len(records)}, 202)


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


def _error(index: int | None, fault: Fault) -> dict[str, Any]:
    return {
        "index": index,
        "id": fault.event_id,
        "rule": fault.rule,
        "field": fault.field,
        "reason": fault.reason,
        "fix": fault.fix,
    }


def _rejected(route: Route, errors: list[dict[str, Any]], count: int) -> JSONResponse:
    first = errors[0]
    return problem(
        422,
        "Records break the contract",
        f"{len(errors)} of {count} records break the contract of {route.name}; nothing was taken. First: {first['reason']}",
        field=first["field"],
        fix=first["fix"],
        errors=errors[:SHOWN_ERRORS],
    )


def _described(ctx: IngestContext, name: str, states: Mapping[str, StreamState]) -> dict[str, Any]:
    spec = ctx.current[name]
    described: dict[str, Any] = {"name": name, "topic": spec.topic}
    for kind, state in (("events", states.get(name)), ("labels", states.get(label_stream(name)))):
        if state is None:
            continue
        counts = {what: state.counts.get(what, 0) for what in ("accepted", "late", "heartbeats", "wait_expired")}
        described[kind] = {
            "topic": state.topic,
            "declaration": next((r.declaration for r in ctx.routes.values() if r.topic == state.topic), None),
            "watermark": _time(state.watermark_us),
            "partitions": {
                str(number): {"mark": _time(mark), "next_offset": state.positions.get(number, 0)}
                for number, mark in state.marks.items()
            },
            **counts,
            "rejected": state.rejected,
        }
    return described


def _time(time_us: int | None) -> str | None:
    return None if time_us is None else format_us(time_us)
