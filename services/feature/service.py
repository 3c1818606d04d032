"""The declaration of the feature service."""

from __future__ import annotations

from libs.bus.protocol import STREAMING
from libs.service import Service
from libs.store.sql import SqlStore
from services.feature.api import routers
from services.feature.context import FeatureContext
from services.feature.datasets import write_datasets
from services.feature.handlers import HANDLERS, REBUILD, on_tick
from services.feature.settings import FeatureSettings
from services.feature.store import MIGRATIONS

service = Service(
    name="feature",
    settings=FeatureSettings,
    open_store=lambda settings: SqlStore(settings.database("feature"), "feature", MIGRATIONS),
    context=lambda settings, own: FeatureContext(),
    handlers=HANDLERS,
    routers=routers,
    on_tick=on_tick,
    background=(write_datasets,),
    rebuild=REBUILD,
    fetch=STREAMING,
)
