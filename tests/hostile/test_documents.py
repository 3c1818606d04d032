"""Every call of every service: it is documented, refuses the wrong role, and answers generated input as documented."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from evenkeel.contracts.http.openapi import ROLE_KEY
from evenkeel.contracts.http.route import ROLES
from evenkeel.contracts.topics import SERVICES
from tests.hostile.catalogue import MODEL, SECRETS, STREAM
from tests.hostile.conftest import System

pytestmark = pytest.mark.anyio
EXAMPLES = 6
KNOWN = {"model": MODEL, "stream": STREAM, "version": "1"}
"""Arguments that lead somewhere; half of the calls have them, the others what is generated."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


async def operations(system: System, service: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(method, path, operation) of all that the service documents."""
    document = await system.get(service, "/openapi.json")
    return [(m.upper(), path, op) for path, found in document["paths"].items() for m, op in found.items()]


def filled(path: str) -> str:
    for name in ("model", "stream", "version", "id", "leaf", "number", "identifier"):
        path = path.replace("{" + name + "}", KNOWN.get(name, "1"))
    assert "{" not in path
    return path


async def test_every_call_refuses_a_stranger_and_every_wrong_role(system: System) -> None:
    walked = 0
    for service in SERVICES:
        async with system.client(service) as http:
            for method, path, operation in await operations(system, service):
                wanted = operation[ROLE_KEY]
                if wanted == "public":
                    answer = await http.request(method, filled(path), headers={"Authorization": ""})
                    assert answer.status_code == 200, (service, path)
                    continue
                calls = [(name, system.tokens[name], 403) for name in ROLES if name != wanted]
                calls += [("nobody", "", 401), ("unknown token", "x" * 32, 401)]
                for name, token, status in calls:
                    headers = {"Authorization": f"Bearer {token}"} if token else {"Authorization": ""}
                    answer = await http.request(method, filled(path), headers=headers, json={})
                    assert answer.status_code == status, (service, method, path, name, answer.text)
                    body = answer.json()
                    if path.startswith("/v2"):
                        assert "token" in body["error"]
                    else:
                        assert (body["field"], bool(body["fix"])) == ("Authorization", True)
                    walked += 1
                right = {"Authorization": f"Bearer {system.tokens[wanted]}"}
                answer = await http.request(method, filled(path), headers=right, content=b"[")
                assert answer.status_code not in (401, 403), (service, method, path, answer.text)
    assert walked > 300


async def test_the_documents_hold_every_route(system: System) -> None:
    """The framework's routes and the hot paths in front of it; nothing else answers."""
    for service in SERVICES:
        documented = {path for _, path, _ in await operations(system, service)}
        async with system.client(service) as http:
            for path in ("/docs", "/redoc", "/v1/nothing", "/openapi.yaml", "/"):
                assert (await http.get(path)).status_code == 404, (service, path)
        assert "/openapi.json" in documented
        if service == "serving":
            assert {p for p in documented if p.endswith(("/predict", "/infer"))} == {
                "/v1/models/{model}/predict",
                "/v2/models/{model}/infer",
                "/v2/models/{model}/versions/{version}/infer",
            }


@pytest.mark.parametrize("service", SERVICES)
async def test_generated_calls_are_answered_as_documented(system: System, service: str) -> None:
    document = await system.get(service, "/openapi.json")
    await anyio.to_thread.run_sync(_generated, document, system.services[service].url, system.everything)


def _generated(document: dict[str, Any], url: str, token: str) -> None:
    schema = schemathesis.openapi.from_dict(document)
    session = requests.Session()
    for found in schema.get_all_operations():
        operation = found.ok()
        names = [p.name for p in operation.path_parameters]
        known = {name: KNOWN[name] for name in names if name in KNOWN}
        for mode in GenerationMode:
            for fixed in ({}, known) if known else ({},):
                more = {"path_parameters": fixed} if fixed else {}

                @settings(
                    max_examples=EXAMPLES,
                    deadline=None,
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                )
                @given(operation.as_strategy(mode, **more))
                def call(case: Case) -> None:
                    headers = {"Authorization": f"Bearer {token}"}
                    answer = case.call(base_url=url, session=session, headers=headers)
                    case.validate_response(answer, checks=CHECKS, headers=headers)
                    for word in SECRETS:
                        assert word not in answer.text, (case.path, answer.text)

                try:
                    call()
                except Unsatisfiable:  # nothing can be wrong with a call that takes nothing
                    assert mode is GenerationMode.NEGATIVE
