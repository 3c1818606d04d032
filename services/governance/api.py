"""HTTP of governance: why a prediction is as it is, who was champion when, what was logged, and proofs of it.

An id in a path may hold anything, slashes too: a producer's id is any text (`{id:path}`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query

from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.service import Host
from evenkeel.services.governance import queries
from evenkeel.services.governance.context import GovernanceContext
from evenkeel.services.governance.domain.champions import ClockName

MAX_LEAF: Final = 2**62
Leaf = Annotated[int, Query(ge=0, le=MAX_LEAF)]
Json = dict[str, Any]


def routers(runtime: Host[Any]) -> Sequence[APIRouter]:
    ctx: GovernanceContext = runtime.context
    return [_lineage(runtime, ctx), _records(runtime, ctx), _proofs(runtime, ctx)]


def _lineage(runtime: Host[Any], ctx: GovernanceContext) -> APIRouter:
    routes = router("/v1")

    @routes.get("/lineage/predictions/{id:path}", **role("auditor"))
    async def prediction(id: str, model: str | None = None, proof: bool = False) -> Json:
        return await runtime.query(lambda connection: queries.prediction(connection, ctx.log, id, model, proof))

    @routes.get("/trace/{id:path}", **role("auditor"))
    async def trace(id: str, model: str | None = None) -> Json:
        """Whatever the id names: an event to its predictions, a prediction back to its event, a turn of the loop."""
        return await runtime.query(lambda connection: queries.trace(connection, ctx.log, id, model))

    @routes.get("/models/{model}/champion", **role("auditor"))
    async def champion(model: str, at: str | None = None, clock: ClockName = "event") -> Json:
        at_us = None if at is None else queries.time_of(at)
        return await runtime.query(lambda connection: queries.champion(connection, ctx.log, model, at_us, clock))

    @routes.get("/models/{model}/history", **role("auditor"))
    async def history(
        model: str,
        after: Annotated[int, Query(ge=-1, le=MAX_LEAF)] = -1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> Json:
        return await runtime.query(lambda connection: queries.history(connection, ctx.log, model, after, limit))

    return routes


def _records(runtime: Host[Any], ctx: GovernanceContext) -> APIRouter:
    routes = router("/v1")

    @routes.get("/events/{id:path}", **role("auditor"))
    async def event(id: str) -> Json:
        return await runtime.query(lambda connection: queries.event(connection, ctx.log, id))

    @routes.get("/log/leaves/{leaf}", **role("auditor"))
    async def leaf(leaf: int) -> Json:
        return await runtime.query(lambda connection: queries.leaf(connection, leaf))

    return routes


def _proofs(runtime: Host[Any], ctx: GovernanceContext) -> APIRouter:
    routes = router("/v1/log")

    @routes.get("/checkpoint", **role("auditor", 404))
    async def checkpoint() -> Json:
        return await runtime.query(lambda connection: queries.checkpoint(connection, lambda: ctx.key))

    @routes.get("/inclusion", **role("auditor", 404, 409))
    async def inclusion(leaf: Leaf | None = None, event_id: str | None = None) -> Json:
        return await runtime.query(lambda connection: queries.inclusion(connection, ctx.log, leaf, event_id))

    @routes.get("/consistency", **role("auditor", 404))
    async def consistency(old: Leaf, new: Leaf | None = None) -> Json:
        return await runtime.query(lambda connection: queries.consistency(connection, old, new))

    return routes
