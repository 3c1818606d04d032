"""Who may call a route: it declares a role, and a caller needs a token that has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from fastapi import Request

from evenkeel.libs.errors import Refused
from evenkeel.libs.http.problems import refusal
from evenkeel.libs.http.tokens import Role

ROLE_KEY: Final = "x-evenkeel-role"
"""Under which an operation of the OpenAPI document says its role."""


def role(
    name: Role | Literal["public"], *refusals: int, body: Mapping[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """What a route passes on to say who may call it: `@router.get("/x", **role("auditor"))`.

    `refusals` are statuses that it answers beside the ones that follow from its form; `body` is the JSON Schema of the body
    by media type, where the route reads it itself.
    """
    extra: dict[str, Any] = {ROLE_KEY: name}
    if body is not None:
        content = {media_type: {"schema": schema} for media_type, schema in body.items()}
        extra["requestBody"] = {"required": True, "content": content}
    refused: dict[int | str, dict[str, Any]] = {status: refusal(status) for status in refusals}
    return {"openapi_extra": extra, "responses": refused}


async def authorize(request: Request) -> None:
    """Refuses callers without the route's role: 401 without a known token, 403 if it has other roles."""
    wanted = request.scope["route"].openapi_extra[ROLE_KEY]
    if wanted == "public":
        return
    header = request.headers.get("authorization", "").encode()
    roles = request.app.state.tokens.roles_of(header)
    if not roles:
        raise Refused(
            401,
            "Unauthorized",
            "This call needs a known bearer token.",
            field="Authorization",
            fix="Send `Authorization: Bearer <token>`.",
        )
    if wanted not in roles:
        raise Refused(
            403,
            "Forbidden",
            f"This call needs the role {wanted}.",
            field="Authorization",
            fix="Use a token that has it.",
        )
