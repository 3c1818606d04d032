"""The declaration of the serving service."""

from __future__ import annotations

from evenkeel.libs.bus.protocol import STREAMING
from evenkeel.libs.service import Service
from evenkeel.libs.settings import Settings
from evenkeel.libs.store.lmdb import LmdbStore
from evenkeel.services.serving.api import routes
from evenkeel.services.serving.asgi import HotPath
from evenkeel.services.serving.background import keep_champions
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.handlers import HANDLERS, on_tick
from evenkeel.services.serving.rebuild import REBUILD
from evenkeel.services.serving.settings import ServingSettings
from evenkeel.services.serving.store import DATABASES


def open_store(settings: Settings) -> LmdbStore:
    return LmdbStore(settings.data_dir / "serving.lmdb", DATABASES, ServingSettings().store_bytes)


service = Service(
    name="serving",
    settings=ServingSettings,
    open_store=open_store,
    context=lambda settings, own: ServingContext(),
    handlers=HANDLERS,
    metrics=lambda ctx: ctx.metrics,
    routes=routes,
    on_tick=on_tick,
    background=(keep_champions,),
    one_store=False,
    rebuild=REBUILD,
    asgi=HotPath,
    fetch=STREAMING,
)
