"""The bases of requests and answers, and the words and errors that they share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from evenkeel.contracts.payload import Count, Digest, Identifier, Time

_SHARED = ConfigDict(frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class Request(BaseModel):
    """A body. An unknown key is an error: it would be a wish that nobody reads."""

    model_config = _SHARED | ConfigDict(extra="forbid")


class Query(BaseModel):
    """The parameters behind a path's `?`."""

    model_config = _SHARED


class Answer(BaseModel):
    """An answer. Unknown fields are ignored on reading, so that an older client can read a newer service."""

    model_config = _SHARED | ConfigDict(extra="ignore", serialize_by_alias=True, defer_build=True)


ModelName = Annotated[Identifier, Field(description="A declared model's name.", examples=["flight-delay"])]
StreamName = Annotated[Identifier, Field(description="A declared stream's name.", examples=["flights"])]
Detail = Annotated[str, Field(description="Why, in a sentence.")]
Epoch = Annotated[Count, Field(description="Counts the champions of a model; the highest wins.", examples=[3])]
VersionNumber = Annotated[Count, Field(description="Counts the registered packages of a model, from 1.", examples=[2])]
Package = Annotated[Digest, Field(description="Digest of the package.")]
ViewVersion = Annotated[str, Field(description="Digest of the feature definitions.", examples=["a3e287f1457d3088"])]
RunId = Annotated[str, Field(description="The training run.")]
Topic = Annotated[str, Field(description="Name of the topic.")]
Partition = Annotated[int, Field(description="Number of the partition.")]
Offset = Annotated[Count, Field(description="Place in the partition.")]
EventTime = Annotated[Time, Field(examples=["2013-07-01T12:00:00.000000Z"])]
"""Of the events that are spoken about, not of the clock on the wall."""
WallTime = Annotated[Time, Field(examples=["2026-01-15T08:30:00.000000Z"])]


class Problem(Answer):
    """Why a call was refused (RFC 9457, `application/problem+json`)."""

    type: str = "about:blank"
    """Always `about:blank`: the title says which kind of problem it is."""
    title: str
    """The kind of problem, in a few words."""
    status: int
    """The HTTP status."""
    detail: str
    """What was wrong with this call."""
    field: str | None = None
    """The parameter, header or part of the body that was wrong."""
    fix: str | None = None
    """What to do instead."""


class ProtocolError(Answer):
    """An error in the form of the Open Inference Protocol."""

    error: str
    """What was wrong with this call, and what to do instead."""
