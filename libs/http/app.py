"""A service's HTTP application."""

from __future__ import annotations

import ipaddress
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from evenkeel.libs.errors import SettingsError
from evenkeel.libs.http.body import LimitBody
from evenkeel.libs.http.mounting import mount
from evenkeel.libs.http.operations import operations_routes
from evenkeel.libs.http.parked import parked_routes
from evenkeel.libs.http.problems import answer_errors_of
from evenkeel.libs.http.tokens import Tokens
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.settings import Settings


def create_app(runtime: Runtime[Any]) -> ASGIApp:
    """Everything that the service answers; raises SettingsError if others can reach it and nobody is known."""
    settings: Settings = runtime.settings
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.tokens, app.state.runtime = Tokens(settings.tokens), runtime
    _check_address(settings)
    for routes in (operations_routes(runtime), parked_routes(runtime), runtime.service.routes(runtime)):
        mount(app, routes)
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
