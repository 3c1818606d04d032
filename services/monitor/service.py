"""The declaration of the monitor service."""

from __future__ import annotations

from evenkeel.libs.bus.protocol import LEISURELY
from evenkeel.libs.service import Service
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.monitor.api import routes
from evenkeel.services.monitor.context import MonitorContext
from evenkeel.services.monitor.handlers import HANDLERS
from evenkeel.services.monitor.rebuild import REBUILD
from evenkeel.services.monitor.settings import MonitorSettings
from evenkeel.services.monitor.store import MIGRATIONS

service = Service(
    name="monitor",
    settings=MonitorSettings,
    open_store=lambda settings: SqlStore(settings.database("monitor"), "monitor", MIGRATIONS),
    context=lambda settings, own: MonitorContext(),
    handlers=HANDLERS,
    routes=routes,
    rebuild=REBUILD,
    fetch=LEISURELY,
)
