"""The envelope: CloudEvents 1.0 in Kafka's binary mode.

Source: cloudevents/spec, bindings/kafka-protocol-binding.md and extensions (correlation, sequence, recordedtime,
distributed tracing). Attributes are headers named `ce_<attribute>`; the value holds the payload's JSON as it is. The
official SDK is not used (it costs five times as much and misreads some messages); it is the oracle of the codec's tests.

Own extension attributes: `shard` (with `source` and `sequence` the identity of a derived event), `stream` (which stream
the event belongs to) and `ordertime` (when the event takes its turn among the others, if that is not its own time). Reserved,
and ignored by whoever reads them today: `previous` (the sequence of its producer's last event before it on this partition,
so that a missing one is seen), `signature` with `keyid` (the producer's, and of which key), `subject`.

A header says only what no other header and no payload says. Without `correlationid` an event belongs to what it follows
from, `causationid`, and without that it is the first of its kind; `causationid` is left out where the payload names the
cause (`Payload.follows_from`), `ordertime` where an event takes its turn at its own time, `traceparent` where nobody traces.

Two kinds of records travel among a topic's events and are none: see contracts/runtime.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Generic, Protocol, TypeVar

import msgspec

TYPE_PREFIX: Final = "io.evenkeel."
CLOCK_TYPE: Final = TYPE_PREFIX + "clock-advanced.v1"
SEAL_TYPE: Final = TYPE_PREFIX + "sources-sealed.v1"
IN_BAND_TYPES: Final = frozenset({CLOCK_TYPE.encode(), SEAL_TYPE.encode()})
"""What records among the events of a topic may be besides events."""
CONTENT_TYPE: Final = b"application/json"
HEARTBEAT_HEADER: Final = "evenkeel-heartbeat"
"""A raw record with this header (RFC 3339) and no value says: nothing earlier will come on this partition."""

Headers = Sequence[tuple[str, bytes]]
Origin = tuple[bytes, bytes, int]
"""(producer store, shard, sequence)."""


class Caused(Protocol):
    """What an event carries."""

    def follows_from(self) -> str | None: ...


P_co = TypeVar("P_co", bound=Caused, covariant=True)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ATTRIBUTE_BYTES: Final = 2_048
_TEXTS: Final = (
    *("ce_id", "ce_source", "ce_type", "ce_time", "ce_stream", "ce_ordertime", "ce_correlationid", "ce_causationid"),
    *("ce_shard", "traceparent"),
)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class EnvelopeError(ValueError):
    """A record of one of our own topics that does not carry a valid envelope or payload."""


class Record(Protocol):
    """One Kafka record as read: bytes only."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


def parse_us(text: str) -> int:
    """Microseconds since the epoch of an RFC 3339 time; a time without a zone is refused with ValueError, and what is no
    text, as JSON from outside may hold, with TypeError.

    >>> parse_us("1970-01-01T00:00:01Z")
    1000000
    """
    if type(text) is not str:
        raise TypeError(f"{type(text).__name__} is no text")
    # Our own form is a day, which many events share, a minute and a second, and perhaps microseconds.
    size = len(text)
    if (size == 20 or size == 27) and text[-1] == "Z":
        day_us, minute_us, second_us = _DAYS.get(text[:11]), _MINUTES.get(text[11:17]), _SECONDS.get(text[17:19])
        if day_us is not None and minute_us is not None and second_us is not None:
            if size == 20:
                return day_us + minute_us + second_us
            fraction = text[20:26]
            if text[19] == "." and fraction.isdigit() and fraction.isascii():
                return day_us + minute_us + second_us + int(fraction)
    return _parse_us(text)


_MINUTE_TEXTS: Final = tuple(f"{hour:02d}:{minute:02d}:" for hour in range(24) for minute in range(60))
_SECOND_TEXTS: Final = tuple(f"{second:02d}" for second in range(60))
_MINUTES: Final = {text: minute * 60_000_000 for minute, text in enumerate(_MINUTE_TEXTS)}
_SECONDS: Final = {text: second * 1_000_000 for second, text in enumerate(_SECOND_TEXTS)}
_DAYS: Final[dict[str, int]] = {}
"""Microseconds of the days that were parsed, by their text with its T. Any thread may write; a second time it is the same."""
_MAX_DAYS: Final = 65_536


def _parse_us(text: str) -> int:
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time with a zone, such as 2013-01-01T05:15:00Z")
    delta = datetime.fromisoformat(text) - _EPOCH
    if text[10] == "T" and text[-1] == "Z":
        if len(_DAYS) >= _MAX_DAYS:
            _DAYS.clear()
        _DAYS[text[:11]] = delta.days * 86_400_000_000
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


FIRST_US: Final = parse_us("1800-01-01T00:00:00Z")
LAST_US: Final = parse_us("3100-01-01T00:00:00Z")
"""Times of our own records lie between these, wider than what ingest takes by any window, disorder or horizon."""


def format_us(time_us: int) -> str:
    """The RFC 3339 form, in UTC, of microseconds since the epoch.

    >>> format_us(1000000)
    '1970-01-01T00:00:01Z'
    """
    minute, of_minute = divmod(time_us, 60_000_000)
    day, of_day = divmod(minute, 1_440)
    second, fraction = divmod(of_minute, 1_000_000)
    until_second = f"{_format_day(day)}{_MINUTE_TEXTS[of_day]}{_SECOND_TEXTS[second]}"
    return f"{until_second}.{fraction:06d}Z" if fraction else until_second + "Z"


@lru_cache(maxsize=65_536)
def _format_day(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).date().isoformat() + "T"


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """A record's headers, checked: what is read from them before its payload is."""

    attributes: dict[str, bytes]
    time_us: int
    order_us: int
    origin: Origin | None
    """By which a repeat of a derived event is known; None for one from outside."""


_UNSAID: Final = -(2**63)


class Event(msgspec.Struct, Generic[P_co], eq=False, gc=False):
    """A decoded record: a payload with what its envelope says. `time_us` is event time. A struct, for there is one per
    record: a dataclass costs three times as much."""

    data: P_co
    id: str
    time_us: int
    topic: str
    partition: int
    offset: int
    attributes: dict[str, bytes]
    stream: str = ""
    order_us: int = _UNSAID
    """When the event takes its turn in an event-time merge, fixed once by ingest: its own time, or for one that came late
    its stream's watermark of that moment."""

    def __post_init__(self) -> None:
        # Each is read several times an event on the data plane; the decoder knows them.
        if self.order_us == _UNSAID:
            self.stream = self.attribute("stream") or ""
            order = self.attribute("ordertime")
            self.order_us = self.time_us if order is None else max(self.time_us, parse_us(order))

    def attribute(self, name: str) -> str | None:
        value = self.attributes.get("ce_" + name)
        return None if value is None else value.decode()

    @property
    def recorded_us(self) -> int:
        """Wall time of the transaction that said it: the same for all that one transaction says."""
        text = self.attribute("recordedtime")
        return self.time_us if text is None else parse_us(text)

    @property
    def correlation_id(self) -> str:
        return self.attribute("correlationid") or self.attribute("causationid") or self.id

    @property
    def causation_id(self) -> str | None:
        said = self.attribute("causationid")
        return self.data.follows_from() if said is None else said

    @property
    def traceparent(self) -> str | None:
        value = self.attributes.get("traceparent")
        return None if value is None else value.decode()


def encode(
    *,
    id: str,
    source: bytes,
    type: bytes,
    time_us: int,
    recorded: bytes,
    sequence: int,
    shard: bytes,
    correlation_id: str,
    causation_id: str | None = None,
    stream: str | None = None,
    order_us: int | None = None,
    traceparent: str | None = None,
) -> list[tuple[str, bytes]]:
    """The headers of one event. What is the same for a whole batch comes in as bytes. `causation_id` is None where the
    payload names the cause."""
    headers = [
        *_of_the_batch(source, type, recorded, shard),
        ("ce_id", id.encode()),
        ("ce_time", format_us(time_us).encode()),
        ("ce_sequence", b"%020d" % sequence),
    ]
    if correlation_id != (id if causation_id is None else causation_id):
        headers.append(("ce_correlationid", correlation_id.encode()))
    if causation_id is not None:
        headers.append(("ce_causationid", causation_id.encode()))
    if stream is not None:
        headers.append(("ce_stream", stream.encode()))
    if order_us is not None and order_us != time_us:
        headers.append(("ce_ordertime", format_us(order_us).encode()))
    if traceparent is not None and is_sampled(traceparent):
        headers.append(("traceparent", traceparent.encode()))
    return headers


def is_sampled(traceparent: str) -> bool:
    """Whether anybody records this trace."""
    return traceparent.endswith("01")


@lru_cache(maxsize=256)
def _of_the_batch(source: bytes, type: bytes, recorded: bytes, shard: bytes) -> Headers:
    """The headers that thousands of records have in common, as the same objects."""
    return (
        ("content-type", CONTENT_TYPE),
        ("ce_specversion", b"1.0"),
        ("ce_source", source),
        ("ce_type", type),
        ("ce_recordedtime", recorded),
        ("ce_shard", shard),
    )


def attributes_of(headers: Headers) -> dict[str, bytes]:
    """The headers as a mapping; checks what every event must carry (EnvelopeError)."""
    return opened(headers).attributes


def opened(headers: Headers) -> Envelope:
    """The envelope of one record, checked in one pass. Raises EnvelopeError, and ValueError for what is no time."""
    attributes = dict(headers)
    try:
        together = b"".join(attributes.values())
    except TypeError:  # Kafka allows a header without a value
        raise EnvelopeError("a header has no value: leave it out instead") from None
    try:
        _, _, version, _, time = (
            attributes["ce_id"],
            attributes["ce_source"],
            attributes["ce_specversion"],
            attributes["ce_type"],
            attributes["ce_time"],
        )
    except KeyError as error:
        raise EnvelopeError(
            f"header {error.args[0]} is missing: records of this topic are CloudEvents 1.0 in binary mode"
        ) from None
    if version != b"1.0":
        raise EnvelopeError(f"ce_specversion is {version[:80]!r}, expected 1.0")
    if len(together) > MAX_ATTRIBUTE_BYTES or b"\0" in together or not together.isascii():
        _check_texts(attributes)
    time_us = order_us = _time_of("ce_time", time)
    if "ce_ordertime" in attributes:
        order_us = max(time_us, _time_of("ce_ordertime", attributes["ce_ordertime"]))
    return Envelope(attributes, time_us, order_us, origin_of(attributes))


def _time_of(name: str, value: bytes) -> int:
    time_us = parse_us(value.decode())
    if not FIRST_US <= time_us <= LAST_US:
        raise EnvelopeError(f"{name} is {value.decode()}, before 1800 or after 3100: nobody can calculate with it")
    return time_us


def _check_texts(attributes: dict[str, bytes]) -> None:
    for name in _TEXTS:
        value = attributes.get(name)
        if value is not None and (len(value) > MAX_ATTRIBUTE_BYTES or b"\0" in value or not _is_text(value)):
            raise EnvelopeError(
                f"{name} is {value[:80]!r}: send UTF-8 of at most {MAX_ATTRIBUTE_BYTES} bytes without U+0000"
            )


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def origin_of(attributes: dict[str, bytes]) -> Origin | None:
    """(producer store, shard, sequence) of a derived event, by which a repeat of it is known; None for one from outside."""
    digits = attributes.get("ce_sequence")
    if digits is None:
        return None
    sequence = int(digits) if digits.isdigit() and len(digits) <= 20 else 2**63
    if sequence >= 2**63:
        raise EnvelopeError(f"ce_sequence is {digits[:80]!r}, expected digits of a number below 2^63")
    return attributes["ce_source"], attributes.get("ce_shard", b""), sequence


def type_of(topic: str) -> bytes:
    """The CloudEvents type of a topic's events: one type per topic, with the topic's major in both names."""
    return (TYPE_PREFIX + topic).encode()


def text_headers(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    """Headers for people and JSON; bytes that are not UTF-8 are shown escaped."""
    return {name: value.decode("utf-8", "backslashreplace") for name, value in headers}
