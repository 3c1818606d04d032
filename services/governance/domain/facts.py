"""Records as facts: what they say, with the leaf that proves it. Those of the control plane are the nodes of the graph.

Reading is strict and raises `Opaque`: such a record is in the log all the same, it just says nothing that can be looked up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar

from pydantic import ConfigDict

from evenkeel.contracts import superseded
from evenkeel.contracts.envelope import IN_BAND_TYPES, Envelope, Event, Record, parse_us, type_of
from evenkeel.contracts.ids import record_place
from evenkeel.contracts.payload import Fact
from evenkeel.contracts.superseded import Superseded, former_majors, read_as_today
from evenkeel.contracts.topics import Plane, consumed_by, topics_carrying
from evenkeel.libs.errors import Undecodable
from evenkeel.libs.runtime.decoding import Decoder, open_envelope

_TOPICS: Final = consumed_by("governance")
F_co = TypeVar("F_co", bound=Fact, covariant=True)

MAX_TEXT: Final = 512
"""Longest id in the graph: longer ones do not fit into an index entry of every database."""


class Opaque(ValueError):
    """A record that says nothing which can be looked up: not an envelope, not the topic's payload, out of bounds."""


class UnknownFact(Fact):
    """What a record of a topic says that this release does not know, such as a newer major: shown by its topic, as it is."""

    model_config = ConfigDict(frozen=True, extra="allow")

    def sentence(self) -> str:
        return "this release does not know what such a record means"


@dataclass(frozen=True, slots=True)
class LoggedFact(Generic[F_co]):
    """One event as it stands in the log."""

    leaf: int
    topic: str
    event_id: str
    cause_id: str | None
    event_us: int
    recorded_us: int
    """Wall time: when its service said it, or the broker's time if it does not tell."""
    data: F_co

    @property
    def run_id(self) -> str | None:
        """The run that it is a part of, if it names one."""
        return getattr(self.data, "run_id", None)


def topics_with_facts() -> frozenset[str]:
    """The control plane, as far as it is logged: today's topics and their former majors."""
    current = [topic.name for topic in _TOPICS if topic.plane is Plane.CONTROL]
    return frozenset(current) | {former.name for name in current for former in former_majors(name)}


def read_payload(topic: str, value: bytes) -> Fact:
    """What a record says. Raises ValidationError."""
    known = read_as_today(topic, value)
    return UnknownFact.model_validate_json(value) if known is None else known


def read_fact(record: Record, leaf: int) -> LoggedFact[Fact]:
    """The event in a record. Raises Opaque."""
    try:
        event = _decode(record, open_envelope(record))
        recorded = event.attribute("recordedtime")
        return LoggedFact(
            leaf,
            event.topic,
            event.id,
            event.causation_id,
            event.time_us,
            record.timestamp * 1000 if recorded is None else parse_us(recorded),
            event.data,
        )
    except (Undecodable, ValueError) as error:
        raise Opaque(f"{record_place(record.topic, record.partition, record.offset)}: {error}") from error


@lru_cache(maxsize=1)
def _decoder(former: tuple[Superseded, ...]) -> Decoder:
    return Decoder(_TOPICS, former)


def _decode(record: Record, envelope: Envelope) -> Event[Fact]:
    decoder = _decoder(superseded.SUPERSEDED)
    if decoder.knows(record.topic):
        event = decoder.decode(record, envelope)
        if not isinstance(event.data, Fact):
            raise Undecodable("a clock record or a seal is no fact")
        return event
    attributes = envelope.attributes
    if attributes["ce_type"] != type_of(record.topic):
        raise Undecodable(f"ce_type is {attributes['ce_type']!r}, the topic carries {record.topic}")
    data = UnknownFact.model_validate_json(record.value or b"")
    place = record.topic, record.partition, record.offset
    return Event(data, attributes["ce_id"].decode(), envelope.time_us, *place, attributes)


def is_in_band(record: Record) -> bool:
    """A clock record or a seal: logged, and no fact."""
    return dict(record.headers).get("ce_type") in IN_BAND_TYPES


def row_of(record: Record, leaf: int) -> dict[str, Any]:
    """A control-plane record as a row of the graph. Raises Opaque.

    Its subject is the record's key, which on the control plane is the name of what the fact is about.
    """
    fact = read_fact(record, leaf)
    (today,) = topics_carrying(type(fact.data))
    subject = today.key(fact.data)
    for text in (subject, fact.event_id, fact.cause_id or "", fact.run_id or ""):
        if len(text) > MAX_TEXT or "\x00" in text:
            place = record_place(record.topic, record.partition, record.offset)
            raise Opaque(f"{place}: an id of {len(text)} characters")
    return {
        "leaf": leaf,
        "topic": fact.topic,
        "subject": subject,
        "number": fact.data.number(record.offset),
        "run_id": fact.run_id,
        "event_id": fact.event_id,
        "cause_id": fact.cause_id,
        "event_us": fact.event_us,
        "recorded_us": fact.recorded_us,
        "payload": (record.value or b"").decode(),
    }
