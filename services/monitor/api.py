"""What monitor tells over HTTP. It takes no commands: policies are declared, and signals are facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query

from evenkeel.contracts.declaration import parse_duration_us
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.service import Host
from evenkeel.services.monitor import queries
from evenkeel.services.monitor.context import MonitorContext

Json = dict[str, Any]
Limit = Annotated[int, Query(ge=1, le=10_000)]


def routers(runtime: Host[MonitorContext]) -> Sequence[APIRouter]:
    routes = router("/v1")

    @routes.get("/models", **role("operator"))
    async def models() -> Json:
        """Champion, open predictions, last window, signals and alerts of every model; serving's replicas."""
        return await runtime.query(lambda c: {"models": queries.models(c), "replicas": queries.replicas(c)})

    @routes.get("/models/{model}/windows", **role("scientist"))
    async def windows(model: str, window: str | None = None, limit: Limit = 400) -> Json:
        """Measured windows, as they were published."""
        length_us = _length(window)
        return await runtime.query(lambda c: {"model": model, "windows": queries.measured(c, model, length_us, limit)})

    @routes.get("/models/{model}/performance", **role("scientist"))
    async def performance(model: str, window: str | None = None, limit: Limit = 400) -> Json:
        """Quality over time, and where it was called degraded."""
        length_us = _length(window)

        def ask(c: Any) -> Json:
            told = ("window_start", "window_end", "epoch", "version", "labelled", "metrics")
            series = [{key: one.get(key) for key in told} for one in queries.measured(c, model, length_us, limit)]
            return {
                "model": model,
                "policy": queries.policy(c, model),
                "series": series,
                "degraded": queries.signalled(c, model, "decay", limit),
            }

        return await runtime.query(ask)

    @routes.get("/models/{model}/drift", **role("scientist"))
    async def drift(model: str, window: str | None = None, limit: Limit = 400) -> Json:
        """Every feature's drift over time, and the drift signals."""
        length_us = _length(window)

        def ask(c: Any) -> Json:
            series = [
                {key: one.get(key) for key in ("window_start", "window_end", "epoch", "version", "vectors", "drift")}
                for one in queries.measured(c, model, length_us, limit)
            ]
            return {"model": model, "series": series, "signals": queries.signalled(c, model, "drift", limit)}

        return await runtime.query(ask)

    @routes.get("/streams/{stream}/rejections", **role("operator"))
    async def rejections(stream: str, limit: Limit = 1000) -> Json:
        """What broke the stream's contract, counted by day of event time and rule."""
        return await runtime.query(lambda c: {"stream": stream, "rejections": queries.rejected(c, stream, limit)})

    return [routes]


def _length(window: str | None) -> int | None:
    try:
        return None if window is None else parse_duration_us(window)
    except ValueError as error:
        raise Refused(422, "Invalid request", str(error), field="window", fix="Write it like 24h or 7d.") from None
