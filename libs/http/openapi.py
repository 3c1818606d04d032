"""The OpenAPI document of a service: for each call its role and every answer that it can give."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from evenkeel.libs.http.problems import PROBLEM, refusal
from evenkeel.libs.http.roles import ROLE_KEY
from evenkeel.libs.runtime.runtime import Runtime


def describe(app: FastAPI, runtime: Runtime[Any]) -> dict[str, Any]:
    """The OpenAPI document: FastAPI's, with the refusals that are the same everywhere, and what answers in front of it."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = PROBLEM
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            add_refusals(path, operation)
    runtime.service.describe(document)
    return document


def add_refusals(path: str, operation: dict[str, Any]) -> None:
    """The answers that follow from an operation's role and form."""
    answers = operation["responses"]
    if operation[ROLE_KEY] != "public":
        operation["security"] = [{"token": []}]
        answers |= {str(status): refusal(status) for status in (401, 403, 503)}
    if "{" in path:
        answers.setdefault("404", refusal(404))
    if "parameters" in operation or "requestBody" in operation:
        answers["422"] = refusal(422)
    if "requestBody" in operation:
        answers |= {"400": refusal(400), "413": refusal(413)}
