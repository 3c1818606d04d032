"""The declaration of the trainer service."""

from __future__ import annotations

from libs.service import Service
from libs.store.sql import SqlStore
from services.trainer import api
from services.trainer.context import TrainerContext
from services.trainer.handlers import HANDLERS
from services.trainer.jobs import run_jobs
from services.trainer.rebuild import REBUILD
from services.trainer.settings import TrainerSettings
from services.trainer.store import MIGRATIONS

service: Service[TrainerContext] = Service(
    name="trainer",
    settings=TrainerSettings,
    open_store=lambda settings: SqlStore(settings.database("trainer"), "trainer", MIGRATIONS),
    context=lambda settings, own: TrainerContext(),
    handlers=HANDLERS,
    routers=api.routers,
    background=(run_jobs,),
    rebuild=REBUILD,
)
