"""Who calls: the door asks for a token that has the route's role, and tells commands whose it is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request

from evenkeel.contracts.http.route import Role
from evenkeel.contracts.payload import Caller


def asks_for(role: Role) -> Callable[[Request], Awaitable[None]]:
    """A dependency that refuses callers without the role: 401 without a known token, 403 if it has other roles."""

    async def door(request: Request) -> None:
        header = request.headers.get("authorization", "").encode()
        holder = request.app.state.tokens.require(header, role)
        request.state.caller = Caller(name=holder.name, role=role)

    return door


async def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


CalledBy = Annotated[Caller, Depends(_caller)]
"""A parameter of this type gets the caller, as the door knows him."""
