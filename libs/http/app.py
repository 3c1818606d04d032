"""A service's HTTP application.

Deny by default: one router-level dependency looks at the role that the route declares; start-up fails if one declares none.
"""

from __future__ import annotations

import ipaddress
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from evenkeel.libs.errors import SettingsError
from evenkeel.libs.http.body import LimitBody
from evenkeel.libs.http.operations import operations_routes
from evenkeel.libs.http.parked import parked_routes
from evenkeel.libs.http.problems import answer_errors_of
from evenkeel.libs.http.roles import ROLE_KEY, authorize
from evenkeel.libs.http.tokens import Tokens
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.settings import Settings


def create_app(runtime: Runtime[Any]) -> ASGIApp:
    """The service's HTTP application; raises SettingsError if a route declares no role."""
    settings: Settings = runtime.settings
    title = f"Evenkeel {runtime.service.name}"
    app = FastAPI(title=title, version=version("evenkeel"), openapi_url=None, docs_url=None, redoc_url=None)
    app.state.tokens, app.state.runtime = Tokens(settings.tokens), runtime
    _check_address(settings)
    for part in (operations_routes(runtime), parked_routes(runtime), *runtime.service.routers(runtime)):
        for route in part.routes:
            if not isinstance(route, APIRoute) or ROLE_KEY not in (route.openapi_extra or {}):
                raise SettingsError(f"route {getattr(route, 'path', route)} declares no role: pass **role(…) to it")
            if not any(depends.dependency is authorize for depends in route.dependencies):
                raise SettingsError(f"route {route.path} asks for no token: make its router with `router` of libs/http")
        app.include_router(part)
    answer_errors_of(app)
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
