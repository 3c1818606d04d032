"""How large a body may be."""

from __future__ import annotations

from typing import Final

import fastapi
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 1_048_576


class LimitBody:
    """Refuses bodies over the limit before they are read whole."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                # The framework's own class: any other becomes its "error parsing the body".
                raise fastapi.HTTPException(413, f"The body is larger than {self._max_bytes} bytes.")
            return message

        await self._app(scope, limited, send)
