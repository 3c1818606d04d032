"""The HTTP contracts: every route is typed, described and shown by example, services answer exactly the rows, and an edit
that breaks callers is refused."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel, RootModel

from evenkeel.contracts.compatibility import breaking_calls
from evenkeel.contracts.export import refused_calls
from evenkeel.contracts.http import serving
from evenkeel.contracts.http.catalogue import ROUTES
from evenkeel.contracts.http.messages import Problem, ProtocolError, Query, Request
from evenkeel.contracts.http.openapi import EXAMPLES, document_of, document_path, example_of
from evenkeel.contracts.http.route import JSON, PATH_PARAMETERS, Content, Route
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.http.app import create_app
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.settings import Settings
from evenkeel.services.__main__ import service_named

CALLS = [(service, route) for service, routes in ROUTES.items() for route in routes]
BY_CALL = pytest.mark.parametrize(("service", "route"), CALLS, ids=[f"{s}-{r.name}" for s, r in CALLS])
BY_SERVICE = pytest.mark.parametrize("service", SERVICES)


def framework_routes(service: str, data_dir: Path) -> list[APIRoute]:
    """What the framework answers for a service."""
    declared = service_named(service)
    settings = Settings(data_dir=data_dir)
    runtime: Runtime[Any] = Runtime(declared, settings, declared.settings(), KafkaBus("127.0.0.1:9", service))
    app: Any = create_app(runtime)
    while not hasattr(app, "routes"):  # behind the limit of bodies and the hot paths
        app = app._app if hasattr(app, "_app") else app._inner
    return [route for route in app.routes if isinstance(route, APIRoute)]


def test_every_service_has_routes() -> None:
    assert set(ROUTES) == set(SERVICES)


@BY_SERVICE
def test_a_service_answers_exactly_its_rows(service: str, tmp_path: Path) -> None:
    answered = {(next(iter(route.methods)), route.path_format) for route in framework_routes(service, tmp_path)}
    rows = {(route.method, route.path) for route in ROUTES[service] if route not in serving.HOT}
    assert answered == rows


@BY_SERVICE
def test_what_a_row_says_is_what_is_read(service: str, tmp_path: Path) -> None:
    """Path variables, query and body as the framework reads them are those of the row."""
    rows = {(route.method, route.path): route for route in ROUTES[service]}
    for answered in framework_routes(service, tmp_path):
        row = rows[next(iter(answered.methods)), answered.path_format]
        path = {field.name: field.field_info.annotation for field in answered.dependant.path_params}
        assert set(path) == set(row.parameters), row.name
        for name in row.parameters:
            assert path[name] is (int if PATH_PARAMETERS[name].type == "integer" else str), (row.name, name)
        query = [field.field_info.annotation for field in answered.dependant.query_params]
        assert query == ([] if row.query is None else [row.query]), row.name
        body = None if answered.body_field is None else answered.body_field.field_info.annotation
        assert body == (None if isinstance(row.body, Content) else row.body), row.name


@BY_CALL
def test_a_route_is_named_described_and_typed(service: str, route: Route[Any]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", route.name)
    assert route.summary[0].isupper() and route.summary[-1] not in ".:" and len(route.summary) <= 60
    assert not route.description[0].islower() and route.description.endswith(".")
    assert set(route.parameters) <= set(PATH_PARAMETERS)
    assert route.answer is str or issubclass(route.answer, BaseModel)
    assert route.method == "POST" or (route.body is None and not route.is_repeatable)
    assert isinstance(route.body, Content) or route.body is None or issubclass(route.body, Request)
    assert route.query is None or issubclass(route.query, Query)
    assert issubclass(route.refusal, Problem | ProtocolError)


@BY_SERVICE
def test_names_and_places_of_routes_are_their_own(service: str) -> None:
    routes = ROUTES[service]
    assert len({route.name for route in routes}) == len(routes)
    assert len({(route.method, route.path) for route in routes}) == len(routes)


def models_of(schema: Any, found: dict[type[BaseModel], None]) -> dict[type[BaseModel], None]:
    """A model with every model that it holds."""
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        if schema not in found:
            found[schema] = None
            for field in schema.model_fields.values():
                models_of(field.annotation, found)
    else:
        for argument in getattr(schema, "__args__", ()):
            models_of(argument, found)
    return found


def all_models() -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {}
    for _, route in CALLS:
        bodies = route.body.by_media_type.values() if isinstance(route.body, Content) else (route.body,)
        for part in (route.answer, route.query, route.refusal, *route.answers.values(), *bodies):
            models_of(part, found)
    mine = [model for model in found if model.__module__.startswith("evenkeel.contracts.http")]
    return [model for model in mine if not issubclass(model, RootModel)]


@pytest.mark.parametrize(
    "model", all_models(), ids=lambda model: f"{model.__module__.rsplit('.', 1)[1]}-{model.__name__}"
)
def test_a_model_says_what_it_and_each_of_its_fields_is(model: type[BaseModel]) -> None:
    assert (model.__doc__ or "").strip() or issubclass(model, Query), model
    inherited = {name for base in model.__bases__ if issubclass(base, Payload) for name in base.model_fields}
    schema = model.model_json_schema(mode="serialization")
    described = schema.get("properties", {})
    silent = [
        name
        for name, field in model.model_fields.items()
        if name not in inherited and not _is_described(described[field.alias or name], schema)
    ]
    assert silent == []


def _is_described(part: dict[str, Any], schema: dict[str, Any]) -> bool:
    if "$ref" in part:
        part = schema["$defs"][part["$ref"].rsplit("/", 1)[1]] | part
    return bool(part.get("description"))


@BY_SERVICE
def test_a_time_is_a_date_and_not_a_number(service: str) -> None:
    """No column of a table shows: its names end in a unit, an answer's are the field's words."""
    for name, schema in document_of(service, ROUTES[service])["components"]["schemas"].items():
        leaks = [field for field in schema.get("properties", {}) if re.search(r"_(us|ms)$", field)]
        assert leaks == [], name


@BY_CALL
def test_an_example_is_a_call_and_its_answer(service: str, route: Route[Any]) -> None:
    """It reads back as the models write it, and fits the published document."""
    example = example_of(service, route)
    assert set(example) == ({"answer"} if route.body is None else {"answer", "body"})
    document = json.loads(document_path(service).read_text())
    operation = document["paths"][route.path][route.method.lower()]
    if route.answer is str:
        assert isinstance(example["answer"], str)
    else:
        read = route.answer.model_validate(example["answer"])
        assert json.loads(read.model_dump_json()) == example["answer"]
        fits(example["answer"], operation["responses"][str(route.status)], document)
    if route.body is not None:
        if isinstance(route.body, type):
            route.body.model_validate(example["body"])
        fits(example["body"], operation["requestBody"], document)


def fits(value: Any, part: dict[str, Any], document: dict[str, Any]) -> None:
    schema = {**part["content"][JSON]["schema"], "components": document["components"]}
    jsonschema_rs.validator_for(schema).validate(value)


def test_there_is_no_example_of_nothing() -> None:
    known = {f"{service}/{route.name}.json" for service, route in CALLS} | {
        f"operations/{route.name}.json" for _, route in CALLS
    }
    assert {str(path.relative_to(EXAMPLES)) for path in EXAMPLES.rglob("*.json")} <= known


# -- compatibility --------------------------------------------------------------------------------------------------------


@BY_SERVICE
def test_no_edit_breaks_what_is_published(service: str) -> None:
    assert refused_calls(service) == []


def edited(change: Any) -> list[str]:
    old = json.loads(document_path("registry").read_text())
    new = copy.deepcopy(old)
    change(Edit(new))
    return breaking_calls(old, new)


class Edit:
    """The parts of registry's document that the edits are about."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.paths = document["paths"]
        self.schemas = document["components"]["schemas"]
        self.rollback = self.paths["/v1/models/{model}/rollback"]["post"]
        self.apply = self.paths["/v1/declarations"]["post"]
        self.request = self.schemas["RollbackRequest"]
        self.answer = self.schemas["RollbackResult"]


TEXT = {"type": "string"}
BREAKING = {
    "a route gone": lambda e: e.paths.pop("/v1/streams"),
    "a method gone": lambda e: e.paths["/v1/models/{model}/approvals"].pop("get"),
    "another role": lambda e: e.rollback.update({"x-evenkeel-role": "operator"}),
    "another status": lambda e: e.rollback["responses"].update({"202": e.rollback["responses"].pop("200")}),
    "another media type of the answer": lambda e: e.rollback["responses"]["200"].update(
        content={"text/plain": {"schema": TEXT}}
    ),
    "a media type of the body gone": lambda e: e.apply["requestBody"]["content"].pop("application/yaml"),
    "no body any more": lambda e: e.rollback.pop("requestBody"),
    "a required field of a request": lambda e: (
        e.request["properties"].update(x=TEXT),
        e.request.update(required=["x"]),
    ),
    "a field of a request gone": lambda e: e.request["properties"].pop("reason"),
    "a field of a request narrowed": lambda e: e.request["properties"]["reason"].update(maxLength=10),
    "a field of a request retyped": lambda e: e.request["properties"].update(reason={"type": "integer"}),
    "a required field of an answer": lambda e: (
        e.answer["properties"].update(x=TEXT),
        e.answer["required"].append("x"),
    ),
    "a field of an answer gone": lambda e: (
        e.answer["properties"].pop("version"),
        e.answer["required"].remove("version"),
    ),
    "an optional field of an answer gone": lambda e: e.answer["properties"].pop("reason"),
    "a field of an answer retyped": lambda e: e.answer["properties"].update(version=TEXT),
    "a field of an answer that may be null now": lambda e: e.answer["properties"].update(
        version={"anyOf": [e.answer["properties"]["version"], {"type": "null"}]}
    ),
    "a parameter gone": lambda e: e.apply.update(parameters=e.apply["parameters"][1:]),
    "a parameter retyped": lambda e: e.apply["parameters"][0].update(schema={"type": "integer"}),
    "a required parameter": lambda e: e.apply["parameters"].append(
        {"name": "x", "in": "query", "required": True, "schema": TEXT}
    ),
    "a parameter that must be given now": lambda e: e.apply["parameters"][0].update(required=True),
}
COMPATIBLE = {
    "a new route": lambda e: e.paths.update({"/v1/new": {"get": e.rollback}}),
    "an optional field of a request": lambda e: e.request["properties"].update(x=TEXT),
    "a field of a request widened": lambda e: e.request["properties"]["reason"].update(maxLength=5000),
    "an optional field of an answer": lambda e: e.answer["properties"].update(x=TEXT),
    "an optional parameter": lambda e: e.apply["parameters"].append(
        {"name": "x", "in": "query", "required": False, "schema": TEXT}
    ),
    "another refusal": lambda e: e.rollback["responses"].update({"410": e.rollback["responses"]["409"]}),
    "other words": lambda e: (e.rollback.update(summary="Other"), e.answer.update(description="words.")),
    "another media type of the body": lambda e: e.apply["requestBody"]["content"].update(
        {"text/plain": {"schema": TEXT}}
    ),
}


@pytest.mark.parametrize("name", BREAKING)
def test_an_edit_that_breaks_callers_is_refused(name: str) -> None:
    assert edited(BREAKING[name])


@pytest.mark.parametrize("name", COMPATIBLE)
def test_an_edit_that_callers_need_not_notice_is_taken(name: str) -> None:
    assert edited(COMPATIBLE[name]) == []


def test_what_one_of_must_be_sent_is_compared_whole() -> None:
    """A request of which exactly one part must be there keeps its other rules."""

    def request(**more: Any) -> dict[str, Any]:
        properties: dict[str, Any] = {"a": TEXT, "b": TEXT} | more
        parts = [{"required": [name]} for name in ("a", "b")]
        schema = {"type": "object", "additionalProperties": False, "properties": properties, "oneOf": parts}
        body = {"content": {JSON: {"schema": schema}}}
        return {"paths": {"/x": {"post": {"requestBody": body, "responses": {}}}}, "components": {"schemas": {}}}

    assert breaking_calls(request(c=TEXT), request()) != []
    assert breaking_calls(request(), request(c=TEXT)) == []


def _walk(node: Any) -> Iterator[Any]:
    yield node
    for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _walk(part)


@BY_SERVICE
def test_every_reference_of_a_document_leads_somewhere(service: str) -> None:
    document = json.loads(document_path(service).read_text())
    references = {
        node["$ref"] for node in _walk(document) if isinstance(node, dict) and isinstance(node.get("$ref"), str)
    }
    assert references == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
