"""The doors of every service: who may come in, and what is not even started."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx2
import pytest

from evenkeel.contracts.http.openapi import document_path
from evenkeel.contracts.http.operations import LIVE, Live
from evenkeel.contracts.http.trainer import PAUSE, LoopChange, LoopRequest
from evenkeel.contracts.payload import Caller
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.errors import SettingsError
from evenkeel.libs.http.app import create_app
from evenkeel.libs.http.body import MAX_BODY_BYTES
from evenkeel.libs.http.caller import CalledBy
from evenkeel.libs.http.tokens import Tokens
from evenkeel.libs.routes import Routes
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


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_serves_the_document_that_is_published(name: str, tmp_path: Path) -> None:
    async with client(runtime(name, tmp_path)) as http:
        served = (await http.get("/openapi.json")).content
    assert served == document_path(name).read_bytes()


async def test_a_route_that_is_answered_twice_stops_the_start() -> None:
    routes = Routes()
    routes.answer(LIVE)(nothing)
    with pytest.raises(ValueError, match="GET /health/live is answered twice"):
        routes.answer(LIVE)(nothing)


async def nothing() -> Live:
    return Live(service="nobody")


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ({"name": "dana", "roles": ["operator"]}, "dana"),
        ({"roles": ["operator"]}, "sha256:9f86d081884c"),
        (["operator"], "sha256:9f86d081884c"),
    ],
)
async def test_the_door_tells_who_calls(entry: Any, name: str, tmp_path: Path) -> None:
    """By the name in the tokens file; without one, by the digest that finds his entry there."""
    seen: list[Caller] = []

    def routes(_: Runtime[Any]) -> Routes:
        found = Routes()

        @found.answer(PAUSE)
        async def pause(model: str, body: LoopRequest, caller: CalledBy) -> LoopChange:
            seen.append(caller)
            return LoopChange(model=model, paused=True, changed=True)

        return found

    tokens = tmp_path / "keys" / "tokens.json"
    tokens.parent.mkdir()
    tokens.write_text(json.dumps({sha256(b"test").hexdigest(): entry}))
    body = {"by": "somebody else", "reason": "why not"}
    async with client(runtime("trainer", tmp_path, routes=routes), Authorization="Bearer test") as http:
        answer = await http.post("/v1/models/m/pause", json=body)
    assert answer.json() == {"model": "m", "paused": True, "changed": True}
    assert seen == [Caller(name=name, role="operator")]


async def test_a_tokens_file_that_cannot_be_used_leaves_the_last_good_one_in_force(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps({sha256(b"test").hexdigest(): ["operator"]}))
    tokens = Tokens(path)
    assert tokens.holder_of(b"Bearer test") is not None
    for broken in ('{"a": {"name": "no roles"}}', '{"a": 1}', "[]", "{"):
        path.write_text(broken + " " * 50)
        tokens._looked = 0.0
        assert tokens.holder_of(b"Bearer test") is not None, broken


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
