"""Read a producer's JSON: strict, bounded in size and depth, and exact about what is wrong with it.

One orjson call and a look at the bytes. Only what orjson refuses is looked at again, for a better answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, Final

import orjson

from evenkeel.libs.fields import Fault, is_identifier

MAX_RECORD_BYTES: Final = 65_536
MAX_DEPTH: Final = 32
BACKSLASH: Final = ord("\\")
"""As a number: most records have none, and looking for one byte costs a fifth of looking for two."""
ESCAPED_NUL: Final = rb"\u0000"
_UTF8_FIX: Final = "Send JSON text in UTF-8 without U+0000."


def read_json(value: bytes) -> Any:
    """The parsed value; raises Fault with rule size, encoding, json or finite."""
    if len(value) > MAX_RECORD_BYTES:
        raise Fault(
            "size",
            f"The record has {len(value)} bytes, at most {MAX_RECORD_BYTES} are read.",
            "Leave out what the stream does not declare, or send a reference to large content.",
        )
    try:
        data = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _unreadable(value, str(error)) from None
    if value.count(b"{") + value.count(b"[") > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        raise _too_deep()
    if BACKSLASH in value and ESCAPED_NUL in value and any("\x00" in text for text in _texts(data)):
        raise Fault("encoding", "A text in the record contains U+0000.", _UTF8_FIX)
    return data


def parse(value: bytes) -> Any:
    """As `read_json`, without its limits."""
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise _unreadable(value, str(error)) from None


def written(data: Any) -> bytes:
    """Parsed JSON as JSON again; raises Fault when it is nested too deeply."""
    try:
        return orjson.dumps(data)
    except TypeError:
        raise _too_deep() from None


def _too_deep() -> Fault:
    return Fault("json", f"The record is nested deeper than {MAX_DEPTH} levels.", "Send a flat JSON object.")


def _unreadable(value: bytes, why: str) -> Fault:
    """The fault of a value that orjson does not read."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return Fault("encoding", f"Byte {error.start} of the record is not UTF-8.", _UTF8_FIX)
    if "\x00" in text:
        return Fault("encoding", "The record contains U+0000.", _UTF8_FIX)
    if _written_depth(text) > MAX_DEPTH:
        return _too_deep()
    fix = "Send one valid JSON object (RFC 8259)."
    try:
        data = json.loads(text, parse_constant=float)
    except (ValueError, RecursionError):
        return Fault("json", f"The record is not JSON: {why}.", fix)
    if isinstance(data, dict):
        for name, found in data.items():
            if any(not math.isfinite(number) for number in _numbers(found)):
                return _not_finite(name)
    if any(not math.isfinite(number) for number in _numbers(data)):
        return _not_finite(None)
    if any(not _is_unicode(found) for found in _texts(data)):
        return Fault("encoding", "A text in the record contains half of a surrogate pair.", _UTF8_FIX)
    return Fault("json", f"The record is not JSON: {why}.", fix)


def _not_finite(field: str | None) -> Fault:
    if field is not None and not is_identifier(field):  # a producer's own words: no declared field is called so
        field = None
    where = "A number in the record" if field is None else field
    return Fault(
        "finite",
        f"{where} is NaN, infinite, or larger than a double holds.",
        "Send a finite number, or leave the field out when the value is unknown.",
        field=field,
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _depth(data: Any) -> int:
    level, depth = [data], 0
    while level := [item for item in level if isinstance(item, (dict, list))]:
        depth += 1
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    return depth


def _written_depth(text: str) -> int:
    depth = deepest = 0
    in_text = escaped = False
    for character in text:
        if in_text:
            in_text = escaped or character != '"'
            escaped = not escaped and character == "\\"
        elif character == '"':
            in_text = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _leaves(data: Any) -> Iterator[Any]:
    stack = [data]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            stack += item.values()
            yield from item
        elif isinstance(item, list):
            stack += item
        else:
            yield item


def _texts(data: Any) -> Iterator[str]:
    return (leaf for leaf in _leaves(data) if isinstance(leaf, str))


def _numbers(data: Any) -> Iterator[float]:
    return (leaf for leaf in _leaves(data) if isinstance(leaf, float))
