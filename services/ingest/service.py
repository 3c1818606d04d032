"""The declaration of the ingest service."""

from __future__ import annotations

from evenkeel.libs.bus.protocol import STREAMING
from evenkeel.libs.service import Service
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.ingest import api
from evenkeel.services.ingest.background import watch_silence
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.handlers import HANDLERS
from evenkeel.services.ingest.metrics import IngestMetrics
from evenkeel.services.ingest.settings import IngestSettings
from evenkeel.services.ingest.store import MIGRATIONS

service: Service[IngestContext] = Service(
    name="ingest",
    settings=IngestSettings,
    open_store=lambda settings: SqlStore(settings.database("ingest"), "ingest", MIGRATIONS),
    context=lambda settings, own: IngestContext(),
    handlers=HANDLERS,
    metrics=IngestMetrics,
    routes=api.routes,
    background=(watch_silence,),
    fetch=STREAMING,
)
