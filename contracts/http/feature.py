"""What feature answers: how a view stands, and the versions of a training table."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from evenkeel.contracts.http.messages import Answer, EventTime, ModelName, Query, ViewVersion
from evenkeel.contracts.http.route import Route
from evenkeel.contracts.payload import Count


class ViewState(Answer):
    """How far a model's windows have come, and what they hold."""

    model: ModelName
    view_version: ViewVersion
    declaration: Count
    """Offset of the model's declaration in `registry.model-declared`."""
    names: list[str]
    """The features, in the order of the vectors."""
    watermark: EventTime | None = None
    """Up to where all streams have been folded; null before the first record."""
    vectors: Count
    """Vectors computed so far."""
    late: Count
    """Of them, those of events that came late."""
    labelled: Count
    """Vectors whose label came."""
    expired: Count
    """Vectors whose label did not come within its horizon."""
    unmatched_labels: Count
    """Labels whose event was not there."""
    waiting: Count
    """Vectors that wait for their label."""
    entities: Count
    """Entities that the windows hold."""


class Dataset(Answer):
    """One version of a training table."""

    version: Count
    """The Delta table's version."""
    view_version: ViewVersion
    declaration: Count
    """Offset of the model's declaration in `registry.model-declared`."""
    rows: Count
    """Rows in this version, all commits together."""
    added: Count
    """Rows that came with this commit."""
    label_cut: EventTime
    """Labels that arrived before are in, later ones are not."""
    kept_from: EventTime | None = None
    """Labels that arrived before have left; null if none has."""
    first_event_time: EventTime
    """Of the earliest event in this version."""
    last_event_time: EventTime
    """Of the latest event in this version."""
    offsets: dict[str, dict[str, Count]]
    """Per topic and partition, the offset up to which (exclusive) records had been folded."""


class Datasets(Answer):
    """A training table's versions."""

    model: ModelName
    uri: str
    """The Delta table, below the data folder."""
    versions: list[Dataset]
    """The newest first."""


class DatasetsQuery(Query):
    limit: int = Field(100, ge=1, le=10_000)
    """How many versions at most."""


VIEW: Final = Route(
    name="view",
    method="GET",
    path="/v1/views/{model}",
    role="scientist",
    summary="How a model's features stand",
    description="The model's feature schema, how far its windows have come, and what they hold.",
    answer=ViewState,
)
DATASETS: Final = Route(
    name="datasets",
    method="GET",
    path="/v1/datasets/{model}",
    role="scientist",
    summary="Versions of a training table",
    description="The newest versions of the model's training table, newest first.",
    answer=Datasets,
    query=DatasetsQuery,
)

ROUTES: Final[tuple[Route[Any], ...]] = (VIEW, DATASETS)
