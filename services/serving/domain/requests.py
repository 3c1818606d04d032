"""What a request may hold: a row of features by name, or an event's fields. Each error names the field and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import orjson

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.libs.clock import parse_us
from evenkeel.libs.errors import Refused
from evenkeel.libs.fields import (
    COMPLETE,
    FIRST_TIME_US,
    LAST_TIME_US,
    RECORD_ID_FIX,
    SHOWN_CHARACTERS,
    Fault,
    field_check,
    is_record_id,
    shown,
)
from evenkeel.libs.json_text import holds_nul

LARGEST: Final = 3.4028235677973366e38
"""From here on a number is infinite as a float32: its largest, and half a step more."""
_MAX_REMEMBERED: Final = 1_000

Row = list[float | None]
"""A row of features in the order of a schema; None for missing."""


def refused(status: int, detail: str, fix: str, field: str | None = None) -> Refused:
    return Refused(status, "Invalid request" if status < 500 else "Unavailable", detail, field=field, fix=fix)


def json_object(body: bytes) -> dict[str, Any]:
    """A body that is one JSON object; raises Refused."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise refused(
            400, f"The body is not JSON: {error}.", "Send one JSON object; NaN and Infinity are not JSON."
        ) from None
    if type(found) is not dict:
        raise refused(400, f"The body is {shown(found)}.", "Send one JSON object.")
    if holds_nul(body):
        raise refused(400, "The body holds the character U+0000.", "Leave it out.")
    return found


def at_most(most: int, count: int, field: str) -> None:
    """Raises Refused for a request of too many rows."""
    if count > most:
        raise refused(413, f"{field} has {count} rows.", f"Send at most {most} rows at once.", field)


def nearest(name: str, known: Sequence[str]) -> str:
    """The name that was probably meant, or some that exist, as advice."""
    near = difflib.get_close_matches(name[:SHOWN_CHARACTERS], known, n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    listed = ", ".join(known[:20]) + (", …" if len(known) > 20 else "")
    return f"Known: {listed}."


def record_id(value: object, field: str) -> str:
    if type(value) is str and is_record_id(value):
        return value
    raise refused(
        422,
        f"{field} is {shown(value)}, which cannot be an id.",
        f"Send {field} {RECORD_ID_FIX}",
        field,
    )


def moment_us(value: object, field: str) -> int:
    """A request's time in microseconds since the epoch, UTC."""
    try:
        time_us = parse_us(value) if type(value) is str else LAST_TIME_US + 1
    except (ValueError, OverflowError):
        time_us = LAST_TIME_US + 1
    if FIRST_TIME_US <= time_us <= LAST_TIME_US:
        return time_us
    fix = f"Send {field} as RFC 3339 text with a zone, such as 2013-01-01T05:15:00Z, between 1900 and 2999."
    raise refused(422, f"{field} is {shown(value)}, which is not a time.", fix, field)


class RowReader:
    """Reads a model's features by name into a row in the order of its schema. null is a missing value.

    A feature that is a category may be given as its text, by the reader in `categories`, or as its code.
    """

    def __init__(self, names: Sequence[str], categories: Mapping[str, Callable[[object], float]]) -> None:
        self.names, self.index = tuple(names), {name: position for position, name in enumerate(names)}
        self._categories = dict(categories)
        getter = itemgetter(*names)
        self._get: Callable[[Any], tuple[Any, ...]] = getter if len(names) > 1 else lambda given: (getter(given),)

    def row(self, given: object, where: str) -> Row:
        """One row, as given; raises Refused."""
        if type(given) is not dict:
            raise refused(422, f"{where} is {shown(given)}.", f"Send {where} as an object of feature values.", where)
        try:
            values = self._get(given)
        except KeyError:
            raise self._missing(given, where) from None
        if len(given) != len(values):
            raise self._unknown(given, where)
        row: Row = []
        for position, value in enumerate(values):
            kind = type(value)
            if kind is float or kind is int:
                if not -LARGEST < value < LARGEST:
                    raise self._too_large(self.names[position], value, where)
                row.append(float(value))
            else:
                row.append(self._other(self.names[position], value, where))
        return row

    def _other(self, name: str, value: object, where: str) -> float | None:
        if value is None:
            return None
        if type(value) is bool:
            return float(value)
        reader = self._categories.get(name)
        if reader is not None and type(value) is str:
            return reader(value)
        wanted = "a number, the category's text or null" if reader else "a number, a boolean or null"
        raise refused(422, f"{name} is {shown(value)}.", f"Send {where}.{name} as {wanted}.", f"{where}.{name}")

    def _too_large(self, name: str, value: float, where: str) -> Refused:
        fix = f"Send {where}.{name} as a number that a float32 can hold, or null if it is missing."
        return refused(422, f"{name} is {shown(value)}, beyond ±3.4e38.", fix, f"{where}.{name}")

    def _missing(self, given: Mapping[str, object], where: str) -> Refused:
        missing = [name for name in self.names if name not in given]
        unknown = [name for name in given if name not in self.index]
        near = difflib.get_close_matches(missing[0], unknown, n=1)
        if near:
            fix = f"Rename {near[0]!r} to {missing[0]!r}."
        else:
            fix = f"Send {where}.{missing[0]}, as null if its value is not known."
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        return refused(422, f"The feature {missing[0]!r} is missing{more}.", fix, f"{where}.{missing[0]}")

    def _unknown(self, given: Mapping[str, object], where: str) -> Refused:
        name = next(name for name in given if name not in self.index)
        return refused(
            422,
            f"There is no feature {shown(name)}.",
            f"Leave it out. {nearest(name, self.names)}",
            f"{where}.{name[:SHOWN_CHARACTERS]}",
        )


class EventReader:
    """Checks the fields of an event that a request hands in, as ingest checks the stream's records.

    Only the fields that the features need must be there; `id_field` and `time_field` are used if they are. As at ingest,
    fields that are not declared are left out, unless one looks like a misspelling of a declared field that is not there.
    """

    def __init__(self, stream: str, spec: StreamSpec, needed: Sequence[str]) -> None:
        self.id_field, self.time_field = spec.id, spec.time
        self._stream = stream
        names = {*spec.fields, spec.id, spec.time}
        known = {name: found for name in sorted(names) if (found := spec.field(name)) is not None}
        self._known = {name: (COMPLETE.get(found.type), field_check(name, found)) for name, found in known.items()}
        self._meant: dict[str, str | None] = {}
        """Names that are not declared, with the declared one that each looks like; a request repeats them."""
        self._required = tuple(name for name in needed if name in known and known[name].required)

    def fields(self, given: object) -> dict[str, Any]:
        """The event's declared fields, without those that are null; raises Refused."""
        if type(given) is not dict:
            raise refused(422, f"event is {shown(given)}.", "Send event as an object of the event's fields.", "event")
        for name in self._required:
            if given.get(name) is None:
                fix = f"Send event.{name}: the features of this model are computed from it."
                raise refused(422, f"The field {name!r} is missing.", fix, f"event.{name}")
        fields: dict[str, Any] = {}
        for name, value in given.items():
            known = self._known.get(name)
            if known is None:
                self._refuse_misspelt(name, given)
            elif value is not None:
                complete, check = known
                try:
                    fields[name] = value if type(value) is complete else check(value)
                except Fault as fault:
                    fix = fault.fix.replace(f"Send {name}", f"Send event.{name}", 1)
                    raise refused(422, fault.reason, fix, f"event.{name}") from None
        return fields

    def _refuse_misspelt(self, name: str, given: Mapping[str, object]) -> None:
        if name not in self._meant:
            if len(self._meant) >= _MAX_REMEMBERED:
                self._meant.clear()
            self._meant[name] = next(iter(difflib.get_close_matches(name[:SHOWN_CHARACTERS], self._known, n=1)), None)
        meant = self._meant[name]
        if meant is not None and meant not in given:
            where = f"event.{name[:SHOWN_CHARACTERS]}"
            fix = f"Did you mean {meant!r}? Send that one, or null for it."
            raise refused(422, f"The stream {self._stream} has no field {shown(name)}.", fix, where)
