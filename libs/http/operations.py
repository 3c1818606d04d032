"""What every service answers about itself: alive, ready, its metrics, its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import Request
from prometheus_client.exposition import choose_encoder

from evenkeel.contracts.http.openapi import document_path
from evenkeel.contracts.http.operations import LIVE, METRICS, OPENAPI, READY, Live, OpenApiDocument, Readiness
from evenkeel.contracts.http.route import JSON
from evenkeel.libs.routes import Other, Routes, Written
from evenkeel.libs.runtime.runtime import Runtime


def operations_routes(runtime: Runtime[Any]) -> Routes:
    """`/health/live`, `/health/ready`, `/openapi.json` and `/metrics`."""
    routes, name = Routes(), runtime.service.name

    @routes.answer(LIVE)
    async def live() -> Live:
        return Live(status="live", service=name)

    @routes.answer(READY)
    async def ready() -> Readiness | Other:
        reason = runtime.not_ready_reason
        if reason is None:
            return Readiness(status="ready", service=name)
        return Other(503, Readiness(status="not ready", service=name, reason=reason))

    @routes.answer(OPENAPI)
    async def openapi() -> OpenApiDocument | Written:
        return Written(document_path(name).read_bytes(), JSON)

    @routes.answer(METRICS)
    async def metrics(request: Request) -> str | Written:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Written(encoder(runtime.metrics.registry), content_type)

    return routes
