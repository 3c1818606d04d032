"""Routers that refuse by default: each route must declare a role, and no argument may be what no store can keep."""

from __future__ import annotations

import re
from typing import Final

from fastapi import APIRouter, Depends, Request

from evenkeel.libs.errors import Refused
from evenkeel.libs.http.roles import authorize

MAX_ARGUMENT_CHARACTERS: Final = 2_048
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search


def router(prefix: str = "") -> APIRouter:
    """A router whose routes must each declare a role."""
    return APIRouter(prefix=prefix, dependencies=[Depends(authorize), Depends(_check_arguments)])


async def _check_arguments(request: Request) -> None:
    """No store keeps U+0000, and nothing that is looked up is longer than this."""
    for name, value in (*request.path_params.items(), *request.query_params.multi_items()):
        if "\x00" in str(value) or len(str(value)) > MAX_ARGUMENT_CHARACTERS:
            detail = f"{name} holds U+0000 or is longer than {MAX_ARGUMENT_CHARACTERS} characters."
            raise Refused(422, "Invalid request", detail, field=name, fix="Send it as it was declared or answered.")
    if request.scope["route"].body_field is not None:
        body = await request.body()
        if b"\\u0000" in body and _NUL(body):
            raise Refused(422, "Invalid request", "A text of the body holds U+0000.", field="body", fix="Leave it out.")
