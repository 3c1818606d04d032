"""The declaration of the governance service."""

from __future__ import annotations

from evenkeel.libs.bus.protocol import FetchSettings
from evenkeel.libs.service import Service
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.governance.api import routes
from evenkeel.services.governance.background import sign_at_the_end
from evenkeel.services.governance.context import GovernanceContext
from evenkeel.services.governance.handlers import HANDLERS, on_tick
from evenkeel.services.governance.metrics import GovernanceMetrics
from evenkeel.services.governance.rebuild import REBUILD
from evenkeel.services.governance.settings import GovernanceSettings
from evenkeel.services.governance.store import MIGRATIONS

service: Service[GovernanceContext] = Service(
    name="governance",
    settings=GovernanceSettings,
    open_store=lambda settings: SqlStore(settings.database("governance"), "governance", MIGRATIONS),
    context=lambda settings, own: GovernanceContext(),
    handlers=HANDLERS,
    metrics=GovernanceMetrics,
    routes=routes,
    on_tick=on_tick,
    background=(sign_at_the_end,),
    rebuild=REBUILD,
    fetch=FetchSettings(min_bytes=1_048_576, max_wait_ms=400),
)
