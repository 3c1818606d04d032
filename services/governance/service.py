"""The declaration of the governance service."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final

from libs.bus.protocol import FetchSettings
from libs.errors import EvenkeelError
from libs.runtime.runtime import Runtime
from libs.service import Reply, Service
from libs.store.sql import SqlStore
from services.governance import api
from services.governance.context import GovernanceContext
from services.governance.handlers import HANDLERS, on_tick, sign
from services.governance.rebuild import REBUILD
from services.governance.settings import GovernanceSettings
from services.governance.store import MIGRATIONS

_LAST_WORD_SECONDS: Final = 2.0


async def sign_at_the_end(runtime: Runtime[Any]) -> None:
    """Sign once more when the service stops, so that what was logged is not left unsigned until the next start."""
    try:
        await asyncio.Event().wait()
    finally:
        with suppress(EvenkeelError, TimeoutError):
            async with asyncio.timeout(_LAST_WORD_SECONDS):
                await runtime.command(lambda ctx: Reply(None, tuple(sign(ctx))), "tick")


service: Service[GovernanceContext] = Service(
    name="governance",
    settings=GovernanceSettings,
    open_store=lambda settings: SqlStore(settings.database("governance"), "governance", MIGRATIONS),
    context=lambda settings, own: GovernanceContext(),
    handlers=HANDLERS,
    routers=api.routers,
    on_tick=on_tick,
    background=(sign_at_the_end,),
    rebuild=REBUILD,
    fetch=FetchSettings(min_bytes=1_048_576, max_wait_ms=400),
)
