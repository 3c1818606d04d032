"""The declaration of the monitor service."""

from __future__ import annotations

from libs.bus.protocol import LEISURELY
from libs.service import Rebuild, Service
from libs.store.sql import SqlStore
from services.monitor.api import routers
from services.monitor.context import MonitorContext
from services.monitor.handlers import HANDLERS
from services.monitor.settings import MonitorSettings
from services.monitor.store import MIGRATIONS

service = Service(
    name="monitor",
    settings=MonitorSettings,
    open_store=lambda settings: SqlStore(settings.database("monitor"), "monitor", MIGRATIONS),
    context=lambda settings, own: MonitorContext(),
    handlers=HANDLERS,
    routers=routers,
    rebuild=Rebuild(),
    fetch=LEISURELY,
)
