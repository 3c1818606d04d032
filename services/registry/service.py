"""The declaration of the registry service."""

from __future__ import annotations

from evenkeel.libs.service import Service
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.registry import api
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.handlers import HANDLERS
from evenkeel.services.registry.rebuild import REBUILD
from evenkeel.services.registry.settings import RegistrySettings
from evenkeel.services.registry.store import MIGRATIONS

service: Service[RegistryContext] = Service(
    name="registry",
    settings=RegistrySettings,
    open_store=lambda settings: SqlStore(settings.database("registry"), "registry", MIGRATIONS),
    context=lambda settings, own: RegistryContext(settings),
    handlers=HANDLERS,
    routes=api.routes,
    rebuild=REBUILD,
)
