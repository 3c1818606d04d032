"""What every service answers about itself: alive, ready, its metrics, its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from prometheus_client.exposition import choose_encoder

from evenkeel.libs.http.openapi import describe
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.runtime.runtime import Runtime


def operations_routes(runtime: Runtime[Any]) -> APIRouter:
    """`/health/live`, `/health/ready`, `/openapi.json` and `/metrics`."""
    routes = router()

    @routes.get("/health/live", **role("public"))
    async def live() -> dict[str, str]:
        return {"status": "live", "service": runtime.service.name}

    @routes.get("/health/ready", **role("public") | {"responses": {503: {"description": "Not ready, and why."}}})
    async def ready() -> JSONResponse:
        reason = runtime.not_ready_reason
        body = {"status": "ready" if reason is None else "not ready", "service": runtime.service.name, "reason": reason}
        return JSONResponse(body, 200 if reason is None else 503)

    @routes.get("/openapi.json", **role("public"))
    async def openapi(request: Request) -> dict[str, Any]:
        return describe(request.app, runtime)

    @routes.get("/metrics", response_class=PlainTextResponse, **role("public"))
    async def metrics(request: Request) -> Response:
        encoder, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encoder(runtime.metrics.registry), media_type=content_type)

    return routes
