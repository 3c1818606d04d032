"""A record kept inside another one, byte for byte, as rejected events and dead letters do."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from evenkeel.contracts.envelope import Record

KEPT_BYTES: Final = 262_144
"""A record is kept whole up to this size; a larger one would not fit into a record of ours."""


def size_of(record: Record) -> int:
    """Bytes of key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def base64_of(data: bytes | None) -> str | None:
    return None if data is None else b64encode(data).decode()
