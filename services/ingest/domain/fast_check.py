"""A record read and checked by one msgspec call, for the many records that are as declared.

A declaration becomes a struct type: each field with its JSON type, its bounds, its categories, and whether it must be
there. What that type accepts is what `json_record` and `evenkeel.libs.fields` accept, with the same values; it refuses more than
they do (undeclared fields, whole numbers written as 3.0, numbers of 2^53 and more), and never says why: who asks then
reads the record field by field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from evenkeel.contracts.declaration import FieldSpec
from evenkeel.contracts.envelope import parse_us
from evenkeel.libs.fields import INT64, FieldValue
from evenkeel.services.ingest.domain.json_record import BACKSLASH, ESCAPED_NUL, MAX_RECORD_BYTES

Read = Callable[[bytes], dict[str, FieldValue] | None]
"""The declared fields that a record has, in the declaration's order; None if it must be read field by field."""

_FIRST_INEXACT: Final = 2.0**53
"""Below it every whole number is a double; from it on msgspec rounds, where a record must be refused."""
_LONGEST_PAUSE: Final = 63
"""Records of a stream are alike. Where all are refused, as with undeclared fields, one in 64 is still tried: trying each
would make the check of such a stream a fifth dearer."""


def fast_check(fields: Mapping[str, FieldSpec], taken_as_text: Collection[str]) -> Read | None:
    """The reading function of a declaration; None if msgspec cannot express it.

    Fields `taken_as_text` (ids and event time) must be there as text; what the text says is for the caller to check.
    """
    # Members by number: a field may have a name that no attribute can have.
    members: dict[str, tuple[Any, ...]] = {}
    times: list[str] = []
    for name, field in fields.items():
        as_text = name in taken_as_text
        kind = str if as_text else _type_of(field)
        if kind is None:
            return None
        if field.type == "time" and not as_text:
            times.append(name)
        members[name] = (kind,) if as_text or field.required else (kind | None, None)
    numbered = {f"field_{number}": name for number, name in enumerate(members)}
    record = msgspec.defstruct(
        "Record",
        [(member, *members[name]) for member, name in numbered.items()],
        rename=numbered,
        kw_only=True,
        omit_defaults=True,
        forbid_unknown_fields=True,
        gc=False,
    )
    decode, to_dict = msgspec.json.Decoder(record).decode, msgspec.to_builtins
    left = pause = 0  # records still to pass over, and how many it was the last time

    def read(value: bytes) -> dict[str, FieldValue] | None:
        nonlocal left, pause
        if left:
            left -= 1
            return None
        if len(value) > MAX_RECORD_BYTES or (BACKSLASH in value and ESCAPED_NUL in value):
            return None
        try:
            found: dict[str, FieldValue] = to_dict(decode(value))
            for name in times:
                if name in found:
                    parse_us(found[name])  # type: ignore[arg-type]  # refuses what is no text
        except (ValueError, OverflowError):
            left = pause = min(2 * pause + 1, _LONGEST_PAUSE)
            return None
        pause = 0
        return found

    return read


def _type_of(field: FieldSpec) -> Any:
    """What msgspec checks the field's values against; None if it cannot."""
    match field.type:
        case "string" | "time":
            return str
        case "boolean":
            return bool
        case "category":
            return Literal[field.values] if field.values else None
        case "integer":
            low = INT64.start if field.min is None else max(math.ceil(field.min), INT64.start)
            high = INT64.stop - 1 if field.max is None else min(math.floor(field.max), INT64.stop - 1)
            return Annotated[int, msgspec.Meta(ge=low, le=high)] if low in INT64 and high in INT64 else None
        case "number":
            low_is_inside = field.min is not None and field.min > -_FIRST_INEXACT
            high_is_inside = field.max is not None and field.max < _FIRST_INEXACT
            bounds = {"ge": field.min} if low_is_inside else {"gt": -_FIRST_INEXACT}
            bounds |= {"le": field.max} if high_is_inside else {"lt": _FIRST_INEXACT}
            return Annotated[float, msgspec.Meta(**bounds)]
    return None
