"""Step 2 of the consume loop: from a record's bytes to an event. The one decoder of everything that is on our topics.

Two calls, because most readers look at the envelope first and decode only what they have not applied yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from evenkeel.contracts.envelope import (
    SEAL_TYPE,
    WATERMARK_TYPE,
    EnvelopeError,
    Event,
    Record,
    attributes_of,
    origin_of,
    parse_us,
    sealed_sources,
    type_of,
)
from evenkeel.contracts.superseded import Superseded
from evenkeel.contracts.topics import Topic
from evenkeel.libs.errors import Undecodable

Attributes = dict[str, bytes]
Origin = tuple[bytes, bytes, int]
"""(producer store, shard, sequence)."""
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search
_WATERMARK: Final = WATERMARK_TYPE.encode()
_SEAL: Final = SEAL_TYPE.encode()


class ReadWatermark(NamedTuple):
    """Nothing of this stream earlier than this follows on the record's partition."""

    stream: str
    time_us: int


class ReadSeal(NamedTuple):
    """These sources say nothing more on the record's partition."""

    sources: list[str]


def open_envelope(record: Record) -> tuple[Attributes, Origin | None]:
    """The record's headers, checked, and by what a repeat of it is known. Raises Undecodable."""
    try:
        attributes = attributes_of(record.headers)
        return attributes, origin_of(attributes)
    except ValueError as error:  # EnvelopeError is one
        raise Undecodable(f"envelope: {error}") from None


class Decoder:
    """Knows the payloads of some topics. Stateless, so any thread may use it."""

    def __init__(self, topics: Iterable[Topic], former: Iterable[Superseded] = ()) -> None:
        """An event of a former major becomes one of its current payload."""
        self._types: dict[str, bytes] = {}
        self._validators: dict[str, Callable[[bytes], Any]] = {}
        for topic in topics:
            self._types[topic.name] = type_of(topic.name)
            self._validators[topic.name] = topic.payload.__pydantic_validator__.validate_json
        for superseded in former:
            self._types[superseded.name] = type_of(superseded.name)
            self._validators[superseded.name] = _upcasting(superseded)

    def knows(self, topic: str) -> bool:
        return topic in self._types

    def decode(self, record: Record, attributes: Attributes) -> Event[Any] | ReadWatermark | ReadSeal:
        """What a record says whose envelope is open. Raises Undecodable."""
        topic, type_name = record.topic, attributes["ce_type"]
        try:
            if type_name == self._types[topic]:
                value = record.value or b""
                if b"\\u0000" in value and _NUL(value):  # not every store can keep it
                    raise Undecodable("envelope: a text of the payload holds the character U+0000")
                data = self._validators[topic](value)
                time_us = parse_us(attributes["ce_time"].decode())
                return Event(
                    data, attributes["ce_id"].decode(), time_us, topic, record.partition, record.offset, attributes
                )
            if type_name == _WATERMARK:
                watermark = attributes.get("ce_watermark", b"").decode()
                return ReadWatermark(attributes.get("ce_stream", b"").decode(), parse_us(watermark))
            if type_name == _SEAL:
                return ReadSeal(sealed_sources(record.value))
        except ValidationError as error:
            raise Undecodable(payload_fault(error)) from None
        except (EnvelopeError, ValueError, RecursionError) as error:
            raise Undecodable(f"envelope: {error}") from None
        raise Undecodable(f"ce_type is {type_name!r}, this topic carries {self._types[topic]!r}")


def _upcasting(former: Superseded) -> Callable[[bytes], Any]:
    validate, upcast = former.payload.__pydantic_validator__.validate_json, former.upcast
    return lambda value: upcast(validate(value))


def payload_fault(error: ValidationError) -> str:
    """What is wrong with a payload, and where in it."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"payload: {'.'.join(map(str, first['loc'])) or 'value'}: {first['msg']}"
