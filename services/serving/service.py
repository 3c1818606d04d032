"""The declaration of the serving service."""

from __future__ import annotations

from libs.bus.protocol import STREAMING
from libs.service import Service
from libs.settings import Settings
from libs.store.lmdb import LmdbStore
from services.serving.activation import keep_champions
from services.serving.api import routers
from services.serving.asgi import HotPath, describe
from services.serving.context import ServingContext
from services.serving.handlers import HANDLERS, REBUILD, on_tick
from services.serving.settings import ServingSettings
from services.serving.store import DATABASES


def open_store(settings: Settings) -> LmdbStore:
    return LmdbStore(settings.data_dir / "serving.lmdb", DATABASES, ServingSettings().store_bytes)


service = Service(
    name="serving",
    settings=ServingSettings,
    open_store=open_store,
    context=lambda settings, own: ServingContext(),
    handlers=HANDLERS,
    routers=routers,
    on_tick=on_tick,
    background=(keep_champions,),
    one_store=False,
    rebuild=REBUILD,
    asgi=HotPath,
    describe=describe,
    fetch=STREAMING,
)
