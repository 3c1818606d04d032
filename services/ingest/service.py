"""The declaration of the ingest service."""

from __future__ import annotations

from libs.bus.protocol import STREAMING
from libs.service import Service
from libs.store.sql import SqlStore
from services.ingest import api
from services.ingest.context import IngestContext
from services.ingest.handlers import HANDLERS
from services.ingest.settings import IngestSettings
from services.ingest.silence import watch_silence
from services.ingest.store import MIGRATIONS

service: Service[IngestContext] = Service(
    name="ingest",
    settings=IngestSettings,
    open_store=lambda settings: SqlStore(settings.database("ingest"), "ingest", MIGRATIONS),
    context=lambda settings, own: IngestContext(),
    handlers=HANDLERS,
    routers=api.routers,
    background=(watch_silence,),
    fetch=STREAMING,
)
