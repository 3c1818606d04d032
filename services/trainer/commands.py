"""What people ask of the trainer, and what its jobs come back with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from evenkeel.contracts import ids
from evenkeel.contracts.http.trainer import LoopChange, TrainDecision
from evenkeel.contracts.ids import random_id
from evenkeel.contracts.payload import Caller
from evenkeel.contracts.trainer import DatasetVersion, LoopChanged, RunCompleted, RunFailed, RunStarted, Scores
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.errors import Refused
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Cause, Derived, Reply
from evenkeel.libs.telemetry.tracing import new_traceparent
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.domain.decision import Pause, TriggerEvent
from evenkeel.services.trainer.domain.job import JobRequest, JobResult
from evenkeel.services.trainer.handlers import decide
from evenkeel.services.trainer.store import JobRow, ModelRow

LEASE_US: Final = 30 * SECOND_US


@dataclass(frozen=True, slots=True)
class Train:
    """A person asks for a run."""

    model: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class PauseLoop:
    """Stop the loop of one model: every trigger is answered with this pause. Commands still train, jobs go on."""

    model: str
    by: str
    reason: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class ResumeLoop:
    """Let the loop of one model go on."""

    model: str
    by: str
    reason: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class TakeJob:
    """An instance asks for work."""

    owner: str


@dataclass(frozen=True, slots=True)
class KeepJob:
    """An attempt at a job is alive."""

    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class StartedJob:
    """A job that this instance has taken."""

    run_id: str
    attempt: int
    request: JobRequest
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class FinishJob:
    """A job's process has ended: with a package, with a refusal, or without an answer (`fault` says why)."""

    started: StartedJob
    result: JobResult | None
    fault: str
    seconds: float


def on_train(command: Train, ctx: TrainerContext) -> Reply[TrainDecision]:
    """The decision may be no."""
    row = _known(command.model, ctx)
    command_id = random_id()
    cause = Cause(command_id, row.event_us or ctx.now_us, command_id, new_traceparent(command_id, 1.0))
    (decided,) = decide(TriggerEvent("command", cause.time_us), command.model, cause, ctx, command.caller)
    answer = TrainDecision(retrain=decided.retrain, reason=decided.reason, detail=decided.detail, run_id=decided.run_id)
    return Reply(answer, [Derived(decided, cause)])


def on_pause_loop(command: PauseLoop, ctx: TrainerContext) -> Reply[LoopChange]:
    """Refused while it is paused already."""
    pause = _known(command.model, ctx).pause
    if pause is not None:
        raise Refused(
            409,
            "Paused already",
            f"The loop of {command.model} is {pause}.",
            field="model",
            fix="Resume it first if who or why has changed.",
        )
    return _loop_changed(command, Pause(command.by, ctx.now_us, command.reason), ctx)


def on_resume_loop(command: ResumeLoop, ctx: TrainerContext) -> Reply[LoopChange]:
    """Resuming a loop that runs changes nothing."""
    if _known(command.model, ctx).pause is None:
        return Reply(LoopChange(model=command.model, paused=False, changed=False))
    return _loop_changed(command, None, ctx)


def _loop_changed(command: PauseLoop | ResumeLoop, pause: Pause | None, ctx: TrainerContext) -> Reply[LoopChange]:
    row = _known(command.model, ctx)
    ctx.store.set_pause(row.name, pause)
    changed = LoopChanged(
        model=row.name,
        state="running" if pause is None else "paused",
        by=command.by,
        reason=command.reason,
        caller=command.caller,
    )
    command_id = random_id()
    cause = Cause(command_id, row.event_us or ctx.now_us, command_id)
    answer = LoopChange(model=row.name, paused=pause is not None, changed=True)
    return Reply(answer, [Derived(changed, cause)])


def on_take_job(command: TakeJob, ctx: TrainerContext) -> Reply[StartedJob | None]:
    """The next job, if there is one, under a new attempt; an old attempt's finish will affect nothing."""
    job = ctx.store.next_job(command.owner, ctx.now_us)
    if job is None:
        return Reply(None)
    cause = _job_cause(job, "started", job.attempt + 1)
    if job.attempt >= ctx.own.max_attempts:
        ctx.store.take_job(job.run_id, job.attempt, command.owner, ctx.now_us)
        ctx.store.close_job(job.run_id, job.attempt + 1, "failed", "its process died too often")
        failed = RunFailed(
            model=job.model,
            run_id=job.run_id,
            attempt=job.attempt,
            reason="crashed",
            detail=f"its process died {job.attempt} times: see the trainer's log",
        )
        return Reply(None, [Derived(failed, cause)])
    if not ctx.store.take_job(job.run_id, job.attempt, command.owner, ctx.now_us + LEASE_US):
        return Reply(None)
    request = JobRequest.model_validate(job.request)
    claim = request.training.dataset
    started = RunStarted(
        model=job.model,
        run_id=job.run_id,
        attempt=job.attempt + 1,
        dataset=DatasetVersion(
            uri=claim.uri, version=claim.version, rows=0, label_cut=claim.label_cut, offsets=claim.offsets
        ),
        champion=request.champion,
    )
    failpoint("job.started")
    return Reply(StartedJob(job.run_id, job.attempt + 1, request, job.traceparent), [Derived(started, cause)])


def on_keep_job(command: KeepJob, ctx: TrainerContext) -> Reply[bool]:
    """Extend the job's lease; False: it is somebody else's now."""
    return Reply(ctx.store.keep_job(command.run_id, command.attempt, ctx.now_us + LEASE_US))


def on_finish_job(command: FinishJob, ctx: TrainerContext) -> Reply[None]:
    """A job without an answer is tried again, unless it ran out of time."""
    started, result, fault = command.started, command.result, command.fault
    job = ctx.store.job(started.run_id)
    if result is None:
        if "time limit" not in fault:
            ctx.store.keep_job(started.run_id, started.attempt, 0)
            return Reply(None)
        outcome, reason = "failed", "timeout"
    else:
        outcome, reason = ("completed", "") if result.outcome == "completed" else ("refused", result.reason or "error")
    detail = fault if result is None else result.detail
    if not ctx.store.close_job(started.run_id, started.attempt, outcome, detail):
        return Reply(None)
    failpoint("job.finished")
    cause = _job_cause(job, "finished", started.attempt)
    if result is not None and outcome == "completed":
        return Reply(None, [Derived(_completed(job, started.request, result, command.seconds), cause)])
    failed = RunFailed.model_validate(
        {"model": job.model, "run_id": job.run_id, "attempt": started.attempt, "reason": reason, "detail": detail}
    )
    return Reply(None, [Derived(failed, cause)])


def _completed(job: JobRow, request: JobRequest, result: JobResult, seconds: float) -> RunCompleted:
    evidence, training = result.evidence, request.training
    assert evidence is not None
    dataset = training.dataset
    return RunCompleted(
        model=job.model,
        run_id=job.run_id,
        trigger=job.trigger,
        package=result.package or "",
        package_uri=result.package_uri or "",
        package_bytes=result.package_bytes or 0,
        view_version=training.view_version,
        declaration=training.declaration,
        estimator=result.estimator or "",
        parameters=result.parameters,
        threshold=result.threshold,
        dataset=DatasetVersion(
            uri=dataset.uri,
            version=dataset.version,
            rows=result.dataset_rows,
            label_cut=dataset.label_cut,
            offsets=dataset.offsets,
        ),
        training_rows=evidence.training_rows,
        evaluation_rows=evidence.evaluation_rows,
        candidate=Scores(digest=result.package, metrics=evidence.candidate.metrics),
        champion=None if evidence.champion is None else Scores(**evidence.champion.model_dump()),
        comparison=evidence.comparison,
        golden_rows=result.golden_rows,
        golden_matched=result.golden_matched,
        code_commit=training.code_commit,
        seed=training.seed,
        duration_seconds=seconds,
    )


def _job_cause(job: JobRow, what: str, attempt: int) -> Cause:
    return Cause(ids.attempt_id(job.run_id, what, attempt), job.decided_us, job.correlation_id, job.traceparent)


def _known(model: str, ctx: TrainerContext) -> ModelRow:
    row = ctx.store.model(model)
    if row is None:
        known = ", ".join(r.name for r in ctx.store.models()) or "none"
        raise Refused(
            404, "Unknown model", f"There is no model {model}.", field="model", fix=f"Declared models: {known}."
        )
    return row
