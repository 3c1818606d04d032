"""What governance does beside its batches: the last signature."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any, Final

from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.service import Host
from evenkeel.services.governance.commands import SignNow, on_sign_now

LAST_SIGNATURE_SECONDS: Final = 2.0
"""How long a service that stops waits for it; what it misses is signed after the next start."""


async def sign_at_the_end(runtime: Host[Any]) -> None:
    """Sign once more when the service stops, so that what was logged is not left unsigned until the next start."""
    try:
        await asyncio.Event().wait()
    finally:
        with suppress(EvenkeelError, TimeoutError):
            async with asyncio.timeout(LAST_SIGNATURE_SECONDS):
                await runtime.command(partial(on_sign_now, SignNow()), "tick")
