"""What monitor tells over HTTP. It takes no commands: policies are declared, and signals are facts."""

from __future__ import annotations

from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Query

from evenkeel.contracts.declaration import parse_duration_us
from evenkeel.contracts.http import monitor as http
from evenkeel.libs.errors import Refused
from evenkeel.libs.routes import Routes
from evenkeel.libs.service import Host
from evenkeel.services.monitor import queries
from evenkeel.services.monitor.context import MonitorContext


def routes(runtime: Host[MonitorContext]) -> Routes:
    found = Routes()

    @found.answer(http.MODELS)
    async def models() -> http.MonitoredModels:
        return await runtime.query(
            lambda c: http.MonitoredModels(models=queries.models(c), replicas=queries.replicas(c))
        )

    @found.answer(http.WINDOWS)
    async def windows(model: str, query: Annotated[http.WindowsQuery, Query()]) -> http.Windows:
        length_us = _length(query)
        measured = await runtime.query(lambda c: queries.measured(c, model, length_us, query.limit))
        return http.Windows(model=model, windows=measured)

    @found.answer(http.PERFORMANCE)
    async def performance(model: str, query: Annotated[http.WindowsQuery, Query()]) -> http.Performance:
        length_us = _length(query)
        return await runtime.query(lambda c: _performance(c, model, length_us, query.limit))

    @found.answer(http.DRIFT)
    async def drift(model: str, query: Annotated[http.WindowsQuery, Query()]) -> http.Drift:
        length_us = _length(query)
        return await runtime.query(lambda c: _drift(c, model, length_us, query.limit))

    @found.answer(http.REJECTIONS)
    async def rejections(stream: str, query: Annotated[http.RejectionsQuery, Query()]) -> http.Rejections:
        counts = await runtime.query(lambda c: queries.rejected(c, stream, query.limit))
        return http.Rejections(stream=stream, rejections=counts)

    return found


def _performance(connection: sa.Connection, model: str, length_us: int | None, limit: int) -> http.Performance:
    series = [
        http.Measured(
            window_start=window.window_start,
            window_end=window.window_end,
            epoch=window.epoch,
            version=window.version,
            labelled=window.labelled,
            metrics=window.metrics,
        )
        for window in queries.measured(connection, model, length_us, limit)
    ]
    signals = queries.signalled(connection, model, "decay", limit)
    return http.Performance(
        model=model,
        policy=queries.policy(connection, model),
        series=series,
        degraded=[http.DegradedSignal.model_validate(signal) for signal in signals],
    )


def _drift(connection: sa.Connection, model: str, length_us: int | None, limit: int) -> http.Drift:
    series = [
        http.Drifted(
            window_start=window.window_start,
            window_end=window.window_end,
            epoch=window.epoch,
            version=window.version,
            vectors=window.vectors,
            drift=window.drift,
        )
        for window in queries.measured(connection, model, length_us, limit)
    ]
    signals: list[dict[str, Any]] = queries.signalled(connection, model, "drift", limit)
    return http.Drift(
        model=model, series=series, signals=[http.DriftSignal.model_validate(signal) for signal in signals]
    )


def _length(query: http.WindowsQuery) -> int | None:
    try:
        return None if query.window is None else parse_duration_us(query.window)
    except ValueError as error:
        raise Refused(422, "Invalid request", str(error), field="window", fix="Write it like 24h or 7d.") from None
