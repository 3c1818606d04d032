"""A stream's contract, compiled from its declaration: which records it accepts, and with which values.

Values are taken over exactly or refused: an integer is never rounded, a text never parsed into a number. Fields that are
not declared are left out; null is the same as absent.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

import orjson

from evenkeel.contracts.declaration import FieldSpec, LabelSpec, StreamSpec
from evenkeel.contracts.envelope import Headers, parse_us
from evenkeel.libs.fields import (
    COMPLETE,
    RECORD_ID_FIX,
    Check,
    Fault,
    FieldValue,
    field_check,
    in_bounds,
    is_record_id,
    shown,
)
from evenkeel.services.ingest.domain.cloudevents import is_cloud_event, unwrap
from evenkeel.services.ingest.domain.fast_check import fast_check
from evenkeel.services.ingest.domain.json_record import read_json

Kind = Literal["event", "label"]

_TIME_FIX: Final = "Send RFC 3339 text with a zone, such as 2013-01-01T05:15:00Z."


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
    """The compiled contract of one stream's events, or of its labels.

    A record that is as declared is read and checked in one call. Any other is checked field by field, which accepts what
    that call was not sure of, and names the fault of what is wrong; `in_one_call=False` checks all of them so.
    """

    def __init__(self, spec: StreamSpec | LabelSpec, *, in_one_call: bool = True) -> None:
        self._id, self._time = spec.id, spec.time
        self._joins = spec.joins if isinstance(spec, LabelSpec) else None
        given = {name for name in (self._id, self._time, self._joins) if name is not None}
        specs: dict[str, FieldSpec] = dict(spec.fields)
        for name in sorted(given - specs.keys()):
            implied = spec.field(name)
            assert implied is not None
            specs[name] = implied
        # Per field: its name, whether it is required, the type that needs no further check, and the check of any other.
        # Ids and time have rules of their own, and stand in the record as they are.
        self._fields: list[tuple[str, bool, type | None, Check]] = [
            (name, field.required, COMPLETE.get(field.type), _as_it_is if name in given else field_check(name, field))
            for name, field in specs.items()
        ]
        self._read = fast_check(specs, given) if in_one_call else None

    def check(self, value: bytes | None, headers: Headers = ()) -> Checked:
        """The record's declared content; raises Fault naming the first rule it breaks, the field and the fix."""
        if value is None:
            raise Fault("shape", "The record has no value.", "Send a JSON object as the value.")
        fields = None
        if self._read is not None and not (headers and is_cloud_event(headers)):
            fields = self._read(value)
        data = self._data(value, headers) if fields is None else fields
        record_id = event_id = self._identifier(data, self._id)
        try:
            if self._joins is not None:
                event_id = self._identifier(data, self._joins)
            if fields is None:
                fields = self._checked(data)
            return Checked(record_id, event_id, self._event_time(data), fields)
        except Fault as fault:
            fault.event_id = record_id
            raise

    def _data(self, value: bytes, headers: Headers) -> dict[str, Any]:
        """The record's object, with id and time of its CloudEvent where it has none itself."""
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
        return data

    def _checked(self, data: dict[str, Any]) -> dict[str, FieldValue]:
        """The declared fields, one by one."""
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
        return fields

    def _identifier(self, data: dict[str, Any], name: str) -> str:
        found = data.get(name)
        if type(found) is str and is_record_id(found):
            return found
        if found is None:
            reason = f"{name} is missing: without it the record cannot be told from others."
        else:
            reason = f"{name} is {shown(found)}, which cannot be an id."
        raise Fault("identity", reason, f"Send {name} {RECORD_ID_FIX}", field=name)

    def _event_time(self, data: dict[str, Any]) -> int:
        found = data.get(self._time)
        if found is None:
            raise _missing(self._time, self._time in data)
        try:
            time_us = parse_us(found)
        except (ValueError, TypeError, OverflowError):
            raise Fault("event_time", f"{self._time} is {shown(found)}.", _TIME_FIX, field=self._time) from None
        return in_bounds(time_us, found, self._time)


def _missing(name: str, is_null: bool) -> Fault:
    reason = f"{name} is {'null' if is_null else 'missing'}, and the stream requires it."
    return Fault("missing", reason, f"Send {name}, or declare it as not required.", field=name)


def _as_it_is(found: Any) -> Any:
    return found
