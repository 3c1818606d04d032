"""A service does not start with a route that anybody may call without saying so."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import APIRouter

from libs.bus.kafka import KafkaBus
from libs.errors import SettingsError
from libs.http import create_app, role, router
from libs.runtime.runtime import Runtime
from libs.service import Context, Service
from libs.settings import OwnSettings, Settings
from libs.store.lmdb import LmdbStore


def nothing() -> dict[str, str]:
    return {}


def app_with(routes: APIRouter, folder: Path) -> object:
    service: Service[Context] = Service(
        name="trainer",
        settings=OwnSettings,
        open_store=lambda settings: LmdbStore(folder / "store", (), 2**20),
        context=lambda settings, own: Context(),
        handlers=(),
        routers=lambda runtime: [routes],
    )
    bus = KafkaBus("127.0.0.1:1", "test")
    return create_app(Runtime(service, Settings(data_dir=folder), OwnSettings(), bus))


def test_a_route_without_a_role_is_refused_at_the_start(tmp_path: Path) -> None:
    routes = router("/v1")
    routes.add_api_route("/open", nothing)
    with pytest.raises(SettingsError, match="/v1/open declares no role"):
        app_with(routes, tmp_path)


def test_a_router_that_asks_for_no_token_is_refused_at_the_start(tmp_path: Path) -> None:
    routes = APIRouter(prefix="/v1")
    routes.add_api_route("/open", nothing, **role("operator"))
    with pytest.raises(SettingsError, match="/v1/open asks for no token"):
        app_with(routes, tmp_path)
    guarded = router("/v1")
    guarded.add_api_route("/guarded", nothing, **role("operator"))
    app_with(guarded, tmp_path)
