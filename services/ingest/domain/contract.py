"""A stream's contract, compiled from its declaration: which records it accepts, and with which values.

Values are taken over exactly or refused: an integer is never rounded, a text never parsed into a number. Fields that are
not declared are left out; null is the same as absent.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

import orjson

from contracts.declaration import FieldSpec, LabelSpec, StreamSpec
from contracts.envelope import Headers, parse_us
from contracts.payload import IDENTIFIER_PATTERN
from services.ingest.domain.cloudevents import unwrap
from services.ingest.domain.fault import Fault, shown
from services.ingest.domain.json_record import read_json

Kind = Literal["event", "label"]
FieldValue = bool | int | float | str | None
Check = Callable[[Any], FieldValue]

FIRST_TIME_US: Final = parse_us("1900-01-01T00:00:00Z")
LAST_TIME_US: Final = parse_us("2999-12-31T00:00:00Z")
"""Event times outside these are refused, so that no service overflows when it adds a window to one."""
_INT64: Final = range(-(2**63), 2**63)
_TIME_FIX: Final = "Send RFC 3339 text with a zone, such as 2013-01-01T05:15:00Z."
_is_identifier: Final = re.compile(IDENTIFIER_PATTERN.removeprefix("^").removesuffix("$")).fullmatch


class Checked(NamedTuple):
    """A record that fits its contract; its place in time and among the ids seen is still to be judged."""

    record_id: str
    """The event's id, or the label's own."""
    event_id: str
    """The event's id, or the id of the event that the label belongs to."""
    time_us: int
    fields: dict[str, FieldValue]

    def digest(self) -> int:
        """64 bits of the content: what makes two records with one id the same or a conflict."""
        return int.from_bytes(blake2b(orjson.dumps(self.fields), digest_size=8).digest(), "big")


class Contract:
    """The compiled contract of one stream's events, or of its labels."""

    def __init__(self, spec: StreamSpec | LabelSpec) -> None:
        self._id, self._time = spec.id, spec.time
        self._joins = spec.joins if isinstance(spec, LabelSpec) else None
        given = {self._id, self._time, self._joins}
        names = (*spec.fields, *sorted(name for name in given if name is not None and name not in spec.fields))
        # Per field: its name, whether it is required, the type that needs no further check, and the check of any other.
        # Ids and time have rules of their own, and stand in the record as they are.
        self._fields: list[tuple[str, bool, type | None, Check]] = []
        for name in names:
            field = spec.field(name)
            assert field is not None
            check = _as_it_is if name in given else _check_of(name, field)
            self._fields.append((name, field.required, _COMPLETE.get(field.type), check))

    def check(self, value: bytes | None, headers: Headers = ()) -> Checked:
        """The record's declared content; raises Fault naming the first rule it breaks, the field and the fix."""
        if value is None:
            raise Fault("shape", "The record has no value.", "Send a JSON object as the value.")
        if not headers:
            data = read_json(value)
        else:
            data, event_id, time = unwrap(value, headers)
            if type(data) is dict and (event_id is not None or time is not None):
                if data.get(self._id) is None:
                    data[self._id] = event_id
                if data.get(self._time) is None:
                    data[self._time] = time
        if type(data) is not dict:
            raise Fault("shape", f"The record is {shown(data)}, not an object.", "Send one JSON object per record.")
        record_id = event_id = self._identifier(data, self._id)
        try:
            if self._joins is not None:
                event_id = self._identifier(data, self._joins)
            fields: dict[str, Any] = {}
            get = data.get
            for name, required, complete, check in self._fields:
                found = get(name)
                if found is None:
                    if required:
                        raise _missing(name, name in data)
                elif type(found) is complete:
                    fields[name] = found
                else:
                    fields[name] = check(found)
            return Checked(record_id, event_id, self._event_time(data), fields)
        except Fault as fault:
            fault.event_id = record_id
            raise

    def _identifier(self, data: dict[str, Any], name: str) -> str:
        found = data.get(name)
        if type(found) is str and _is_identifier(found):
            return found
        if found is None:
            reason = f"{name} is missing: without it the record cannot be told from others."
        else:
            reason = f"{name} is {shown(found)}, which is not an identifier."
        fix = f"Send {name} as text of 1 to 128 letters, digits, dots, underscores or hyphens, the first a letter or digit."
        raise Fault("identity", reason, fix, field=name)

    def _event_time(self, data: dict[str, Any]) -> int:
        found = data.get(self._time)
        if found is None:
            raise _missing(self._time, self._time in data)
        try:
            time_us = parse_us(found)
        except (ValueError, TypeError, OverflowError):
            raise Fault("event_time", f"{self._time} is {shown(found)}.", _TIME_FIX, field=self._time) from None
        return in_bounds(time_us, found, self._time)


def in_bounds(time_us: int, text: str, field: str) -> int:
    """The time, if every service can calculate with it; else Fault."""
    if not FIRST_TIME_US <= time_us <= LAST_TIME_US:
        reason = f"{field} is {shown(text)}, which is before 1900 or after 2999."
        raise Fault("event_time", reason, "Send the time at which it happened.", field=field)
    return time_us


def _missing(name: str, is_null: bool) -> Fault:
    reason = f"{name} is {'null' if is_null else 'missing'}, and the stream requires it."
    return Fault("missing", reason, f"Send {name}, or declare it as not required.", field=name)


_COMPLETE: Final[dict[str, type]] = {"string": str, "boolean": bool}


def _as_it_is(found: Any) -> Any:
    return found


def _check_of(name: str, spec: FieldSpec) -> Check:
    match spec.type:
        case "number":
            return _number(name, spec)
        case "integer":
            return _integer(name, spec)
        case "category":
            return _category(name, spec.values or ())
        case "boolean":
            return _boolean(name)
        case "time":
            return _moment(name)
        case "string":
            return _string(name)


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
    low = _INT64.start if spec.min is None else max(spec.min, _INT64.start)
    high = _INT64.stop - 1 if spec.max is None else min(spec.max, _INT64.stop - 1)

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
        wanted = f"between {spec.min:g} and {spec.max:g}"
    elif spec.min is not None or spec.max is not None:
        wanted = f"at least {spec.min:g}" if spec.min is not None else f"at most {spec.max:g}"
    else:
        wanted = "within 64 bits"

    def outside(found: object) -> Fault:
        fix = f"Send {name} {wanted}, or declare another range."
        return Fault("range", f"{name} is {shown(found)}, not {wanted}.", fix, field=name)

    return outside


def _category(name: str, values: tuple[str, ...]) -> Check:
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


def _boolean(name: str) -> Check:
    def check(found: Any) -> bool:
        if type(found) is not bool:
            raise _wrong_type(name, found, "true or false")
        return found

    return check


def _string(name: str) -> Check:
    def check(found: Any) -> str:
        if type(found) is not str:
            raise _wrong_type(name, found, "text")
        return found

    return check


def _moment(name: str) -> Check:
    def check(found: Any) -> str:
        if type(found) is not str:
            raise _wrong_type(name, found, "RFC 3339 text with a zone")
        try:
            parse_us(found)
        except (ValueError, OverflowError):
            raise _wrong_type(name, found, "an RFC 3339 time with a zone, such as 2013-01-01T05:15:00Z") from None
        return found

    return check
