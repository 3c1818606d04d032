"""The base of all payloads and the field types they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

IDENTIFIER_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
WORD_PATTERN: Final = r"^[a-z0-9][a-z0-9._-]{0,63}$"
NAME_PATTERN: Final = r"^[^\x00-\x1f\x7f-\x9f]{1,256}$"

Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER_PATTERN)]
"""Name of a stream, a model, a replica: it is part of topics, tables, URLs and file names."""
Word = Annotated[str, StringConstraints(pattern=WORD_PATTERN)]
"""One word of a list that grows: a rule, a trigger, a gate, an estimator. Which words there are is known where they are made
and is checked where a user writes them. Who reads one that he does not know passes it on, or does what fits any."""
RecordId = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
"""What a producer calls a record: any text of 1 to 256 bytes of UTF-8 without control characters. The bytes are counted where
a record comes in (`evenkeel.libs.fields.is_record_id`)."""
FieldName = RecordId
"""What a producer calls a field of a record: as free as an id."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
Base64 = str
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""RFC 3339, UTC."""


def _as_int64(schema: dict[str, Any]) -> None:
    """Say 64 bits by the format: a bound of its own would look like a narrowed contract."""
    for bound, end in (("maximum", MAX_INTEGER), ("minimum", -MAX_INTEGER - 1)):
        if schema.get(bound) == end:
            del schema[bound]
    schema["format"] = "int64"


MAX_INTEGER: Final = 2**63 - 1
"""No store keeps more."""
Integer = Annotated[int, Field(ge=-MAX_INTEGER - 1, le=MAX_INTEGER, json_schema_extra=_as_int64)]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER, json_schema_extra=_as_int64)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Value = bool | Integer | Finite | str | None
"""One field of an event."""

_set: Final = object.__setattr__


class Payload(BaseModel):
    """A fact, or a part of one. Unknown fields are ignored on reading, so that a newer producer of the same major can be
    read."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null", use_attribute_docstrings=True)

    _names: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls._names = frozenset(cls.model_fields)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """A payload of values that the caller has checked: all of its fields, defaults too, in their order.

        For one payload per event; validating them again, or `model_construct`, would cost four times as much.
        """
        payload = cls.__new__(cls)
        _set(payload, "__dict__", values)
        _set(payload, "__pydantic_fields_set__", cls._names)
        _set(payload, "__pydantic_extra__", None)
        _set(payload, "__pydantic_private__", None)
        return payload

    def follows_from(self) -> str | None:
        """The id of what it follows from, if the payload itself names that; the envelope does not repeat it then."""
        return None


class Fact(Payload, ABC):
    """What a topic carries. It tells itself: governance's lineage and `evenkeel trace` show it by what it says here, and
    know no class of their own accord. tests/contract/test_topology.py demands it of each row of the map."""

    what: ClassVar[str] = ""
    """What it is, in a word or two."""

    @abstractmethod
    def sentence(self) -> str:
        """What it says, in one sentence for people, without the time of the event, which stands beside it."""

    def number(self, offset: int) -> int | None:
        """By which other facts name it beside its key, such as a version or an epoch; None: they do not. `offset` is its
        place in its topic, by which declarations are named."""
        return None


class Caller(Payload):
    """Who commanded a fact: as the door knew him, not as he called himself. What the loop did by itself has none."""

    name: str
    role: Word
    """The role that the command asked for and that he has."""


def person(name: str, caller: Caller | None) -> str:
    """Who did something: as he called himself, and as the door knew him.

    >>> person("Ada", Caller(name="token:9f86d081884c", role="operator"))
    'Ada (token:9f86d081884c, operator)'
    """
    known = "" if caller is None else f"{caller.name}, {caller.role}"
    return f"{name} ({known})" if name and known else name or known or "somebody"
