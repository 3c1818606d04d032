"""HTTP of governance: why a prediction is as it is, who was champion when, what was logged, and proofs of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query

from evenkeel.contracts.http import governance as http
from evenkeel.libs.routes import Routes
from evenkeel.libs.service import Host
from evenkeel.services.governance import queries
from evenkeel.services.governance.context import GovernanceContext


def routes(runtime: Host[Any]) -> Routes:
    ctx: GovernanceContext = runtime.context
    found = Routes()

    @found.answer(http.PREDICTION)
    async def prediction(id: str, query: Annotated[http.PredictionQuery, Query()]) -> http.PredictionLineage:
        return await runtime.query(lambda c: queries.prediction(c, ctx.log, id, query.model, query.proof))

    @found.answer(http.TRACE)
    async def trace(id: str, query: Annotated[http.TraceQuery, Query()]) -> http.Trace:
        return await runtime.query(lambda c: queries.trace(c, ctx.log, id, query.model))

    @found.answer(http.CHAMPION)
    async def champion(model: str, query: Annotated[http.ChampionQuery, Query()]) -> http.ChampionThen:
        at_us = None if query.at is None else queries.time_of(query.at)
        return await runtime.query(lambda c: queries.champion(c, ctx.log, model, at_us, query.clock))

    @found.answer(http.HISTORY)
    async def history(model: str, query: Annotated[http.HistoryQuery, Query()]) -> http.History:
        return await runtime.query(lambda c: queries.history(c, ctx.log, model, query.after, query.limit))

    @found.answer(http.EVENT)
    async def event(id: str) -> http.LoggedEvent:
        return await runtime.query(lambda c: queries.event(c, ctx.log, id))

    @found.answer(http.LEAF)
    async def leaf(leaf: int) -> http.Leaf:
        return await runtime.query(lambda c: queries.leaf(c, leaf))

    @found.answer(http.CHECKPOINT)
    async def checkpoint() -> http.Checkpoint:
        return await runtime.query(lambda c: queries.checkpoint(c, lambda: ctx.key))

    @found.answer(http.INCLUSION)
    async def inclusion(query: Annotated[http.InclusionQuery, Query()]) -> http.Inclusion:
        return await runtime.query(lambda c: queries.inclusion(c, ctx.log, query.leaf, query.event_id))

    @found.answer(http.CONSISTENCY)
    async def consistency(query: Annotated[http.ConsistencyQuery, Query()]) -> http.Consistency:
        return await runtime.query(lambda c: queries.consistency(c, query.old, query.new))

    return found
