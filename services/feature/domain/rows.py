"""What a view takes and gives: folded records, vectors that wait for their label, rows of the training table; and how they
are stored.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import msgspec


class Folded(NamedTuple):
    """One record as it was folded, for the journal. `label_of`: the event that a label belongs to."""

    stream: str
    order_us: int
    time_us: int
    id: str
    label_of: str | None
    fields: dict[str, Any]


_encode: Final = msgspec.msgpack.Encoder().encode
_decode_folded: Final = msgspec.msgpack.Decoder(list[Folded]).decode


def pack_folded(records: Sequence[Folded]) -> bytes:
    """One journal row."""
    return _encode(records)


def unpack_folded(blob: bytes) -> list[Folded]:
    return _decode_folded(blob)


class Waiting(NamedTuple):
    """A vector without a label yet; `values` are float64 in schema order, NaN for missing."""

    time_us: int
    values: array[float]


class TrainingRow(NamedTuple):
    """A vector with its label. `label_time_us`: when the label took its turn, from which moment on it was known."""

    event_id: str
    event_time_us: int
    label_time_us: int
    label: float
    values: array[float]


class _Chunk(msgspec.Struct, array_like=True):
    event_ids: list[str]
    event_times: bytes
    label_times: bytes
    labels: bytes
    values: bytes


_decode_chunk: Final = msgspec.msgpack.Decoder(_Chunk).decode


def pack_rows(rows: Sequence[TrainingRow]) -> bytes:
    """Training rows as one blob, column by column; values row by row."""
    return _encode(
        _Chunk(
            [row.event_id for row in rows],
            array("q", [row.event_time_us for row in rows]).tobytes(),
            array("q", [row.label_time_us for row in rows]).tobytes(),
            array("d", [row.label for row in rows]).tobytes(),
            b"".join([row.values.tobytes() for row in rows]),
        )
    )


def unpack_rows(blob: bytes) -> list[TrainingRow]:
    """The inverse of `pack_rows`, bit for bit."""
    chunk = _decode_chunk(blob)
    times = (array("q", chunk.event_times), array("q", chunk.label_times))
    labels, values = array("d", chunk.labels), array("d", chunk.values)
    width = len(values) // len(labels) if labels else 0
    return [
        TrainingRow(event_id, times[0][n], times[1][n], labels[n], values[n * width : (n + 1) * width])
        for n, event_id in enumerate(chunk.event_ids)
    ]
