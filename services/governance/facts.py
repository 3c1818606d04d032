"""Records as facts: a decoded event with the leaf that proves it. Control-plane facts are the nodes of the lineage graph.

Reading is strict and raises `Opaque`: such a record is in the log all the same, it just says nothing that can be looked up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from evenkeel.contracts.envelope import IN_BAND_TYPES, EnvelopeError, Record, attributes_of, parse_us, type_of
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import (
    ApprovalDecided,
    ChampionChanged,
    GateDecided,
    ModelDeclared,
    StreamDeclared,
    VersionRegistered,
)
from evenkeel.contracts.serving import ActivationFailed, VersionActivated
from evenkeel.contracts.topics import BY_NAME, topics_carrying
from evenkeel.contracts.trainer import LoopChanged, RetrainDecided, RunCompleted, RunFailed, RunStarted

P_co = TypeVar("P_co", bound=Payload, covariant=True)
P = TypeVar("P", bound=Payload)

MAX_TEXT: Final = 512
"""Longest id in the graph: longer ones do not fit into an index entry of every database."""
MAX_NUMBER: Final = 2**63 - 1

NUMBERED: Final[Mapping[type[Payload], Callable[[Any, int], int | None]]] = {
    # Payload → the number by which others name it beside its model or stream, from the payload and its topic offset.
    StreamDeclared: lambda data, offset: offset,
    ModelDeclared: lambda data, offset: offset,
    DatasetCommitted: lambda data, offset: int(data.version),
    DriftDetected: lambda data, offset: int(data.epoch),
    PerformanceDegraded: lambda data, offset: int(data.epoch),
    RetrainDecided: lambda data, offset: None,
    LoopChanged: lambda data, offset: None,
    RunStarted: lambda data, offset: int(data.attempt),
    RunFailed: lambda data, offset: int(data.attempt),
    RunCompleted: lambda data, offset: None,
    VersionRegistered: lambda data, offset: int(data.version),
    GateDecided: lambda data, offset: int(data.version),
    ApprovalDecided: lambda data, offset: int(data.version),
    ChampionChanged: lambda data, offset: int(data.epoch),
    VersionActivated: lambda data, offset: int(data.epoch),
    ActivationFailed: lambda data, offset: int(data.epoch),
}
TOPICS_WITH_FACTS: Final = {topic.name for payload in NUMBERED for topic in topics_carrying(payload)}


class Opaque(ValueError):
    """A record that says nothing which can be looked up: not an envelope, not the topic's payload, out of bounds."""


@dataclass(frozen=True, slots=True)
class Fact(Generic[P_co]):
    """One event as it stands in the log."""

    leaf: int
    topic: str
    event_id: str
    cause_id: str | None
    event_us: int
    recorded_us: int
    """Wall time: when its service said it, or the broker's time if it does not tell."""
    data: P_co


def read_event(record: Record, leaf: int, payload: type[P]) -> Fact[P]:
    """The event in a record. Raises Opaque."""
    try:
        attributes = attributes_of([(name, value) for name, value in record.headers if value is not None])
        if attributes["ce_type"] != type_of(record.topic):
            raise Opaque(f"ce_type is {attributes['ce_type']!r}, the topic carries {record.topic}")
        recorded, cause = attributes.get("ce_recordedtime"), attributes.get("ce_causationid")
        return Fact(
            leaf,
            record.topic,
            attributes["ce_id"].decode(),
            None if cause is None else cause.decode(),
            parse_us(attributes["ce_time"].decode()),
            record.timestamp * 1000 if recorded is None else parse_us(recorded.decode()),
            payload.model_validate_json(record.value or b""),
        )
    except (ValidationError, EnvelopeError, ValueError, RecursionError) as error:
        raise Opaque(f"{record.topic}/{record.partition}/{record.offset}: {error}") from error


def is_in_band(record: Record) -> bool:
    """A watermark or a seal: logged, and no fact."""
    return dict(record.headers).get("ce_type") in IN_BAND_TYPES


def row_of(record: Record, leaf: int) -> dict[str, Any]:
    """A control-plane record as a row of the graph. Raises Opaque."""
    payload = BY_NAME[record.topic].payload
    fact: Fact[Any] = read_event(record, leaf, payload)
    subject = str(fact.data.name if hasattr(fact.data, "name") else fact.data.model)
    number, run_id = NUMBERED[payload](fact.data, record.offset), getattr(fact.data, "run_id", None)
    for text in (subject, fact.event_id, fact.cause_id or "", run_id or ""):
        if len(text) > MAX_TEXT or "\x00" in text:
            raise Opaque(f"{record.topic}/{record.partition}/{record.offset}: an id of {len(text)} characters")
    if number is not None and number > MAX_NUMBER:
        raise Opaque(f"{record.topic}/{record.partition}/{record.offset}: the number {number} is too large")
    return {
        "leaf": leaf,
        "topic": fact.topic,
        "subject": subject,
        "number": number,
        "run_id": run_id,
        "event_id": fact.event_id,
        "cause_id": fact.cause_id,
        "event_us": fact.event_us,
        "recorded_us": fact.recorded_us,
        "payload": (record.value or b"").decode(),
    }
