"""The typed client: every route is a method, answers are models, refusals say what to do, and what is sent twice may be."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
import uvicorn

import evenkeel
from evenkeel import AsyncClient, CallRefused, Client, NoAnswer, ServiceError
from evenkeel.contracts.http import ingest, operations, registry, serving, trainer
from evenkeel.contracts.http.catalogue import ROUTES
from evenkeel.contracts.http.openapi import example_of
from evenkeel.contracts.http.route import Route
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, Send, Wait, call_of, exchange
from evenkeel.libs.client.local import token_of
from evenkeel.libs.client.operation import operation
from evenkeel.libs.http.app import create_app
from evenkeel.libs.process.lock import FolderLock
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.settings import DEFAULT_PORTS, Settings
from evenkeel.services.__main__ import service_named
from tests.record_ids import RECORD_IDS
from tests.running import write_token

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENKEEL_TOKEN", raising=False)


# -- methods and routes ---------------------------------------------------------------------------------------------------

ARGUMENTS: Mapping[str, Any] = {
    "records": [{"a": 1}],
    "instances": [{"a": 1.0}],
    "declaration": "streams: {}",
    "request": serving.InferRequest(inputs=[serving.InputTensor(name="a", shape=[1], datatype="FP64", data=[1])]),
    "time": "2013-01-01T00:00:00Z",
    "approved": True,
    "number": 1,
    "leaf": 1,
    "old": 1,
}


def calls_of(service: str) -> list[tuple[str, Call[Any]]]:
    """Each method's call, with what it needs; where a version may be named, with and without."""
    group, found = getattr(Client(), service), []
    for name, method in inspect.getmembers(type(group), lambda member: isinstance(member, operation)):
        parameters = list(inspect.signature(method.build).parameters.values())[1:]
        needed = {p.name: ARGUMENTS.get(p.name, "x") for p in parameters if p.default is p.empty}
        found.append((name, method.build(group, **needed)))
        if "version" in {p.name for p in parameters}:
            found.append((name, method.build(group, **needed, version="3")))
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_every_route_has_a_method_and_every_method_a_route(service: str) -> None:
    calls = calls_of(service)
    assert {call.route for _, call in calls} == set(ROUTES[service])
    assert {call.service for _, call in calls} == {service}
    named = {name: call.route.name.replace("-", "_") for name, call in calls}
    others = {name: route for name, route in named.items() if name != route}
    by_version = {"model_metadata": "version_metadata", "model_ready": "version_ready", "infer": "infer_version"}
    assert others == (by_version | {"predict_many": "predict"} if service == "serving" else {})


@pytest.mark.parametrize("service", SERVICES)
def test_every_method_says_what_it_does(service: str) -> None:
    for name, method in inspect.getmembers(
        type(getattr(Client(), service)), lambda member: isinstance(member, operation)
    ):
        assert method.__doc__ and method.__doc__.endswith("."), name
        shown = getattr(getattr(Client(), service), name)
        assert shown.__doc__ == method.__doc__
        assert "self" not in inspect.signature(shown).parameters


@pytest.mark.parametrize(
    ("service", "route"), [(s, r) for s in SERVICES for r in ROUTES[s]], ids=lambda x: getattr(x, "name", x)
)
def test_the_answer_of_every_route_is_read(service: str, route: Route[Any]) -> None:
    answer = example_of(service, route)["answer"]
    content = answer.encode() if route.answer is str else json.dumps(answer).encode()
    reads = [call.read for name, call in calls_of(service) if call.route is route and name != "predict_many"]
    assert reads
    for read in reads:
        found = read(content)
        assert found == answer if route.answer is str else json.loads(found.model_dump_json()) == answer


def test_the_document_names_every_call_of_the_client() -> None:
    text = (Path(evenkeel.__file__).parents[1] / "docs" / "client.md").read_text()
    named = dict(re.findall(r"^\| `client\.(\w+)` \| (.*) \|$", text, re.MULTILINE))
    shared = {name for name, found in vars(Operations).items() if isinstance(found, operation)}
    for service in SERVICES:
        group = type(getattr(Client(), service))
        calls = {name for name in dir(group) if isinstance(getattr(group, name), operation)} - shared
        assert set(re.findall(r"`(\w+)`", named[service])) == calls, service


def test_importing_the_package_alone_loads_nothing() -> None:
    code = "import evenkeel, sys; print([m for m in ('pydantic', 'httpx2', 'fastapi', 'numpy') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    root = Path(evenkeel.__file__).parents[1]
    assert subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'Clients'"):
        evenkeel.Clients  # noqa: B018


# -- a real service -------------------------------------------------------------------------------------------------------


def not_started(name: str, data_dir: Path) -> Any:
    """The application of a service that was not started: it says of everything but itself that it cannot yet."""
    service = service_named(name)
    runtime: Runtime[Any] = Runtime(
        service, Settings(data_dir=data_dir), service.settings(), KafkaBus("127.0.0.1:9", name)
    )
    return create_app(runtime)


@pytest.fixture
def client_token(tmp_path: Path) -> str:
    return write_token(tmp_path, "client")


@pytest.fixture
def served(tmp_path: Path, client_token: str) -> Iterator[str]:
    """The registry behind a socket, in another thread."""
    server = uvicorn.Server(uvicorn.Config(not_started("registry", tmp_path), port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=partial(asyncio.run, server.serve()))
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_a_call_is_made_and_answered(served: str) -> None:
    with Client({"registry": served}) as client:
        assert client.registry.live() == operations.Live(status="live", service="registry")
        assert client.registry.openapi().info["title"] == "Evenkeel registry"
        assert "evenkeel_outbox_rows" in client.registry.metrics()
        assert client.service("registry").live().service == "registry"


async def test_a_call_is_awaited_and_answered(tmp_path: Path) -> None:
    transport = httpx2.ASGITransport(app=not_started("registry", tmp_path))
    async with AsyncClient({"registry": "http://registry"}, transport=transport) as client:
        assert await client.registry.live() == operations.Live(status="live", service="registry")
        assert (await client.service("registry").live()).service == "registry"


def test_a_service_that_is_not_ready_answers_so_and_refuses_nothing(served: str) -> None:
    with Client({"registry": served}) as client:
        readiness = client.registry.ready()
    assert (readiness.status, readiness.service, bool(readiness.reason)) == ("not ready", "registry", True)


def test_a_refusal_says_what_was_wrong_where_and_what_to_do(served: str, client_token: str) -> None:
    with Client({"registry": served}) as client, pytest.raises(CallRefused) as nobody:
        client.registry.models()
    assert (nobody.value.status, nobody.value.title, nobody.value.field) == (401, "Unauthorized", "Authorization")
    assert str(nobody.value) == f"{nobody.value.detail} {nobody.value.fix}"
    with Client({"registry": served}, token=client_token) as client, pytest.raises(CallRefused, match="role scientist"):
        client.registry.models()


async def test_an_error_of_the_protocol_is_a_refusal_too(tmp_path: Path) -> None:
    transport = httpx2.ASGITransport(app=not_started("serving", tmp_path))
    async with AsyncClient({"serving": "http://serving"}, transport=transport) as client:
        with pytest.raises(CallRefused, match="needs a known bearer token") as refused:
            await client.serving.model_ready("m")
    assert refused.value.status == 401


def test_an_address_that_nobody_listens_at_is_named() -> None:
    with Client({"registry": "http://127.0.0.1:9"}, attempts=1) as client, pytest.raises(NoAnswer) as error:
        client.registry.live()
    assert str(error.value) == "registry was not reached at http://127.0.0.1:9 (ConnectError): is it running?"


# -- where and as whom ----------------------------------------------------------------------------------------------------


def test_services_are_looked_for_on_this_machine() -> None:
    client = Client({"monitor": "http://elsewhere/"})
    assert client.urls == {name: f"http://127.0.0.1:{port}" for name, port in DEFAULT_PORTS.items()} | {
        "monitor": "http://elsewhere/"
    }
    with pytest.raises(ValueError, match="urls names register: the services are ingest, feature"):
        Client({"register": "http://elsewhere"})
    with pytest.raises(ValueError, match="attempts is 0"):
        Client(attempts=0)


def test_a_data_folder_tells_addresses_and_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServiceError, match="there is no token: set EVENKEEL_TOKEN, or name the data folder"):
        Client.of_folder(tmp_path)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "token").write_text("made at the first start\n")
    lock = FolderLock(tmp_path / "supervisor.json")
    lock.acquire(json.dumps({"urls": {"ingest": "http://127.0.0.1:1", "registry": "http://127.0.0.1:2"}}))
    try:
        client = Client.of_folder(tmp_path, urls={"registry": "http://elsewhere"})
    finally:
        lock.release()
    assert (client.urls["ingest"], client.urls["registry"]) == ("http://127.0.0.1:1", "http://elsewhere")
    assert token_of(tmp_path) == "made at the first start"
    monkeypatch.setenv("EVENKEEL_TOKEN", "given")
    assert token_of(tmp_path) == "given"


def test_a_path_holds_any_text() -> None:
    call = calls_of("governance")[0][1]
    named = Call(call.service, call.route, call.read, dict.fromkeys(call.route.parameters, "a/b ?ü"))
    assert "a%2Fb%20%3F%C3%BC" in Call("governance", ROUTES["governance"][1], str, {"id": "a/b ?ü"}).target
    assert named.target.count("{") == 0
    for text in RECORD_IDS:
        target = Call("governance", ROUTES["governance"][1], str, {"id": text}).target
        sent = httpx2.URL(f"http://governance{target}").raw_path.decode()
        assert unquote(sent.removeprefix("/v1/trace/")) == text, "a client walks along . and .. if they are not escaped"


# -- again, or not ----------------------------------------------------------------------------------------------------------

ATTEMPTS = 4
REQUEST = httpx2.Request("GET", "http://service/v1")
READ = call_of("registry", registry.MODELS)
REPEATABLE = call_of("trainer", trainer.RESUME, body=trainer.LoopRequest(by="a", reason="b"), model="m")
ONCE = call_of("trainer", trainer.TRAIN, model="m")


def unavailable(_: int, **headers: str) -> httpx2.Response:
    content = {"title": "Unavailable", "status": 503, "detail": "Not now.", "fix": "Try again."}
    return httpx2.Response(503, json=content, headers=headers)


def refused(_: int) -> httpx2.Response:
    return httpx2.Response(409, json={"title": "Conflict", "status": 409, "detail": "No."})


def outcome_of(call: Call[Any], outcome: Callable[[int], Any]) -> tuple[int, list[float], ServiceError]:
    """How often a call is sent if this comes of it each time, the pauses between, and the error at last."""
    steps = exchange(call, ATTEMPTS)
    step, sent, pauses = next(steps), 0, []
    while True:
        try:
            if isinstance(step, Send):
                sent += 1
                step = steps.send(outcome(sent))
            else:
                pauses.append(step.seconds)
                step = steps.send(None)
        except ServiceError as error:
            return sent, pauses, error


@pytest.mark.parametrize(
    ("what", "outcome", "read", "repeatable", "once"),
    [
        ("nobody was reached", lambda n: httpx2.ConnectError("refused", request=REQUEST), ATTEMPTS, ATTEMPTS, ATTEMPTS),
        ("no way there", lambda n: httpx2.ConnectTimeout("late", request=REQUEST), ATTEMPTS, ATTEMPTS, ATTEMPTS),
        ("no answer in time", lambda n: httpx2.ReadTimeout("late", request=REQUEST), ATTEMPTS, ATTEMPTS, 1),
        ("it broke off", lambda n: httpx2.RemoteProtocolError("gone", request=REQUEST), ATTEMPTS, ATTEMPTS, 1),
        ("it cannot now", unavailable, ATTEMPTS, ATTEMPTS, 1),
        ("it refuses", refused, 1, 1, 1),
        ("it failed", lambda n: httpx2.Response(500, text="oops"), 1, 1, 1),
    ],
)
def test_what_may_have_happened_is_sent_again_only_if_that_changes_nothing(
    what: str, outcome: Callable[[int], Any], read: int, repeatable: int, once: int
) -> None:
    sent = [outcome_of(call, outcome)[0] for call in (READ, REPEATABLE, ONCE)]
    assert sent == [read, repeatable, once], what


def test_pauses_grow_and_are_the_services_where_it_names_one() -> None:
    _, pauses, error = outcome_of(READ, unavailable)
    assert [low <= pause <= 2 * low for pause, low in zip(pauses, (0.1, 0.2, 0.4), strict=True)] == [True] * 3
    assert (type(error), str(error)) == (CallRefused, "Not now. Try again.")
    assert outcome_of(READ, lambda n: unavailable(n, **{"retry-after": "1"}))[1] == [1.0] * 3
    assert outcome_of(READ, lambda n: unavailable(n, **{"retry-after": "3600"}))[1] == [5.0] * 3, "but not for ever"


def test_the_first_answer_counts() -> None:
    steps = exchange(READ, ATTEMPTS)
    assert isinstance(next(steps), Send)
    assert isinstance(steps.send(unavailable(1)), Wait)
    assert isinstance(steps.send(None), Send)
    with pytest.raises(StopIteration) as done:
        steps.send(httpx2.Response(200, json={"models": []}))
    assert done.value.value == registry.DeclaredModels(models=[])


def test_a_newer_service_is_read_and_one_that_says_less_is_not() -> None:
    def answer(content: Any) -> Any:
        steps = exchange(call_of("ingest", ingest.STREAMS), 1)
        next(steps)
        with pytest.raises(StopIteration) as done:
            steps.send(httpx2.Response(200, json=content))
        return done.value.value

    assert answer({"streams": [], "since": "tomorrow"}) == ingest.Streams(streams=[])
    with pytest.raises(NoAnswer, match=r"ingest answered GET /v1/streams in a form .*: streams: Field required"):
        answer({})


def test_a_refusal_that_is_no_problem_document_is_shown() -> None:
    def proxy(status: int, text: str) -> CallRefused:
        _, _, error = outcome_of(ONCE, lambda n: httpx2.Response(status, text=text))
        assert isinstance(error, CallRefused)
        return error

    assert (str(proxy(502, "<html>bad gateway")), proxy(502, "").status) == ("<html>bad gateway", 502)
    assert str(proxy(404, "")) == "HTTP status 404"


def test_a_problem_keeps_what_its_route_adds() -> None:
    call = call_of("ingest", ingest.SEND_EVENTS, stream="s")
    problem = {
        "title": "Records break the contract",
        "status": 422,
        "detail": "1 of 1 records",
        "errors": [{"index": 0, "id": "o-1", "rule": "range", "field": "x", "reason": "too much", "fix": "Send less."}],
    }
    _, _, error = outcome_of(call, lambda n: httpx2.Response(422, json=problem))
    assert isinstance(error, CallRefused) and isinstance(error.problem, ingest.BrokenRecords)
    assert [(fault.id, fault.fix) for fault in error.problem.errors] == [("o-1", "Send less.")]


def test_what_json_cannot_hold_is_not_sent() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        Client().serving.predict("m", features={"x": float("nan")})
