"""Step 2 of the consume loop: from a record's bytes to an event. The one decoder of everything that is on our topics.

Two calls, because most readers look at the envelope first and decode only what they have not applied yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pydantic import ValidationError

from evenkeel.contracts.envelope import Envelope, EnvelopeError, Event, Record, opened, type_of
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.runtime import IN_BAND, SourcesSealed
from evenkeel.contracts.superseded import Superseded
from evenkeel.contracts.topics import Topic
from evenkeel.libs.errors import Undecodable
from evenkeel.libs.json_text import holds_nul

Validator = Callable[[bytes], Payload]


def open_envelope(record: Record) -> Envelope:
    """The record's headers, checked. Raises Undecodable."""
    try:
        return opened(record.headers)
    except ValueError as error:  # EnvelopeError is one
        raise Undecodable(f"envelope: {error}") from None


class Decoder:
    """Knows the payloads of some topics. Stateless, so any thread may use it."""

    def __init__(self, topics: Iterable[Topic], former: Iterable[Superseded] = ()) -> None:
        """An event of a former major becomes one of its current payload."""
        self._types: dict[str, bytes] = {}
        self._validators: dict[tuple[str, bytes], Validator] = {}
        """By topic and `ce_type`."""
        for topic in topics:
            self._add(topic.name, topic.payload.__pydantic_validator__.validate_json, topic.also)
        for superseded in former:
            self._add(superseded.name, _upcasting(superseded), (SourcesSealed,))

    def _add(self, topic: str, validate: Validator, also: Iterable[type[Payload]]) -> None:
        self._types[topic] = type_of(topic)
        self._validators[topic, type_of(topic)] = validate
        for name, payload in IN_BAND.items():
            if payload in also:
                self._validators[topic, type_of(name)] = payload.__pydantic_validator__.validate_json

    def knows(self, topic: str) -> bool:
        return topic in self._types

    def decode(self, record: Record, envelope: Envelope) -> Event[Any]:
        """What a record says whose envelope is open: the topic's payload, or what travels in band beside it. Raises
        Undecodable."""
        topic, value, attributes = record.topic, record.value or b"", envelope.attributes
        validate = self._validators.get((topic, attributes["ce_type"]))
        if validate is None:
            raise Undecodable(f"ce_type is {attributes['ce_type']!r}, this topic carries {self._types[topic]!r}")
        try:
            if holds_nul(value):  # not every store can keep it
                raise Undecodable("envelope: a text of the payload holds the character U+0000")
            data = validate(value)
            return Event(
                data,
                attributes["ce_id"].decode(),
                envelope.time_us,
                topic,
                record.partition,
                record.offset,
                attributes,
                attributes.get("ce_stream", b"").decode(),
                envelope.order_us,
            )
        except ValidationError as error:
            raise Undecodable(payload_fault(error)) from None
        except (EnvelopeError, ValueError, RecursionError) as error:
            raise Undecodable(f"envelope: {error}") from None


def _upcasting(former: Superseded) -> Validator:
    validate, upcast = former.payload.__pydantic_validator__.validate_json, former.upcast
    return lambda value: upcast(validate(value))


def payload_fault(error: ValidationError) -> str:
    """What is wrong with a payload, and where in it."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"payload: {'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
