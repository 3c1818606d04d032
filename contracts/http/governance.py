"""What governance answers: why a prediction is as it is, who was champion when, what was logged, and proofs of it."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field

from evenkeel.contracts.http.messages import (
    Answer,
    EventTime,
    ModelName,
    Offset,
    Partition,
    Problem,
    Query,
    Topic,
    WallTime,
)
from evenkeel.contracts.http.route import Route
from evenkeel.contracts.payload import Base64, Count, Word
from evenkeel.contracts.registry import ChampionChanged
from evenkeel.contracts.serving import PredictionMade

MAX_LEAF: Final = 2**62


class InclusionProof(Answer):
    """That a leaf is in the tree of a checkpoint (RFC 6962)."""

    leaf_hash: Base64
    """SHA-256 of the leaf, with its prefix."""
    size: Count
    """Leaves of that tree."""
    proof: list[Base64]
    """Hashes from the leaf's sibling up to the root."""


class Step(Answer):
    """One link of a chain, with the leaf that proves it."""

    what: str
    """What kind of fact it is, in plain words."""
    id: str
    """Its CloudEvents id; of a raw record, topic/partition/offset."""
    time: EventTime | None = None
    """Event time."""
    recorded: WallTime | None = None
    """When it was said."""
    summary: str
    """What it says, in a sentence."""
    data: dict[str, Any]
    """What it says, field by field; the schema is that of its topic."""
    leaf: Count | None = None
    """Its number in the log; null: it is in no leaf of its own."""
    proof: InclusionProof | None = None
    """Only if it was asked for, and a checkpoint covers the leaf."""


class MissingLink(Answer):
    """A link that was not found, or that contradicts what it should prove."""

    what: str
    """What kind of fact."""
    id: str
    """Which one."""
    why: str
    """What was found instead."""


class Walk(Answer):
    """A chain of facts."""

    steps: list[Step]
    """From the fact that was asked about on."""
    complete: bool
    """Whether nothing is missing."""
    missing: list[MissingLink]
    """Links that are not there, or not as they should be."""


class SignedCheckpoint(Answer):
    """A signed promise about the log's first leaves (C2SP tlog-checkpoint)."""

    origin: str
    """Names the log."""
    size: Count
    """How many leaves it covers."""
    root: Base64
    """Hash of the tree of those leaves."""
    note: str
    """The signed text."""


class LoggedPrediction(PredictionMade):
    """A prediction, as it is logged."""

    id: str
    """Its CloudEvents id."""


class PredictionQuery(Query):
    model: str | None = None
    """Whose prediction, where the id is an event's outside id."""
    proof: bool = False
    """Whether each step is to come with its inclusion proof."""


class PredictionLineage(Walk):
    """Everything that a prediction rests on."""

    prediction: LoggedPrediction
    """The one that was asked about."""
    checkpoint: SignedCheckpoint | None = None
    """What the proofs are under, if they were asked for."""


class TraceQuery(Query):
    model: str | None = None
    """Of an event with several models: only this one."""


class Trace(Walk):
    """What an id leads to."""

    id: str
    """As it was asked for."""
    kind: Word
    """What the id names: `event`, `prediction`, `loop` or `fact`."""


class LoggedChampion(ChampionChanged):
    """A change of champion, as it is logged."""

    id: str
    """Its CloudEvents id."""


class ChampionQuery(Query):
    at: str | None = Field(None, examples=["2013-07-01T00:00:00Z"])
    """When, RFC 3339 with a zone; without it, now."""
    clock: Literal["event", "wall"] = "event"
    """Which clock `at` is on."""


class ChampionThen(Walk):
    """Who was champion at a time, and why."""

    model: ModelName
    clock: Word
    """`event` or `wall`."""
    at: EventTime | None = None
    """The time that was asked about; null: now."""
    champion: LoggedChampion
    """The change that made it champion."""
    since: EventTime
    """On the clock that was asked for, as `until`."""
    until: EventTime | None = None
    """Null: nobody has followed."""
    since_event_time: EventTime
    """When it became champion, on the clock of events."""
    since_wall_time: WallTime
    """When it became champion, on the wall."""


class HistoryQuery(Query):
    after: int = Field(-1, ge=-1, le=MAX_LEAF)
    """Go on behind this leaf: `after` of the answer before."""
    limit: int = Field(200, ge=1, le=1000)
    """How many facts at most."""


class History(Answer):
    """A model's facts, in the order of the log."""

    model: ModelName
    steps: list[Step]
    """One a fact."""
    after: Count | None = None
    """Where to go on from; null: that is all."""


class LoggedRecord(Answer):
    """A record of a topic, as it is in the log."""

    leaf: Count
    """Its number in the log."""
    topic: Topic
    partition: Partition
    offset: Offset
    logged_by_broker: WallTime
    """The broker's time of the record."""
    key: str | None = None
    """Null if it has none; bytes that are not UTF-8 are escaped."""
    headers: dict[str, str]
    """Bytes that are not UTF-8 are escaped."""
    payload: Any = None
    """The record's value, if that is JSON."""
    value_base64: Base64 | None = None
    """The record's value, if it is not."""


class EventRecord(LoggedRecord):
    """A record with the id that was asked for."""

    duplicate_of: Count | None = None
    """The leaf with the same id that came first; null: this is it."""


class LoggedEvent(Answer):
    """Every record with one id."""

    id: str
    """As it was asked for."""
    records: list[EventRecord]
    """In the order of the log."""


class Leaf(LoggedRecord):
    """One leaf of the log."""

    bytes: Base64
    """What is hashed."""
    leaf_hash: Base64
    """SHA-256 of it, with its prefix."""


class Checkpoint(SignedCheckpoint):
    """The newest checkpoint."""

    verifier_key: str
    """The key that signed it, in the form of C2SP signed-note."""
    leaves: Count
    """How many leaves the log has now; those behind `size` are not signed yet."""


class InclusionQuery(Query):
    leaf: int | None = Field(None, ge=0, le=MAX_LEAF)
    """Which leaf; this or `event_id`."""
    event_id: str | None = None
    """The CloudEvents id of a logged record; this or `leaf`."""


class Inclusion(InclusionProof):
    """That a leaf is under the newest checkpoint."""

    leaf: Count
    """Its number in the log."""
    checkpoint: SignedCheckpoint
    """What it is proven under."""


class ConsistencyQuery(Query):
    old: int = Field(ge=0, le=MAX_LEAF)
    """How many leaves the log had."""
    new: int | None = Field(None, ge=0, le=MAX_LEAF)
    """How many it has; without it, those of the newest checkpoint."""


class Consistency(Answer):
    """That the log has only grown since (RFC 6962)."""

    old: Count
    """How many leaves the log had."""
    new: Count
    """How many it has."""
    old_root: Base64
    """Hash of the tree of the old leaves."""
    new_root: Base64
    """Hash of the tree of all leaves."""
    proof: list[Base64]
    """Hashes that lead from the one root to the other."""


PREDICTION: Final = Route(
    name="prediction",
    method="GET",
    path="/v1/lineage/predictions/{id}",
    role="auditor",
    summary="Why a prediction is as it is",
    description="By the prediction's CloudEvents id, or an event's outside id together with `model`: back to the raw record, "
    "and to whoever and whatever put its version there.",
    answer=PredictionLineage,
    query=PredictionQuery,
)
TRACE: Final = Route(
    name="trace",
    method="GET",
    path="/v1/trace/{id}",
    role="auditor",
    summary="Follow an id",
    description="Whatever the id names: an event to its predictions, a prediction back to its event, a turn of the loop.",
    answer=Trace,
    query=TraceQuery,
)
CHAMPION: Final = Route(
    name="champion",
    method="GET",
    path="/v1/models/{model}/champion",
    role="auditor",
    summary="Who was champion when",
    description="At a time on either clock, and why; 404 if nobody was.",
    answer=ChampionThen,
    query=ChampionQuery,
)
HISTORY: Final = Route(
    name="history",
    method="GET",
    path="/v1/models/{model}/history",
    role="auditor",
    summary="A model's history",
    description="Every fact of the control plane about the model, in the order of the log.",
    answer=History,
    query=HistoryQuery,
)
EVENT: Final = Route(
    name="event",
    method="GET",
    path="/v1/events/{id}",
    role="auditor",
    summary="Records with an id",
    description="Every logged record with this CloudEvents id; repeats name the first.",
    answer=LoggedEvent,
)
CHECKPOINT: Final = Route(
    name="checkpoint",
    method="GET",
    path="/v1/log/checkpoint",
    role="auditor",
    summary="The newest checkpoint",
    description="Signed; 404 before the first.",
    answer=Checkpoint,
    answers={404: Problem},
)
LEAF: Final = Route(
    name="leaf",
    method="GET",
    path="/v1/log/leaves/{leaf}",
    role="auditor",
    summary="One leaf",
    description="The record, the bytes that are hashed, and the hash.",
    answer=Leaf,
)
INCLUSION: Final = Route(
    name="inclusion",
    method="GET",
    path="/v1/log/inclusion",
    role="auditor",
    summary="Prove that a record is in the log",
    description="Under the newest checkpoint; 409 if that does not cover it yet.",
    answer=Inclusion,
    query=InclusionQuery,
    answers={404: Problem, 409: Problem},
)
CONSISTENCY: Final = Route(
    name="consistency",
    method="GET",
    path="/v1/log/consistency",
    role="auditor",
    summary="Prove that the log has only grown",
    description="Between two sizes.",
    answer=Consistency,
    query=ConsistencyQuery,
    answers={404: Problem},
)

ROUTES: Final[tuple[Route[Any], ...]] = (
    PREDICTION,
    TRACE,
    CHAMPION,
    HISTORY,
    EVENT,
    CHECKPOINT,
    LEAF,
    INCLUSION,
    CONSISTENCY,
)
