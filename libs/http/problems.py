"""Refusals as problem+json (RFC 9457), with the field and the fix, never a stack, a query or a path."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from evenkeel.contracts.http.route import PROBLEM_JSON
from evenkeel.libs.errors import NotYet, Refused, Retry, Stop

log = structlog.get_logger(__name__)


def problem(status: int, title: str, detail: str, **extra: Any) -> JSONResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail} | {
        k: v for k, v in extra.items() if v is not None
    }
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers, PROBLEM_JSON)


def answer_errors_of(app: FastAPI) -> None:
    """Whatever a route raises is answered as a problem."""
    app.exception_handler(Refused)(_refused)
    app.exception_handler(Retry)(_unavailable)
    app.exception_handler(Stop)(_unavailable)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(_unexpected)


async def _refused(request: Request, error: Refused) -> JSONResponse:
    if error.status == 404 and not request.app.state.runtime.has_caught_up:
        return await _unavailable(request, Retry("the facts are still being read"))
    return problem(error.status, error.title, error.detail, field=error.field, fix=error.fix, **error.more)


async def _unavailable(_: Request, error: Exception) -> JSONResponse:
    detail = (
        "A fact that this needs has not arrived yet."
        if isinstance(error, NotYet)
        else "The service cannot do this right now."
    )
    return problem(503, "Unavailable", detail, fix="Try again with the same id.")


async def _invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    first: Mapping[str, Any] = error.errors()[0]
    if first["type"] == "json_invalid":
        detail = f"The body is not JSON: {first['ctx']['error']} at character {first['loc'][-1]}."
        return problem(422, "Invalid request", detail, field="body", fix="Send one JSON object.")
    where = ".".join(map(str, first["loc"][1:])) or "body"
    return problem(422, "Invalid request", f"{where}: {first['msg']}", field=where, fix=f"Correct {where}.")


async def _http_error(_: Request, error: HTTPException) -> JSONResponse:
    """What the framework refuses by itself: a path, a method, a body."""
    allowed = (error.headers or {}).get("Allow")
    fix = {
        404: "GET /openapi.json lists the calls.",
        405: f"Use {allowed}." if allowed else "GET /openapi.json lists the calls.",
        400: "Send the body as JSON in UTF-8.",
        413: "Send fewer at once.",
    }.get(error.status_code)
    field = "body" if error.status_code in (400, 413) else None
    answer = problem(error.status_code, HTTPStatus(error.status_code).phrase, str(error.detail), field=field, fix=fix)
    answer.headers.update(error.headers or {})
    return answer


async def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("request failed", path=request.url.path, exc_info=error)
    return problem(500, "Internal error", "The service failed on this request; its log has the cause.")
