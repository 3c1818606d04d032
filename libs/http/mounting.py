"""Puts routes into the framework: behind the door, with arguments that every store can keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final

from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from evenkeel.contracts.http.route import JSON, PATH_PARAMETERS, Route
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.caller import asks_for
from evenkeel.libs.json_text import holds_nul
from evenkeel.libs.routes import Other, Routes, Written

MAX_ARGUMENT_CHARACTERS: Final = 2_048


def mount(app: FastAPI, routes: Routes) -> None:
    """Let the application answer these routes. A row says its role, so that none can be without."""
    for route, function in routes.functions.items():
        door = [] if route.role == "public" else [Depends(asks_for(route.role))]
        app.add_api_route(
            _template(route),
            _endpoint(route, function),
            methods=[route.method],
            name=route.name,
            response_model=None,
            dependencies=[*door, Depends(_check_arguments)],
        )


def _template(route: Route[Any]) -> str:
    """The path in the framework's words."""
    path = route.path
    for name in route.parameters:
        if PATH_PARAMETERS[name].has_slashes:
            path = path.replace(f"{{{name}}}", f"{{{name}:path}}")
    return path


def _endpoint(route: Route[Any], function: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    @wraps(function)
    async def endpoint(**arguments: Any) -> Response:
        return _response(route, await function(**arguments))

    return endpoint


def _response(route: Route[Any], answer: BaseModel | Other | Written | str) -> Response:
    """Answers are models that were checked when they were made: they are only written."""
    match answer:
        case Other(status, body):
            return Response(body.model_dump_json(), status, media_type=JSON)
        case Written(content, media_type):
            return Response(content, route.status, media_type=media_type)
        case BaseModel():
            return Response(answer.model_dump_json(), route.status, media_type=JSON)
        case _:
            return PlainTextResponse(answer, route.status)


async def _check_arguments(request: Request) -> None:
    """No store keeps U+0000, and nothing that is looked up is longer than this."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if "\x00" in str(value) or len(str(value)) > MAX_ARGUMENT_CHARACTERS:
            detail = f"{name} holds U+0000 or is longer than {MAX_ARGUMENT_CHARACTERS} characters."
            raise Refused(422, "Invalid request", detail, field=name, fix="Send it as it was declared or answered.")
    for name, value in request.path_params.items():
        pattern = PATH_PARAMETERS[name].pattern
        if pattern is not None and not re.fullmatch(pattern, str(value)):
            detail = f"There is no {name} {str(value)!a}: no {name} can be called that."
            raise Refused(404, f"Unknown {name}", detail, field=name, fix=f"Names of {name}s look like {pattern}.")
    if request.scope["route"].body_field is not None:
        body = await request.body()
        if holds_nul(body):
            raise Refused(422, "Invalid request", "A text of the body holds U+0000.", field="body", fix="Leave it out.")
