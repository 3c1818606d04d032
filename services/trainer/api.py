"""HTTP of the trainer: decisions and runs to look at, a run to ask for, the loop to pause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from evenkeel.contracts.envelope import format_us
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.service import Host
from evenkeel.services.trainer.domain.decision import Cut
from evenkeel.services.trainer.handlers import on_pause, on_resume, on_train
from evenkeel.services.trainer.store import ACTIVE, JobRow, TrainerStore


class LoopRequest(BaseModel):
    """Who pauses or resumes a loop, and why; both are published."""

    model_config = ConfigDict(extra="forbid")

    by: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=1000)


def routers(runtime: Host[Any]) -> Sequence[APIRouter]:
    routes = router()

    @routes.get("/v1/models/{model}/runs", **role("scientist"))
    async def list_runs(model: str) -> dict[str, Any]:
        jobs = await runtime.query(lambda c: _runs(TrainerStore(c), model))
        return {"model": model, "runs": jobs}

    @routes.get("/v1/models/{model}/datasets", **role("scientist"))
    async def list_datasets(model: str) -> dict[str, Any]:
        cuts = await runtime.query(lambda c: _cuts(TrainerStore(c), model))
        shown = [{"version": c.version, "rows": c.rows, "label_cut": format_us(c.cut_us), "uri": c.uri} for c in cuts]
        return {"model": model, "datasets": shown}

    @routes.post("/v1/models/{model}/train", **role("scientist"))
    async def train(model: str) -> dict[str, Any]:
        return await runtime.command(lambda ctx: on_train(model, ctx))

    @routes.get("/v1/loops", **role("operator"))
    async def list_loops() -> dict[str, Any]:
        """Every model's loop: whether it is paused, by whom and why, and the job that is not finished."""
        return {"loops": await runtime.query(lambda c: _loops(TrainerStore(c)))}

    @routes.post("/v1/models/{model}/pause", **role("operator", 409))
    async def pause(model: str, body: LoopRequest) -> dict[str, Any]:
        return await runtime.command(lambda ctx: on_pause(model, body.by, body.reason, ctx))

    @routes.post("/v1/models/{model}/resume", **role("operator", 409))
    async def resume(model: str, body: LoopRequest) -> dict[str, Any]:
        return await runtime.command(lambda ctx: on_resume(model, body.by, body.reason, ctx))

    return (routes,)


def _loops(store: TrainerStore) -> list[dict[str, Any]]:
    loops = []
    for row in store.models():
        pause = row.pause
        active = [job for job in store.jobs(row.name) if job.state in ACTIVE]
        loops.append(
            {
                "model": row.name,
                "state": "running" if pause is None else "paused",
                "by": None if pause is None else pause.by,
                "since": None if pause is None else format_us(pause.since_us),
                "reason": None if pause is None else pause.reason,
                "job": None if not active else _job(active[0]),
            }
        )
    return loops


def _job(job: JobRow) -> dict[str, Any]:
    return {
        "run_id": job.run_id,
        "trigger": job.trigger,
        "decided": format_us(job.decided_us),
        "state": job.state,
        "attempt": job.attempt,
        "detail": job.detail,
    }


def _known(store: TrainerStore, model: str) -> None:
    if store.model(model) is None:
        known = ", ".join(row.name for row in store.models()) or "none"
        raise Refused(
            404, "Unknown model", f"There is no model {model}.", field="model", fix=f"Declared models: {known}."
        )


def _cuts(store: TrainerStore, model: str) -> Sequence[Cut]:
    _known(store, model)
    return store.cuts(model)


def _runs(store: TrainerStore, model: str) -> list[dict[str, Any]]:
    _known(store, model)
    return [_job(job) for job in store.jobs(model)]
