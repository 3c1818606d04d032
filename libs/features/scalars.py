"""Reading fields of records: numbers, categories, time parts and entity keys, each with one answer for what is missing.

A value of the wrong type is treated as missing: ingest and serving refuse it before it gets here, with a named error.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Literal, TypeAlias, get_args

from evenkeel.contracts.declaration import DAY_US, MINUTE_US
from evenkeel.contracts.envelope import parse_us

TimePart: TypeAlias = Literal["hour", "minute_of_day", "weekday", "month"]

TIME_PARTS: Final[dict[str, TimePart]] = {name: name for name in get_args(TimePart)}
NAN: Final = float("nan")
_LARGEST: Final = 1e150

Fields: TypeAlias = Mapping[str, object]


def number(value: object) -> float:
    """A number or boolean as a float; NaN for anything else, and beyond ±1e150, whose square is not a float."""
    if type(value) is float or isinstance(value, (int, float)):
        return float(value) if -_LARGEST < value < _LARGEST else NAN
    return NAN


@lru_cache(maxsize=65_536)
def bucket(value: str, buckets: int) -> int:
    """A stable code for a text: CRC-32 of its UTF-8 bytes modulo `buckets`.

    >>> bucket("JFK", 64)
    31
    """
    return zlib.crc32(value.encode("utf-8", "surrogatepass")) % buckets


def category_reader(values: tuple[str, ...] | None, buckets: int | None) -> Callable[[object], float]:
    """Text → code: position in `values` (unknown is -1), or hash bucket; NaN if missing."""
    if values is None:
        count = buckets or 1
        return lambda value: float(bucket(value, count)) if isinstance(value, str) else NAN
    codes = {value: float(code) for code, value in enumerate(values)}
    return lambda value: codes.get(value, -1.0) if isinstance(value, str) else NAN


@lru_cache(maxsize=1_024)
def _month(day: int) -> float:
    return float(datetime.fromtimestamp(day * 86_400, UTC).month)


_PARTS: Final[dict[TimePart, Callable[[int], float]]] = {
    "hour": lambda time_us: float(time_us % DAY_US // (60 * MINUTE_US)),
    "minute_of_day": lambda time_us: float(time_us % DAY_US // MINUTE_US),
    "weekday": lambda time_us: float((time_us // DAY_US + 3) % 7),
    "month": lambda time_us: _month(time_us // DAY_US),
}


def time_part(part: TimePart) -> Callable[[int], float]:
    """Microseconds since the epoch → a part of that moment, in UTC."""
    return _PARTS[part]


@lru_cache(maxsize=4_096)
def time_us(text: str) -> int | None:
    """An RFC 3339 text as microseconds since the epoch; `None` if it is not one."""
    try:
        return parse_us(text)
    except (ValueError, OverflowError):
        return None


def key_part(value: object) -> str | None:
    """One key field as text: an integer and its text are the same key; `None` if it is missing or no key."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return None


def key_reader(names: tuple[str, ...]) -> Callable[[Fields], str | None]:
    """Record → entity text, or `None` if a key field is missing.

    All parts but the last are written with their length, so that no two different keys have the same text.

    >>> key_reader(("origin", "carrier"))({"origin": "JFK", "carrier": "B6"})
    '3|JFK|B6'
    """
    if not names:
        return lambda fields: ""
    if len(names) == 1:
        (name,) = names

        def one(fields: Fields) -> str | None:
            value = fields.get(name)
            return value if type(value) is str else key_part(value)

        return one
    *heads, last = names

    def many(fields: Fields) -> str | None:
        text = ""
        for head in heads:
            value = fields.get(head)
            part = value if type(value) is str else key_part(value)
            if part is None:
                return None
            text += f"{len(part)}|{part}|"
        value = fields.get(last)
        part = value if type(value) is str else key_part(value)
        return None if part is None else text + part

    return many
