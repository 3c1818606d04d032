"""What ingest answers: streams, records to take, and records that were rejected."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from evenkeel.contracts.http.messages import Answer, EventTime, Partition, Problem, Query, Request, StreamName, Topic
from evenkeel.contracts.http.route import JSON, Content, Parameter, Route
from evenkeel.contracts.ingest import RawRecord
from evenkeel.contracts.payload import Base64, Count, Word

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
MAX_RECORDS: Final = 2_000
_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_MANY: Final[dict[str, Any]] = {"type": "array", "items": _OBJECT, "minItems": 1, "maxItems": MAX_RECORDS}
RECORDS: Final = Content({JSON: {"anyOf": [_OBJECT, _MANY]}, STRUCTURED: _OBJECT, BATCH: _MANY})
"""What a record holds is its stream's declaration."""


class RawPartition(Answer):
    """How far one partition of a raw topic has been read."""

    mark: EventTime | None = None
    """The latest event time that counts for it; null before there is one."""
    next_offset: Count
    """Up to where (exclusive) it has been read."""


class Inflow(Answer):
    """One kind of a stream's records: events or labels."""

    topic: str
    """The raw topic."""
    declaration: Count | None = None
    """Offset in `registry.stream-declared` of the declaration that records are checked under."""
    watermark: EventTime | None = None
    """No earlier record is waited for; null before the first."""
    partitions: dict[str, RawPartition]
    """By number."""
    accepted: Count
    """Records that were accepted."""
    late: Count
    """Accepted, although the watermark had passed them."""
    heartbeats: Count
    """Heartbeats of producers."""
    wait_expired: Count
    """How often a silent partition was no longer waited for."""
    rejected: dict[Word, Count]
    """Rule → records."""


class Stream(Answer):
    """A declared stream, and what has come of it."""

    stream: StreamName
    topic: str
    """The raw topic of its events."""
    events: Inflow | None = None
    """Null before the first record."""
    labels: Inflow | None = None
    """Null before the first label, or if it declares none."""


class Streams(Answer):
    """Every declared stream."""

    streams: list[Stream]
    """By name."""


class Taken(Answer):
    """Records that the broker has acknowledged; whether each is accepted is decided in their order on the topic."""

    stream: StreamName
    kind: Word
    """`event` or `label`."""
    accepted: Count
    """How many records."""


class RecordFault(Answer):
    """What is wrong with one record."""

    index: int | None = None
    """Its place in the body, from 0; null if it is the whole body."""
    id: str | None = None
    """Its id, as far as it could be read."""
    rule: Word
    """Which rule is broken."""
    field: str | None = None
    """Which field breaks it; null if it is none."""
    reason: str
    """What is wrong."""
    fix: str
    """What to send instead."""


class BrokenRecords(Problem):
    """Records that break their stream's contract; nothing was taken."""

    errors: list[RecordFault] = Field(default_factory=list)
    """The first hundred."""


class HeartbeatRequest(Request):
    """Nothing earlier than `time` will come, on any partition of the stream's raw topic."""

    time: str = Field(examples=["2013-07-01T12:00:00Z"])
    """RFC 3339 with a zone."""
    kind: Literal["event", "label"] = "event"
    """Of the stream's events or of its labels."""


class HeartbeatTaken(Answer):
    """A heartbeat that the broker has acknowledged."""

    stream: StreamName
    kind: Word
    """`event` or `label`."""
    time: str
    """As it was sent."""


class RejectedQuery(Query):
    stream: str | None = None
    """Only of this stream."""
    rule: str | None = None
    """Only by this rule; repeats are listed only if this is `duplicate`."""
    before: int | None = Field(None, ge=0)
    """Go on from here: `before` of the answer before."""
    limit: int = Field(50, ge=1, le=1000)
    """How many at most."""


class RejectedLine(Answer):
    """A rejected record in short."""

    number: Count
    """Names it."""
    time: EventTime
    """Event time; of a record without one, when it came."""
    stream: str
    """Whose contract it broke."""
    kind: Word
    """`event` or `label`."""
    rule: Word
    """Which rule was broken."""
    field: str | None = None
    """Which field broke it; null if it was none."""
    event_id: str | None = None
    """Its id, as far as it could be read."""
    reason: str
    """What was wrong."""


class RejectedRecords(Answer):
    """Rejected records."""

    rejected: list[RejectedLine]
    """The newest first."""
    before: Count | None = None
    """Where to go on from; null: there are no older ones."""


class RejectedRecord(RejectedLine):
    """One rejected record, as it came."""

    fix: str
    """What to send instead."""
    raw: RawRecord
    """Where the record lies."""
    original_key: Base64 | None = None
    """Null if it had none."""
    original_value: Base64 | None = None
    """Null if it was empty, or too large to be kept."""
    original_headers: list[tuple[str, Base64]]
    """Names and values."""
    original_text: str | None = None
    """Its value, if that is UTF-8."""


class SentTo(Answer):
    """A partition of a raw topic."""

    topic: Topic
    partition: Partition


class SentAgain(Answer):
    """A record that was sent again, byte for byte."""

    number: Count
    """Names the rejected record."""
    sent_to: SentTo
    """Where it came from, too."""
    event_id: str | None = None
    """Its id, as far as it could be read."""


_TRACE: Final = {
    "traceparent": Parameter("W3C trace context.", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

STREAMS: Final = Route(
    name="streams",
    method="GET",
    path="/v1/streams",
    role="producer",
    summary="Declared streams",
    description="Every declared stream: how far its raw topics have been read, and what was accepted and rejected.",
    answer=Streams,
)
STREAM: Final = Route(
    name="stream",
    method="GET",
    path="/v1/streams/{stream}",
    role="producer",
    summary="One declared stream",
    description="How far its raw topics have been read, and what was accepted and rejected.",
    answer=Stream,
)
SEND_EVENTS: Final = Route(
    name="send-events",
    method="POST",
    path="/v1/streams/{stream}/events",
    role="producer",
    summary="Send events",
    description="One record or an array of them, or CloudEvents in structured, batch or binary mode. All are taken or none. "
    "A record that came before, with the same id, counts once.",
    answer=Taken,
    status=202,
    body=RECORDS,
    headers=_TRACE,
    answers={422: BrokenRecords},
    is_repeatable=True,
)
SEND_LABELS: Final = Route(
    name="send-labels",
    method="POST",
    path="/v1/streams/{stream}/labels",
    role="producer",
    summary="Send labels",
    description="As events, to the stream's label topic.",
    answer=Taken,
    status=202,
    body=RECORDS,
    headers=_TRACE,
    answers={422: BrokenRecords},
    is_repeatable=True,
)
HEARTBEAT: Final = Route(
    name="heartbeat",
    method="POST",
    path="/v1/streams/{stream}/heartbeat",
    role="producer",
    summary="Say that nothing earlier comes",
    description="Moves the watermark of a quiet stream: nothing earlier than `time` will come, on any partition.",
    answer=HeartbeatTaken,
    status=202,
    body=HeartbeatRequest,
    is_repeatable=True,
)
REJECTED: Final = Route(
    name="rejected",
    method="GET",
    path="/v1/rejected",
    role="operator",
    summary="Rejected records",
    description="What was rejected, the newest first; repeats only if `rule` asks for `duplicate`.",
    answer=RejectedRecords,
    query=RejectedQuery,
)
REJECTED_RECORD: Final = Route(
    name="rejected-record",
    method="GET",
    path="/v1/rejected/{number}",
    role="operator",
    summary="One rejected record",
    description="Everything about it, byte for byte.",
    answer=RejectedRecord,
)
REDRIVE: Final = Route(
    name="redrive",
    method="POST",
    path="/v1/rejected/{number}/redrive",
    role="operator",
    summary="Send a rejected record again",
    description="The original record, byte for byte: with the same id, to the same raw partition. A repeat changes nothing. "
    "409 if it was not kept, or no declared stream reads its topic.",
    answer=SentAgain,
    answers={409: Problem},
    is_repeatable=True,
)

ROUTES: Final[tuple[Route[Any], ...]] = (
    STREAMS,
    STREAM,
    SEND_EVENTS,
    SEND_LABELS,
    HEARTBEAT,
    REJECTED,
    REJECTED_RECORD,
    REDRIVE,
)
