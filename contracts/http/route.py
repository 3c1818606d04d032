"""What a route is: a row that says how it is called, by whom, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel

from evenkeel.contracts.http.messages import Problem, Query, Request
from evenkeel.contracts.payload import IDENTIFIER_PATTERN

Role = Literal["producer", "client", "scientist", "auditor", "approver", "operator"]
ROLES: Final[tuple[Role, ...]] = ("producer", "client", "scientist", "auditor", "approver", "operator")
Method = Literal["GET", "POST"]
JSON: Final = "application/json"
PROBLEM_JSON: Final = "application/problem+json"

A = TypeVar("A")


@dataclass(frozen=True, slots=True)
class Content:
    """A body or an answer that is not one model: JSON Schemas, or models, by media type."""

    by_media_type: Mapping[str, dict[str, Any] | type[BaseModel]]


class Parameter(NamedTuple):
    """A variable of a path or a header: its description and an example."""

    description: str
    example: str
    type: Literal["string", "integer"] = "string"
    has_slashes: bool = False
    """Whether it may hold any text; `/` is sent as `%2F` or as it is."""
    pattern: str | None = None
    """What it must look like to be the name of anything."""


PATH_PARAMETERS: Final[Mapping[str, Parameter]] = {
    "model": Parameter("A declared model's name.", "flight-delay", pattern=IDENTIFIER_PATTERN),
    "stream": Parameter("A declared stream's name.", "flights", pattern=IDENTIFIER_PATTERN),
    "version": Parameter("The version that must answer; others are refused.", "3"),
    "id": Parameter("Any id that is known here.", "5f0c2d1e-7a4b-5c3d-9e8f-0a1b2c3d4e5f", has_slashes=True),
    "leaf": Parameter("A number in the audit log, from 0.", "4711", "integer"),
    "number": Parameter("A rejected record's number, as the list shows it.", "17", "integer"),
}
"""A name means the same in every path."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Route(Generic[A]):
    """One row. `A` is what a call gives: the answer's model, or text."""

    name: str
    """What it is called in documents and, with `_` for `-`, in the client."""
    method: Method
    path: str
    role: Role | Literal["public"]
    """Who may call."""
    summary: str
    description: str
    answer: type[A]
    status: int = 200
    """Of the answer."""
    query: type[Query] | None = None
    body: type[Request] | Content | None = None
    headers: Mapping[str, Parameter] = field(default_factory=dict)
    """Optional ones that it reads."""
    also_as: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Other media types of the answer, with their JSON Schemas."""
    answers: Mapping[int, type[BaseModel]] = field(default_factory=dict)
    """Other answers by status, beside the refusals that follow from the form of the call."""
    refusal: type[BaseModel] = Problem
    """The form of its refusals."""
    is_repeatable: bool = False
    """Whether a call may be sent again if nobody knows what became of it: the second changes nothing more. GET always."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """The variables of its path."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @property
    def may_be_repeated(self) -> bool:
        return self.method == "GET" or self.is_repeatable
