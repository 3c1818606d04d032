"""What a leaf of the log is, and what can be read from the leaves of one segment alone.

A leaf is the msgpack of `[topic, partition, offset, timestamp, key, value, [[header, value], …]]`, byte for byte what
its hash is over. A segment is stored as zstd over the msgpack list of its leaves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cramjam
import msgspec

from evenkeel.contracts.envelope import Headers, Record
from evenkeel.libs.audit.fingerprints import NO_ID, fingerprint
from evenkeel.libs.audit.merkle import leaf_hash

_ZSTD_LEVEL: Final = 1
_NOT_A_RECORD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a damaged or forged leaf raises; the last two msgspec passes on from Python."""


class LoggedRecord(msgspec.Struct, array_like=True):
    """One consumed record as it was logged; `timestamp` is the broker's, in milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    all_headers: list[tuple[str, bytes | None]]

    @property
    def headers(self) -> Headers:
        """The headers but for those with a null value, which Kafka allows and no envelope has."""
        return [(name, value) for name, value in self.all_headers if value is not None]


class _HeadersStart(msgspec.Struct, array_like=True):
    """The first three headers; our own envelopes have the id among them."""

    first: tuple[str, bytes | None] = ("", None)
    second: tuple[str, bytes | None] = ("", None)
    third: tuple[str, bytes | None] = ("", None)


class _RecordStart(msgspec.Struct, array_like=True):
    """Of a leaf only what the verifier needs: decoding all of it would take it longer than hashing."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: msgspec.Raw
    value: msgspec.Raw
    headers: _HeadersStart

    def fingerprint(self, leaf: bytes) -> bytes:
        """As `id_fingerprint` of the whole record, which `leaf` holds."""
        start = self.headers
        for name, value in (start.first, start.second, start.third):
            if name == "ce_id" and value is not None:
                return fingerprint(value)
        return id_fingerprint(decode_record(leaf).headers)


@dataclass(frozen=True, slots=True)
class OffsetRun:
    """Contiguous offsets `first` … `after - 1` of one partition; the first of them is at `position` in the segment."""

    topic: str
    partition: int
    position: int
    first: int
    after: int


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """What the leaves of a segment say, without the rest of the log."""

    hashes: bytes
    """32 bytes a leaf."""
    fingerprints: bytes
    """Eight bytes a leaf."""
    runs: list[OffsetRun]
    """In the order of their beginnings; two runs of one partition are not contiguous."""
    unreadable: tuple[tuple[int, str], ...]
    """Positions of leaves that are not records, with the reason."""


_encode = msgspec.msgpack.Encoder().encode
decode_record: Final = msgspec.msgpack.Decoder(LoggedRecord).decode
_decode_start: Final = msgspec.msgpack.Decoder(_RecordStart).decode
_decode_leaves: Final = msgspec.msgpack.Decoder(list[bytes]).decode


def encode_record(record: Record) -> bytes:
    """The leaf of a record."""
    return _encode(
        (record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers)
    )


def place_of(leaf: bytes) -> tuple[str, int]:
    """Topic and partition of a leaf."""
    start = _decode_start(leaf)
    return start.topic, start.partition


def event_id(headers: Headers) -> bytes | None:
    """The CloudEvents id among the headers."""
    for name, value in headers:
        if name == "ce_id" and value is not None:
            return value
    return None


def id_fingerprint(headers: Headers) -> bytes:
    """The fingerprint by which the record's event id is found, `NO_ID` if it has none."""
    identifier = event_id(headers)
    return NO_ID if identifier is None else fingerprint(identifier)


def leaf_event_id(leaf: bytes) -> bytes | None:
    """The event id of a leaf; None if it has none, as a leaf that is no longer a record."""
    try:
        return event_id(decode_record(leaf).headers)
    except _NOT_A_RECORD:
        return None


def pack(leaves: list[bytes]) -> bytes:
    """A segment as it is stored."""
    return bytes(cramjam.zstd.compress(_encode(leaves), level=_ZSTD_LEVEL))


def unpack(data: bytes) -> list[bytes]:
    """The leaves of a segment. Raises ValueError if the stored bytes are damaged."""
    try:
        return _decode_leaves(bytes(cramjam.zstd.decompress(data)))
    except (cramjam.DecompressionError, msgspec.DecodeError) as error:
        raise ValueError(f"the stored bytes are damaged ({error})") from error


def read_segment(data: bytes) -> SegmentFacts:
    """Hash and read every leaf of a segment. Raises ValueError if the stored bytes are damaged."""
    leaves = unpack(data)
    hashes, fingerprints, unreadable = [], [], []
    current: dict[tuple[str, int], list[int]] = {}
    runs: list[tuple[tuple[str, int], list[int]]] = []
    for position, leaf in enumerate(leaves):
        hashes.append(leaf_hash(leaf))
        try:
            record = _decode_start(leaf)
            fingerprints.append(record.fingerprint(leaf))
        except _NOT_A_RECORD as error:
            unreadable.append((position, str(error)))
            fingerprints.append(NO_ID)
            continue
        place = (record.topic, record.partition)
        run = current.get(place)
        if run is None or run[2] != record.offset:
            run = current[place] = [position, record.offset, record.offset]
            runs.append((place, run))
        run[2] += 1
    return SegmentFacts(
        b"".join(hashes),
        b"".join(fingerprints),
        [OffsetRun(topic, partition, *run) for (topic, partition), run in runs],
        tuple(unreadable),
    )
