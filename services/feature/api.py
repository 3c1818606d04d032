"""What scientists can ask: how a view stands, and the versions of a training table."""

from __future__ import annotations

from typing import Annotated

import sqlalchemy as sa
from fastapi import Query

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.http.feature import DATASETS, VIEW, Dataset, Datasets, DatasetsQuery, ViewState
from evenkeel.libs.errors import Refused
from evenkeel.libs.features import read_model
from evenkeel.libs.routes import Routes
from evenkeel.libs.service import Host
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.store import Commit, FeatureStore, ViewRow


def routes(runtime: Host[FeatureContext]) -> Routes:
    found = Routes()

    @found.answer(VIEW)
    async def view(model: str) -> ViewState:
        return await runtime.query(lambda connection: _view(connection, model))

    @found.answer(DATASETS)
    async def datasets(model: str, query: Annotated[DatasetsQuery, Query()]) -> Datasets:
        return await runtime.query(lambda connection: _datasets(connection, model, query.limit))

    return found


def _known(store: FeatureStore, model: str) -> ViewRow:
    row = store.view(model)
    if row is None:
        raise Refused(404, "Unknown model", f"There is no model {model}.", field="model", fix="Declare it first.")
    return row


def _view(connection: sa.Connection, model: str) -> ViewState:
    store = FeatureStore(connection)
    row = _known(store, model)
    declared = store.model(row.declaration)
    plan = read_model(declared.name, declared.spec, declared.streams).plan
    found = store.progress()
    seen = found[1].views.get(model) if found else None
    return ViewState(
        model=model,
        view_version=plan.view_version,
        declaration=row.declaration,
        names=list(plan.names),
        watermark=format_us(seen.watermark_us) if seen else None,
        vectors=seen.vectors if seen else 0,
        late=seen.late if seen else 0,
        labelled=seen.labelled if seen else 0,
        expired=seen.expired if seen else 0,
        unmatched_labels=seen.unmatched if seen else 0,
        waiting=seen.waiting if seen else 0,
        entities=seen.entities if seen else 0,
    )


def _datasets(connection: sa.Connection, model: str, limit: int) -> Datasets:
    store = FeatureStore(connection)
    _known(store, model)
    versions = [_dataset(commit) for commit in store.announced(model, limit)]
    return Datasets(model=model, uri=f"tables/{model}", versions=versions)


def _dataset(commit: Commit) -> Dataset:
    assert commit.version is not None
    return Dataset(
        version=commit.version,
        view_version=commit.view_version,
        declaration=commit.declaration,
        rows=commit.rows,
        added=commit.added,
        label_cut=format_us(commit.cut_us),
        kept_from=None if commit.kept_from_us is None else format_us(commit.kept_from_us),
        first_event_time=format_us(commit.first_event_us),
        last_event_time=format_us(commit.last_event_us),
        offsets=commit.offsets,
    )
