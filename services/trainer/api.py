"""HTTP of the trainer: decisions and runs to look at, a run to ask for, the loop to pause."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.http import trainer as http
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.caller import CalledBy
from evenkeel.libs.routes import Routes
from evenkeel.libs.service import Host
from evenkeel.services.trainer.commands import PauseLoop, ResumeLoop, Train, on_pause_loop, on_resume_loop, on_train
from evenkeel.services.trainer.domain.decision import Cut
from evenkeel.services.trainer.store import ACTIVE, JobRow, TrainerStore


def routes(runtime: Host[Any]) -> Routes:
    found = Routes()

    @found.answer(http.RUNS)
    async def runs(model: str) -> http.Runs:
        jobs = await runtime.query(lambda c: _runs(TrainerStore(c), model))
        return http.Runs(model=model, runs=jobs)

    @found.answer(http.CUTS)
    async def cuts(model: str) -> http.Cuts:
        known = await runtime.query(lambda c: _cuts(TrainerStore(c), model))
        return http.Cuts(model=model, datasets=[_cut(cut) for cut in known])

    @found.answer(http.TRAIN)
    async def train(model: str, caller: CalledBy) -> http.TrainDecision:
        return await runtime.command(partial(on_train, Train(model, caller)))

    @found.answer(http.LOOPS)
    async def loops() -> http.Loops:
        return http.Loops(loops=await runtime.query(lambda c: _loops(TrainerStore(c))))

    @found.answer(http.PAUSE)
    async def pause(model: str, body: http.LoopRequest, caller: CalledBy) -> http.LoopChange:
        return await runtime.command(partial(on_pause_loop, PauseLoop(model, body.by, body.reason, caller)))

    @found.answer(http.RESUME)
    async def resume(model: str, body: http.LoopRequest, caller: CalledBy) -> http.LoopChange:
        return await runtime.command(partial(on_resume_loop, ResumeLoop(model, body.by, body.reason, caller)))

    return found


def _loops(store: TrainerStore) -> list[http.Loop]:
    loops = []
    for row in store.models():
        pause = row.pause
        active = [job for job in store.jobs(row.name) if job.state in ACTIVE]
        loops.append(
            http.Loop(
                model=row.name,
                state="running" if pause is None else "paused",
                by=None if pause is None else pause.by,
                since=None if pause is None else format_us(pause.since_us),
                reason=None if pause is None else pause.reason,
                job=_run(active[0]) if active else None,
            )
        )
    return loops


def _run(job: JobRow) -> http.Run:
    return http.Run(
        run_id=job.run_id,
        trigger=job.trigger,
        decided=format_us(job.decided_us),
        state=job.state,
        attempt=job.attempt,
        detail=job.detail,
    )


def _cut(cut: Cut) -> http.Cut:
    return http.Cut(version=cut.version, rows=cut.rows, label_cut=format_us(cut.cut_us), uri=cut.uri)


def _known(store: TrainerStore, model: str) -> None:
    if store.model(model) is None:
        known = ", ".join(row.name for row in store.models()) or "none"
        raise Refused(
            404, "Unknown model", f"There is no model {model}.", field="model", fix=f"Declared models: {known}."
        )


def _cuts(store: TrainerStore, model: str) -> Sequence[Cut]:
    _known(store, model)
    return store.cuts(model)


def _runs(store: TrainerStore, model: str) -> list[http.Run]:
    _known(store, model)
    return [_run(job) for job in store.jobs(model)]
