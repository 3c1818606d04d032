"""The declared fields of a record: what a value may be, and what is wrong with one that may not.

ingest checks producers' records and serving checks the events in requests with these same checks, so that a request is
refused exactly where the record would be. Values are taken over exactly or refused.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any, Final, Literal

from evenkeel.contracts.declaration import FieldSpec
from evenkeel.contracts.envelope import parse_us
from evenkeel.contracts.payload import IDENTIFIER_PATTERN, NAME_PATTERN

Rule = Literal[
    "size",
    "encoding",
    "json",
    "shape",
    "identity",
    "missing",
    "type",
    "range",
    "category",
    "finite",
    "event_time",
    "too_late",
    "too_far_ahead",
    "id_conflict",
    "duplicate",
]
"""Of a stream's contract: what a record may break. `duplicate` is no error of its producer."""
FieldValue = bool | int | float | str | None
Check = Callable[[Any], FieldValue]

COMPLETE: Final[dict[str, type]] = {"string": str, "boolean": bool}
"""Types of fields whose values need no check but that of their JSON type."""
SHOWN_CHARACTERS: Final = 80
FIRST_TIME_US: Final = parse_us("1900-01-01T00:00:00Z")
LAST_TIME_US: Final = parse_us("2999-12-31T00:00:00Z")
"""Event times outside these are refused, so that no service overflows when it adds a window to one."""
is_identifier: Final = re.compile(IDENTIFIER_PATTERN.removeprefix("^").removesuffix("$")).fullmatch
MAX_RECORD_ID_BYTES: Final = 256
_is_name: Final = re.compile(NAME_PATTERN.removeprefix("^").removesuffix("$")).fullmatch
RECORD_ID_FIX: Final = "as text of 1 to 256 bytes without control characters."
INT64: Final = range(-(2**63), 2**63)


class Fault(Exception):
    """A record that breaks its stream's contract: the rule, what was found, and what to send instead."""

    def __init__(
        self, rule: Rule, reason: str, fix: str, *, field: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(reason)
        self.rule, self.reason, self.fix, self.field, self.event_id = rule, reason, fix, field, event_id


def is_record_id(text: str) -> bool:
    """Whether a text can be what a producer calls a record: 1 to 256 bytes of UTF-8 without control characters.

    >>> is_record_id("order 7/b"), is_record_id(""), is_record_id("a\\n"), is_record_id("é" * 129)
    (True, False, False, False)
    """
    if _is_name(text) is None:
        return False
    if text.isascii():  # as most are: a character is a byte
        return True
    try:
        return len(text.encode()) <= MAX_RECORD_ID_BYTES
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def shown(value: object) -> str:
    """A value of a producer, short enough for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def in_bounds(time_us: int, text: str, field: str) -> int:
    """The time, if every service can calculate with it; else Fault."""
    if not FIRST_TIME_US <= time_us <= LAST_TIME_US:
        reason = f"{field} is {shown(text)}, which is before 1900 or after 2999."
        raise Fault("event_time", reason, "Send the time at which it happened.", field=field)
    return time_us


def field_check(name: str, spec: FieldSpec) -> Check:
    """A function that returns the value of one field as declared, or raises Fault; null is the caller's business.

    Raises ValueError if no check is known of the field's type: what the declaration of a newer release may hold.
    """
    make = _CHECKS.get(spec.type)
    if make is None:
        raise ValueError(f"field {name} is of type {spec.type}; known here: {', '.join(_CHECKS)}")
    return make(name, spec)


def _wrong_type(name: str, found: object, wanted: str) -> Fault:
    return Fault("type", f"{name} is {shown(found)}, not {wanted}.", f"Send {name} as {wanted}.", field=name)


def _number(name: str, spec: FieldSpec) -> Check:
    outside = _range(name, spec)
    low = float("-inf") if spec.min is None else spec.min
    high = float("inf") if spec.max is None else spec.max

    def check(found: Any) -> float:
        if type(found) is float:
            number = found
        elif type(found) is int:
            number = float(found)
            if number != found:
                raise _wrong_type(name, found, "a number that a double holds exactly")
        else:
            raise _wrong_type(name, found, "a JSON number")
        if not low <= number <= high:
            raise outside(found)
        return number

    return check


def _integer(name: str, spec: FieldSpec) -> Check:
    outside = _range(name, spec)
    low = INT64.start if spec.min is None else max(spec.min, INT64.start)
    high = INT64.stop - 1 if spec.max is None else min(spec.max, INT64.stop - 1)

    def check(found: Any) -> int:
        if type(found) is int:
            number = found
        elif type(found) is float and found.is_integer() and abs(found) <= 2**53:
            number = int(found)
        else:
            raise _wrong_type(name, found, "a whole JSON number")
        if not low <= number <= high:
            raise outside(found)
        return number

    return check


def _range(name: str, spec: FieldSpec) -> Callable[[object], Fault]:
    if spec.min is not None and spec.max is not None:
        wanted = f"between {spec.min:.15g} and {spec.max:.15g}"
    elif spec.min is not None or spec.max is not None:
        wanted = f"at least {spec.min:.15g}" if spec.min is not None else f"at most {spec.max:.15g}"
    else:
        wanted = "within 64 bits"

    def outside(found: object) -> Fault:
        fix = f"Send {name} {wanted}, or declare another range."
        return Fault("range", f"{name} is {shown(found)}, not {wanted}.", fix, field=name)

    return outside


def _category(name: str, spec: FieldSpec) -> Check:
    values = spec.values or ()
    known = frozenset(values)

    def check(found: Any) -> str:
        if type(found) is not str:
            raise _wrong_type(name, found, "text")
        if found not in known:
            near = difflib.get_close_matches(found[:80], values, 1)
            meant = f" Did you mean {near[0]}?" if near else ""
            some = ", ".join(values[:20]) + (", …" if len(values) > 20 else "")
            fix = f"Send one of {some}, or declare the new value."
            raise Fault("category", f"{name} is {shown(found)}, which is not declared.{meant}", fix, field=name)
        return found

    return check


def _boolean(name: str, _: FieldSpec) -> Check:
    def check(found: Any) -> bool:
        if type(found) is not bool:
            raise _wrong_type(name, found, "true or false")
        return found

    return check


def _string(name: str, _: FieldSpec) -> Check:
    def check(found: Any) -> str:
        if type(found) is not str:
            raise _wrong_type(name, found, "text")
        return found

    return check


def _moment(name: str, _: FieldSpec) -> Check:
    def check(found: Any) -> str:
        if type(found) is not str:
            raise _wrong_type(name, found, "RFC 3339 text with a zone")
        try:
            parse_us(found)
        except (ValueError, OverflowError):
            raise _wrong_type(name, found, "an RFC 3339 time with a zone, such as 2013-01-01T05:15:00Z") from None
        return found

    return check


_CHECKS: Final[dict[str, Callable[[str, FieldSpec], Check]]] = {
    "number": _number,
    "integer": _integer,
    "string": _string,
    "boolean": _boolean,
    "category": _category,
    "time": _moment,
}
FIELD_TYPES: Final = tuple(_CHECKS)
