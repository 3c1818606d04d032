"""The declaration of the feature service."""

from __future__ import annotations

from evenkeel.libs.bus.protocol import STREAMING
from evenkeel.libs.service import Service
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.feature.api import routes
from evenkeel.services.feature.background import write_datasets
from evenkeel.services.feature.context import FeatureContext
from evenkeel.services.feature.handlers import HANDLERS, on_tick
from evenkeel.services.feature.metrics import FeatureMetrics
from evenkeel.services.feature.rebuild import REBUILD
from evenkeel.services.feature.settings import FeatureSettings
from evenkeel.services.feature.store import MIGRATIONS

service = Service(
    name="feature",
    settings=FeatureSettings,
    open_store=lambda settings: SqlStore(settings.database("feature"), "feature", MIGRATIONS),
    context=lambda settings, own: FeatureContext(),
    handlers=HANDLERS,
    metrics=FeatureMetrics,
    routes=routes,
    on_tick=on_tick,
    background=(write_datasets,),
    rebuild=REBUILD,
    fetch=STREAMING,
)
