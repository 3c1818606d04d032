"""What every service answers: whether it is well, what it measures, and what it could not take."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ConfigDict, Field

from evenkeel.contracts.http.messages import Answer, EventTime, Offset, Partition, Problem, Request, Topic, WallTime
from evenkeel.contracts.http.route import Route
from evenkeel.contracts.payload import Count, Word


class Live(Answer):
    """The process answers."""

    status: Word = "live"
    """`live`."""
    service: str
    """Which service this is."""


class Readiness(Answer):
    """Whether the service does its work now."""

    status: str
    """`ready` or `not ready`."""
    service: str
    """Which service this is."""
    reason: str | None = None
    """What it waits for; null if it is ready."""


class OpenApiDocument(Answer):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow")

    openapi: str
    """The version of OpenAPI."""
    info: dict[str, Any]
    """Title and version."""
    paths: dict[str, Any]
    """The calls."""


class ParkedRecord(Answer):
    """One record that waits."""

    event_id: str
    """Its CloudEvents id."""
    topic: Topic
    partition: Partition
    offset: Offset
    time: EventTime
    """Its event time."""


class ParkedKey(Answer):
    """A key whose first record the ordered handler could not take, with the records that wait behind it."""

    key: str
    """The records' key: what is ordered."""
    merge: str | None = None
    """Which of the service's merges it is parked in; null if the handler merges nothing."""
    reason: str
    """What the handler said of the first record."""
    since: WallTime
    """When the first record was parked."""
    records: list[ParkedRecord]
    """In their order; the first is the one that failed."""


class ParkedKeys(Answer):
    """Everything that is parked, the longest parked first."""

    service: str
    """Which service this is."""
    parked: list[ParkedKey]
    """One entry a key."""


class ReleaseRequest(Request):
    """Which key to release."""

    key: str = Field(max_length=1000)
    """As `/v1/parked` shows it."""


class Released(Answer):
    """What was folded."""

    key: str
    """As it was asked for."""
    released: Count
    """How many records."""


LIVE: Final = Route(
    name="live",
    method="GET",
    path="/health/live",
    role="public",
    summary="Whether the process answers",
    description="It answers as long as the process does, whatever the service can do.",
    answer=Live,
)
READY: Final = Route(
    name="ready",
    method="GET",
    path="/health/ready",
    role="public",
    summary="Whether the service does its work",
    description="503, with the reason, while it starts, waits for the broker or its store, or stands by for another instance.",
    answer=Readiness,
    answers={503: Readiness},
)
OPENAPI: Final = Route(
    name="openapi",
    method="GET",
    path="/openapi.json",
    role="public",
    summary="This document",
    description="The OpenAPI document of this service.",
    answer=OpenApiDocument,
)
METRICS: Final = Route(
    name="metrics",
    method="GET",
    path="/metrics",
    role="public",
    summary="What the service measures",
    description="Metrics in Prometheus' text format, or in OpenMetrics if `Accept` asks for it.",
    answer=str,
)
PARKED: Final = Route(
    name="parked",
    method="GET",
    path="/v1/parked",
    role="operator",
    summary="Records that wait for a repair",
    description="Records that the service's ordered handler could not take, with those that wait behind them.",
    answer=ParkedKeys,
)
RELEASE: Final = Route(
    name="release",
    method="POST",
    path="/v1/parked/release",
    role="operator",
    summary="Fold what is parked under a key",
    description="In order: all of it, or nothing if the handler still fails (409). Unknown keys are refused (404).",
    answer=Released,
    body=ReleaseRequest,
    answers={404: Problem, 409: Problem},
)

ROUTES: Final[tuple[Route[Any], ...]] = (LIVE, READY, OPENAPI, METRICS, PARKED, RELEASE)
