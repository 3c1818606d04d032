"""The declaration of the governance service."""

from __future__ import annotations

from libs.bus.protocol import FetchSettings
from libs.service import Service
from libs.store.sql import SqlStore
from services.governance.api import routers
from services.governance.background import sign_at_the_end
from services.governance.context import GovernanceContext
from services.governance.handlers import HANDLERS, on_tick
from services.governance.rebuild import REBUILD
from services.governance.settings import GovernanceSettings
from services.governance.store import MIGRATIONS

service: Service[GovernanceContext] = Service(
    name="governance",
    settings=GovernanceSettings,
    open_store=lambda settings: SqlStore(settings.database("governance"), "governance", MIGRATIONS),
    context=lambda settings, own: GovernanceContext(),
    handlers=HANDLERS,
    routers=routers,
    on_tick=on_tick,
    background=(sign_at_the_end,),
    rebuild=REBUILD,
    fetch=FetchSettings(min_bytes=1_048_576, max_wait_ms=400),
)
