"""The OpenAPI 3.1 document of a service's routes: what `evenkeel.contracts.export` writes, and what the service serves.

The refusals that follow from the form of a call are said here once, because one door makes them (`evenkeel.libs.http`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from evenkeel.contracts.http.messages import Problem
from evenkeel.contracts.http.route import JSON, PATH_PARAMETERS, PROBLEM_JSON, Content, Parameter, Route

EXAMPLES: Final = Path(__file__).parent / "examples"
DOCUMENTS: Final = Path(__file__).parents[1] / "openapi"
ROLE_KEY: Final = "x-evenkeel-role"
_TEXT: Final = "text/plain"

Json = dict[str, Any]
_Wanted = tuple[type[BaseModel], JsonSchemaMode]


def document_of(service: str, routes: Sequence[Route[Any]]) -> Json:
    """The OpenAPI document of a service that answers these routes."""
    wanted = list(dict.fromkeys(model for route in routes for model in _models(route)))
    references, definitions = models_json_schema(
        wanted, ref_template="#/components/schemas/{model}", schema_generator=_Schemas
    )
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(service, route, references)
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Evenkeel {service}", "version": "1.0.0", "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def document_path(service: str) -> Path:
    """Where `evenkeel.contracts.export` has written the document."""
    return DOCUMENTS / f"{service}.json"


def example_of(service: str, route: Route[Any]) -> Json:
    """An example of a call: `body`, if it takes one, and `answer`."""
    own = EXAMPLES / service / f"{route.name}.json"
    shared = EXAMPLES / "operations" / f"{route.name}.json"
    found: Json = json.loads((own if own.exists() else shared).read_text())
    return found


class _Schemas(GenerateJsonSchema):
    """Without `"default": null`, which says nothing."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", ...) is None:
            del found["default"]
        return found


def refusals_of(route: Route[Any]) -> set[int]:
    """The statuses with which the door refuses calls of this form."""
    found: set[int] = set()
    if route.role != "public":
        found |= {401, 403, 503}
    if route.parameters:
        found |= {404, 422}
    if route.query is not None:
        found.add(422)
    if route.body is not None:
        found |= {400, 413, 422}
    return found


def _models(route: Route[Any]) -> list[_Wanted]:
    """The models of a route, as they are written or read."""
    found: list[_Wanted] = [(model, "serialization") for model in (route.refusal, *route.answers.values())]
    if issubclass(route.answer, BaseModel):
        found.append((route.answer, "serialization"))
    bodies = route.body.by_media_type.values() if isinstance(route.body, Content) else (route.body,)
    found += [(body, "validation") for body in bodies if isinstance(body, type)]
    return found


def _operation(service: str, route: Route[Any], references: Mapping[Any, Json]) -> Json:
    example = example_of(service, route)
    parameters = [_parameter(name, "path", PATH_PARAMETERS[name]) for name in route.parameters]
    parameters += _query(route)
    parameters += [_parameter(name, "header", parameter) for name, parameter in route.headers.items()]
    operation: Json = {
        "operationId": route.name,
        "summary": route.summary,
        "description": route.description,
        ROLE_KEY: route.role,
    }
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _body(route.body, example, references)}
    operation["responses"] = _responses(route, example["answer"], references)
    if route.role != "public":
        operation["security"] = [{"token": []}]
    return operation


def _parameter(name: str, where: str, parameter: Parameter) -> Json:
    example: str | int = int(parameter.example) if parameter.type == "integer" else parameter.example
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": parameter.description,
        "schema": {"type": parameter.type} | ({} if parameter.pattern is None else {"pattern": parameter.pattern}),
        "example": example,
    }


def _query(route: Route[Any]) -> list[Json]:
    if route.query is None:
        return []
    schema = route.query.model_json_schema(schema_generator=_Schemas)
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": found.pop("description"),
            "schema": _without_null(found),
        }
        for name, found in schema["properties"].items()
    ]


def _without_null(schema: Json) -> Json:
    """A parameter is given or not; it cannot be null."""
    options = schema.pop("anyOf", [])
    (option,) = [option for option in options if option != {"type": "null"}] or [{}]
    return {**option, **schema}


def _body(body: type[BaseModel] | Content, example: Json, references: Mapping[Any, Json]) -> Json:
    by_media_type = body.by_media_type if isinstance(body, Content) else {JSON: body}
    content: Json = {}
    for media_type, found in by_media_type.items():
        content[media_type] = {"schema": references[found, "validation"] if isinstance(found, type) else found}
        if media_type == JSON:
            content[media_type]["example"] = example["body"]
    return content


def _responses(route: Route[Any], example: Any, references: Mapping[Any, Json]) -> Json:
    media_type = JSON if issubclass(route.answer, BaseModel) else _TEXT
    schema = references[route.answer, "serialization"] if media_type == JSON else {"type": "string"}
    content: Json = {media_type: {"schema": schema, "example": example}}
    content |= {other: {"schema": found} for other, found in route.also_as.items()}
    others = dict.fromkeys(sorted(refusals_of(route)), route.refusal) | dict(route.answers)
    return {str(route.status): {"description": _first_line(route), "content": content}} | {
        str(status): _other(status, others[status], references) for status in sorted(others)
    }


def _first_line(route: Route[Any]) -> str:
    return (route.answer.__doc__ or "").strip().splitlines()[0] if issubclass(route.answer, BaseModel) else "Text."


def _other(status: int, model: type[BaseModel], references: Mapping[Any, Json]) -> Json:
    media_type = PROBLEM_JSON if issubclass(model, Problem) else JSON
    return {
        "description": HTTPStatus(status).phrase,
        "content": {media_type: {"schema": references[model, "serialization"]}},
    }
