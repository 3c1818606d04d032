"""The declaration of the trainer service."""

from __future__ import annotations

from evenkeel.libs.service import Service
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.trainer import api
from evenkeel.services.trainer.background import run_jobs
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.handlers import HANDLERS
from evenkeel.services.trainer.rebuild import REBUILD
from evenkeel.services.trainer.settings import TrainerSettings
from evenkeel.services.trainer.store import MIGRATIONS

service: Service[TrainerContext] = Service(
    name="trainer",
    settings=TrainerSettings,
    open_store=lambda settings: SqlStore(settings.database("trainer"), "trainer", MIGRATIONS),
    context=lambda settings, own: TrainerContext(),
    handlers=HANDLERS,
    routes=api.routes,
    background=(run_jobs,),
    rebuild=REBUILD,
)
