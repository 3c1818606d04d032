"""What scientists can ask: how a view stands, and the versions of a training table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter, Query

from evenkeel.contracts.envelope import format_us
from evenkeel.libs.errors import Refused
from evenkeel.libs.features import read_model
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.service import Host
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.store import Commit, FeatureStore, ViewRow


def routers(runtime: Host[FeatureContext]) -> Sequence[APIRouter]:
    routes = router("/v1")

    @routes.get("/views/{model}", **role("scientist"))
    async def view(model: str) -> dict[str, Any]:
        """The model's feature schema, how far its windows have come, and what they hold."""
        return await runtime.query(lambda connection: _view(connection, model))

    @routes.get("/datasets/{model}", **role("scientist"))
    async def datasets(model: str, limit: int = Query(100, ge=1, le=10_000)) -> dict[str, Any]:
        """The newest versions of the model's training table, newest first."""
        return await runtime.query(lambda connection: _datasets(connection, model, limit))

    return [routes]


def _known(store: FeatureStore, model: str) -> ViewRow:
    row = store.view(model)
    if row is None:
        raise Refused(404, "Unknown model", f"There is no model {model}.", field="model", fix="Declare it first.")
    return row


def _view(connection: sa.Connection, model: str) -> dict[str, Any]:
    store = FeatureStore(connection)
    row = _known(store, model)
    declared = store.model(row.declaration)
    plan = read_model(declared.name, declared.spec, declared.streams).plan
    found = store.progress()
    seen = found[1].views.get(model) if found else None
    return {
        "model": model,
        "view_version": plan.view_version,
        "declaration": row.declaration,
        "names": plan.names,
        "watermark": format_us(seen.watermark_us) if seen else None,
        "vectors": seen.vectors if seen else 0,
        "late": seen.late if seen else 0,
        "labelled": seen.labelled if seen else 0,
        "expired": seen.expired if seen else 0,
        "unmatched_labels": seen.unmatched if seen else 0,
        "waiting": seen.waiting if seen else 0,
        "entities": seen.entities if seen else 0,
    }


def _datasets(connection: sa.Connection, model: str, limit: int) -> dict[str, Any]:
    store = FeatureStore(connection)
    _known(store, model)
    return {
        "model": model,
        "uri": f"tables/{model}",
        "versions": [_version(commit) for commit in store.announced(model, limit)],
    }


def _version(commit: Commit) -> dict[str, Any]:
    return {
        "version": commit.version,
        "view_version": commit.view_version,
        "declaration": commit.declaration,
        "rows": commit.rows,
        "added": commit.added,
        "label_cut": format_us(commit.cut_us),
        "kept_from": None if commit.kept_from_us is None else format_us(commit.kept_from_us),
        "first_event_time": format_us(commit.first_event_us),
        "last_event_time": format_us(commit.last_event_us),
        "offsets": commit.offsets,
    }
