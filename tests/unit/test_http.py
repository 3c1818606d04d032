"""The doors of every service: who may come in, and what is not even started."""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.errors import SettingsError
from evenkeel.libs.http.app import create_app
from evenkeel.libs.http.body import MAX_BODY_BYTES
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.settings import Settings, read_settings
from evenkeel.services.__main__ import service_named
from tests.running import write_token

pytestmark = pytest.mark.anyio
COMMANDS = {
    "/v1/streams/{stream}/events": "producer",
    "/v1/streams/{stream}/labels": "producer",
    "/v1/streams/{stream}/heartbeat": "producer",
    "/v1/models/{model}/train": "scientist",
    "/v1/models/{model}/pause": "operator",
    "/v1/models/{model}/resume": "operator",
    "/v1/declarations": "scientist",
    "/v1/models/{model}/approvals": "approver",
    "/v1/models/{model}/rollback": "approver",
    "/v1/models/{model}/predict": "client",
    "/v2/models/{model}/infer": "client",
    "/v2/models/{model}/versions/{version}/infer": "client",
    "/v1/parked/release": "operator",
    "/v1/rejected/{number}/redrive": "operator",
}


def runtime(name: str, data_dir: Path, host: str = "127.0.0.1", **changes: Any) -> Runtime[Any]:
    """A service that was not started: only its routes are looked at."""
    service = replace(service_named(name), **changes)
    settings = Settings(data_dir=data_dir, host=host)
    return Runtime(service, settings, service.settings(), KafkaBus("127.0.0.1:9", name))


def client(found: Runtime[Any], **headers: str) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=create_app(found))
    return httpx2.AsyncClient(transport=transport, base_url="http://service", headers=headers)


async def test_each_command_has_its_role(tmp_path: Path) -> None:
    commands = {}
    for name in SERVICES:
        async with client(runtime(name, tmp_path / name)) as http:
            paths = (await http.get("/openapi.json")).json()["paths"]
        commands |= {
            path: methods[method]["x-evenkeel-role"]
            for path, methods in paths.items()
            for method in methods.keys() - {"get"}
        }
    assert commands == COMMANDS


@pytest.mark.parametrize("name", SERVICES)
async def test_before_its_state_is_read_a_service_says_of_nothing_that_it_is_unknown(name: str, tmp_path: Path) -> None:
    token = write_token(tmp_path, *{*COMMANDS.values(), "auditor"})
    async with client(runtime(name, tmp_path), Authorization=f"Bearer {token}") as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        answered = {}
        for path, methods in paths.items():
            asked = re.sub(r"{[a-z_]+}", "1", path)
            for method in methods:
                answered[method, path] = (await http.request(method, asked, json={"key": "1"})).status_code
    assert 404 not in answered.values(), answered
    unready = {operation: status for operation, status in answered.items() if "{" in operation[1]}
    assert set(unready.values()) <= {422, 503}, unready


def nothing() -> dict[str, str]:
    return {}


async def test_a_route_that_names_no_role_stops_the_start(tmp_path: Path) -> None:
    def routers(_: Runtime[Any]) -> Sequence[APIRouter]:
        routes = router()
        routes.get("/open")(nothing)
        return (routes,)

    with pytest.raises(SettingsError, match="route /open declares no role"):
        create_app(runtime("registry", tmp_path, routers=routers))


async def test_a_router_that_asks_for_no_token_stops_the_start(tmp_path: Path) -> None:
    def routers(_: Runtime[Any]) -> Sequence[APIRouter]:
        routes = APIRouter(prefix="/v1")
        routes.get("/open", **role("operator"))(nothing)
        return (routes,)

    with pytest.raises(SettingsError, match="/v1/open asks for no token"):
        create_app(runtime("registry", tmp_path, routers=routers))


async def test_an_address_that_others_reach_needs_tokens(tmp_path: Path) -> None:
    found = runtime("registry", tmp_path, host="0.0.0.0")
    with pytest.raises(SettingsError, match="EVENKEEL_TOKENS_FILE"):
        create_app(found)
    write_token(tmp_path, "scientist")
    create_app(found)


async def test_a_body_over_the_limit_is_refused_before_it_is_looked_at(tmp_path: Path) -> None:
    token = write_token(tmp_path, "scientist")
    async with client(runtime("registry", tmp_path), Authorization=f"Bearer {token}") as http:
        answer = await http.post("/v1/declarations", content=b"#" * (MAX_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["title"]) == (413, "Request Entity Too Large")


@pytest.mark.parametrize("name", SERVICES)
def test_a_variable_that_nobody_reads_is_an_error_with_the_name_that_was_meant(name: str) -> None:
    own = importlib.import_module(f"evenkeel.services.{name}.service").service.settings
    with pytest.raises(SettingsError, match=f"EVENKEEL_BROKR is not a setting of {name}. Did you mean EVENKEEL_BROKER"):
        read_settings(name, own, {"EVENKEEL_BROKR": "127.0.0.1:9092"})
    others = {f"EVENKEEL_{other.upper()}_ANYTHING": "1" for other in SERVICES if other != name}
    read_settings(name, own, others)
