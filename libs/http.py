"""The HTTP side of a service: health, metrics, and routes that each declare who may call them.

Deny by default: one router-level dependency looks at the role that the route declares; start-up fails if one declares none.
Errors are problem+json (RFC 9457) with the field and the fix, never a stack, a query or a path. The OpenAPI document says
for each call its role and every answer that it can give.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Mapping
from http import HTTPStatus
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import fastapi
import structlog
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from prometheus_client.exposition import choose_encoder
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.envelope import format_us
from libs.errors import NotYet, Refused, Retry, SettingsError, Stop
from libs.runtime.merge import Group, name_of
from libs.runtime.parking import Parked
from libs.runtime.runtime import Runtime
from libs.settings import Settings

log = structlog.get_logger(__name__)

Role = Literal["producer", "client", "scientist", "auditor", "approver", "operator"]
ROLES: Final[tuple[Role, ...]] = ("producer", "client", "scientist", "auditor", "approver", "operator")
ROLE_KEY: Final = "x-evenkeel-role"
MAX_BODY_BYTES: Final = 1_048_576
MAX_ARGUMENT_CHARACTERS: Final = 2_048
_LIMIT_SECONDS: Final = 1.0
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search
PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "What in the call is wrong."},
        "fix": {"type": "string", "description": "What to do instead."},
    },
}


class Tokens:
    """Who may do what: a JSON file of {sha256 of the token: [roles]}, read again when it changes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._roles: dict[str, frozenset[str]] = {}
        self._known: dict[bytes, frozenset[str]] = {}
        self._stamp: tuple[int, int] | None = None
        self._looked = 0.0

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LIMIT_SECONDS:
            return
        self._looked = now
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp != self._stamp:
                loaded = json.loads(self._path.read_text())
                self._roles = {digest: frozenset(roles) for digest, roles in loaded.items()}
                self._known, self._stamp = {}, stamp
        except FileNotFoundError:
            self._roles, self._known, self._stamp = {}, {}, None
        except (ValueError, AttributeError, OSError) as error:
            log.error("tokens file is not usable; the last good one stays in force", error=str(error))

    def roles_of(self, authorization: bytes) -> frozenset[str]:
        """The roles of an `Authorization` header's bearer token; none for an unknown one."""
        self._refresh()
        roles = self._known.get(authorization)
        if roles is None:
            scheme, _, token = authorization.partition(b" ")
            digest = hashlib.sha256(token.strip()).hexdigest()
            roles = self._roles.get(digest, frozenset()) if scheme.lower() == b"bearer" else frozenset()
            if roles:
                self._known[authorization] = roles
        return roles


def role(
    name: Role | Literal["public"], *refusals: int, body: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """What a route passes on to say who may call it: `@router.get("/x", **role("auditor"))`.

    `refusals` are statuses that it answers beside the ones that follow from its form; `body` is the JSON Schema of the body
    by media type, where the route reads it itself.
    """
    extra: dict[str, Any] = {ROLE_KEY: name}
    if body is not None:
        content = {media_type: {"schema": schema} for media_type, schema in body.items()}
        extra["requestBody"] = {"required": True, "content": content}
    refused: dict[int | str, dict[str, Any]] = {status: refusal(status) for status in refusals}
    return {"openapi_extra": extra, "responses": refused}


async def _authorize(request: Request) -> None:
    wanted = request.scope["route"].openapi_extra[ROLE_KEY]
    if wanted == "public":
        return
    header = request.headers.get("authorization", "").encode()
    roles = request.app.state.tokens.roles_of(header)
    if not roles:
        raise Refused(
            401,
            "Unauthorized",
            "This call needs a known bearer token.",
            field="Authorization",
            fix="Send `Authorization: Bearer <token>`.",
        )
    if wanted not in roles:
        raise Refused(
            403,
            "Forbidden",
            f"This call needs the role {wanted}.",
            field="Authorization",
            fix="Use a token that has it.",
        )


async def _check_arguments(request: Request) -> None:
    """No store keeps U+0000, and nothing that is looked up is longer than this."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if "\x00" in str(value) or len(str(value)) > MAX_ARGUMENT_CHARACTERS:
            detail = f"{name} holds U+0000 or is longer than {MAX_ARGUMENT_CHARACTERS} characters."
            raise Refused(422, "Invalid request", detail, field=name, fix="Send it as it was declared or answered.")
    if request.scope["route"].body_field is not None:
        body = await request.body()
        if b"\\u0000" in body and _NUL(body):
            raise Refused(422, "Invalid request", "A text of the body holds U+0000.", field="body", fix="Leave it out.")


def router(prefix: str = "") -> APIRouter:
    """A router whose routes must each declare a role."""
    return APIRouter(prefix=prefix, dependencies=[Depends(_authorize), Depends(_check_arguments)])


def problem(status: int, title: str, detail: str, **extra: Any) -> JSONResponse:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail} | {
        k: v for k, v in extra.items() if v is not None
    }
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status, headers, "application/problem+json")


def create_app(runtime: Runtime[Any]) -> ASGIApp:
    """The service's HTTP application; raises SettingsError if a route declares no role."""
    settings: Settings = runtime.settings
    title = f"Evenkeel {runtime.service.name}"
    app = FastAPI(title=title, version=version("evenkeel"), openapi_url=None, docs_url=None, redoc_url=None)
    app.state.tokens, app.state.runtime = Tokens(settings.tokens), runtime
    _check_address(settings)
    for part in (_operations(runtime), *runtime.service.routers(runtime)):
        for route in part.routes:
            if not isinstance(route, APIRoute) or ROLE_KEY not in (route.openapi_extra or {}):
                raise SettingsError(f"route {getattr(route, 'path', route)} declares no role: pass **role(…) to it")
            if not any(depends.dependency is _authorize for depends in route.dependencies):
                raise SettingsError(f"route {route.path} asks for no token: make its router with libs.http.router")
        app.include_router(part)
    app.exception_handler(Refused)(_refused)
    app.exception_handler(Retry)(_unavailable)
    app.exception_handler(Stop)(_unavailable)
    app.exception_handler(RequestValidationError)(_invalid)
    app.exception_handler(HTTPException)(_http_error)
    app.exception_handler(Exception)(_unexpected)
    limited: ASGIApp = LimitBody(app)
    return runtime.service.asgi(runtime, limited) if runtime.service.asgi else limited


def _check_address(settings: Settings) -> None:
    try:
        loopback = settings.host == "localhost" or ipaddress.ip_address(settings.host).is_loopback
    except ValueError:
        loopback = False
    if not loopback and not settings.tokens.exists():
        raise SettingsError(
            f"EVENKEEL_HOST is {settings.host}, which others can reach, but there is no tokens file: "
            "name one with EVENKEEL_TOKENS_FILE, or use 127.0.0.1"
        )


def _operations(runtime: Runtime[Any]) -> APIRouter:
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

    @routes.get("/v1/parked", **role("operator"))
    async def parked() -> dict[str, Any]:
        """Records that the service's ordered handler could not take, with those that wait behind them."""
        return {"service": runtime.service.name, "parked": [_queue(g, queue) for g, queue in await runtime.parked()]}

    @routes.post("/v1/parked/release", **role("operator", 404, 409))
    async def release(body: Release) -> dict[str, Any]:
        """Fold what is parked under a key, in order: all of it, or nothing if the handler still fails."""
        known = {_text(queue[0].key): queue[0].key for _, queue in await runtime.parked()}
        if body.key not in known:
            named = ", ".join(list(known)[:20]) or "none"
            raise Refused(
                404, "Not parked", f"Nothing is parked under {body.key}.", field="key", fix=f"Parked keys: {named}."
            )
        return {"key": body.key, "released": await runtime.release_parked(known[body.key])}

    return routes


class Release(BaseModel):
    """Which key to release, as `/v1/parked` shows it."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(max_length=1000)


def _queue(group: Group | None, queue: list[Parked]) -> dict[str, Any]:
    first = queue[0]
    return {
        "key": _text(first.key),
        "merge": None if group is None else name_of(group),
        "reason": first.reason,
        "since": format_us(first.since_us),
        "records": [
            {
                "event_id": one.event.id,
                "topic": one.event.topic,
                "partition": one.event.partition,
                "offset": one.event.offset,
                "time": format_us(one.event.time_us),
            }
            for one in queue
        ],
    }


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")


def describe(app: FastAPI, runtime: Runtime[Any]) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with the refusals that are the same everywhere, and what answers in front of it."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            add_refusals(path, operation)
    runtime.service.describe(document)
    return document


def add_refusals(path: str, operation: dict[str, Any]) -> None:
    """The answers that follow from an operation's role and form."""
    answers = operation["responses"]
    if operation[ROLE_KEY] != "public":
        operation["security"] = [{"token": []}]
        answers |= {str(status): refusal(status) for status in (401, 403, 503)}
    if "{" in path:
        answers.setdefault("404", refusal(404))
    if "parameters" in operation or "requestBody" in operation:
        answers["422"] = refusal(422)
    if "requestBody" in operation:
        answers |= {"400": refusal(400), "413": refusal(413)}


def refusal(status: int) -> dict[str, Any]:
    """An OpenAPI response that is a problem."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": HTTPStatus(status).phrase, "content": content}


class LimitBody:
    """Refuses bodies over the limit before they are read whole."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                # The framework's own class: any other becomes its "error parsing the body".
                raise fastapi.HTTPException(413, f"The body is larger than {self._max_bytes} bytes.")
            return message

        await self._app(scope, limited, send)


async def _refused(request: Request, error: Refused) -> JSONResponse:
    if error.status == 404 and not request.app.state.runtime.has_caught_up:
        return await _unavailable(request, Retry("the facts are still being read"))
    return problem(error.status, error.title, error.detail, field=error.field, fix=error.fix)


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
