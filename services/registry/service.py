"""The declaration of the registry service."""

from __future__ import annotations

from libs.service import Service
from libs.store.sql import SqlStore
from services.registry import api
from services.registry.context import RegistryContext
from services.registry.handlers import HANDLERS
from services.registry.rebuild import REBUILD
from services.registry.settings import RegistrySettings
from services.registry.store import MIGRATIONS

service: Service[RegistryContext] = Service(
    name="registry",
    settings=RegistrySettings,
    open_store=lambda settings: SqlStore(settings.database("registry"), "registry", MIGRATIONS),
    context=lambda settings, own: RegistryContext(settings),
    handlers=HANDLERS,
    routers=api.routers,
    rebuild=REBUILD,
)
