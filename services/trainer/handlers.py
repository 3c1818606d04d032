"""What follows from new data, drift, decay, a command, and a finished job."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from evenkeel.contracts import ids
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.ids import random_id
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged, GateDecided, ModelDeclared, StreamDeclared
from evenkeel.contracts.trainer import (
    DatasetVersion,
    LoopChanged,
    RetrainDecided,
    RunCompleted,
    RunFailed,
    RunStarted,
    Scores,
)
from evenkeel.libs.clock import SECOND_US, format_us, parse_us
from evenkeel.libs.errors import NotYet, Refused
from evenkeel.libs.estimators import estimators_of
from evenkeel.libs.features import DeclaredModel, NotComputable, read_model
from evenkeel.libs.metrics import metrics_of
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Cause, Derived, Each, Reply
from evenkeel.libs.telemetry.tracing import new_traceparent
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.domain import decision
from evenkeel.services.trainer.domain.decision import Answer, Asked, Cut
from evenkeel.services.trainer.domain.job import (
    Candidate,
    DatasetClaim,
    JobRequest,
    JobResult,
    TrainingRequest,
)
from evenkeel.services.trainer.store import JobRow, ModelRow

LEASE_US = 30 * SECOND_US


def on_stream_declared(event: Event[StreamDeclared], ctx: TrainerContext) -> Iterable[Payload]:
    """A model's declaration carries the streams it needs; nothing is kept here."""
    return ()


def on_model_declared(event: Event[ModelDeclared], ctx: TrainerContext) -> Iterable[Payload]:
    """Take the declaration, by its offset."""
    declared = event.data
    ctx.store.put_model(declared.name, event.offset, declared.spec, declared.streams, declared.view_version)
    return ()


def on_dataset_committed(event: Event[DatasetCommitted], ctx: TrainerContext) -> Iterable[Payload]:
    """Keep the cut; it may be the first sufficient data, or the schedule may be due."""
    committed = event.data
    cut = Cut(
        committed.uri,
        committed.version,
        committed.view_version,
        committed.rows,
        parse_us(committed.label_cut),
        parse_us(committed.last_event_time) - parse_us(committed.first_event_time),
        committed.offsets,
    )
    row = _declared(committed.model, ctx)
    ctx.store.put_cut(committed.model, cut)
    ctx.store.saw(committed.model, event.time_us)
    asked_us = max(event.time_us, cut.cut_us)
    history = ctx.store.history(committed.model, asked_us)
    try:
        spec = ctx.spec(row)
    except ValidationError:  # by a newer release: its next trigger is answered with no, and why
        return ()
    if not history.accepted_us and not history.champion_epoch and decision.is_enough(cut, spec):
        return _decide(Asked("first_data", asked_us), committed.model, event, ctx)
    if decision.is_due(cut.cut_us, spec, history):
        return _decide(Asked("schedule", asked_us), committed.model, event, ctx)
    return ()


def on_drift_detected(event: Event[DriftDetected], ctx: TrainerContext) -> Iterable[Payload]:
    """Inputs have moved."""
    return _signal("drift", event.data.model, event.data.epoch, event, ctx)


def on_performance_degraded(event: Event[PerformanceDegraded], ctx: TrainerContext) -> Iterable[Payload]:
    """The champion has become worse than its evidence."""
    return _signal("decay", event.data.model, event.data.epoch, event, ctx)


def on_gate_decided(event: Event[GateDecided], ctx: TrainerContext) -> Iterable[Payload]:
    """A verdict on a run of ours: only its event time is kept, for commands."""
    _declared(event.data.model, ctx)
    ctx.store.saw(event.data.model, event.time_us)
    return ()


def on_champion_changed(event: Event[ChampionChanged], ctx: TrainerContext) -> Iterable[Payload]:
    """The next candidate is compared with this one. Its model's declaration is on another topic and may come later."""
    _declared(event.data.model, ctx)
    ctx.store.put_champion(event.data.model, event.data.epoch, event.data.package)
    ctx.store.saw(event.data.model, event.time_us)
    return ()


def on_train(model: str, ctx: TrainerContext) -> Reply[dict[str, Any]]:
    """A person asks for a run."""
    row = _known(model, ctx)
    command_id = random_id()
    cause = Cause(command_id, row.event_us or ctx.now_us, command_id, new_traceparent(command_id, 1.0))
    (decided,) = _decide(Asked("command", cause.time_us), model, cause, ctx)
    answer = {"retrain": decided.retrain, "reason": decided.reason, "detail": decided.detail, "run_id": decided.run_id}
    return Reply(answer, [Derived(decided, cause)])


def on_pause(model: str, by: str, reason: str, ctx: TrainerContext) -> Reply[dict[str, Any]]:
    """Stop the loop of one model: every trigger is answered with this pause. Commands still train, jobs go on."""
    row = _known(model, ctx)
    pause = row.pause
    if pause is not None:
        raise Refused(
            409,
            "Paused already",
            f"The loop of {model} is {pause}.",
            field="model",
            fix="Resume it first if who or why has changed.",
        )
    return _loop_changed(row, decision.Pause(by, ctx.now_us, reason), by, reason, ctx)


def on_resume(model: str, by: str, reason: str, ctx: TrainerContext) -> Reply[dict[str, Any]]:
    """Let the loop of one model go on. Resuming one that runs changes nothing."""
    row = _known(model, ctx)
    if row.pause is None:
        return Reply({"model": model, "paused": False, "changed": False})
    return _loop_changed(row, None, by, reason, ctx)


def _loop_changed(
    row: ModelRow, pause: decision.Pause | None, by: str, reason: str, ctx: TrainerContext
) -> Reply[dict[str, Any]]:
    ctx.store.set_pause(row.name, pause)
    state: Literal["paused", "running"] = "running" if pause is None else "paused"
    changed = LoopChanged(model=row.name, state=state, by=by, reason=reason)
    command_id = random_id()
    cause = Cause(command_id, row.event_us or ctx.now_us, command_id)
    return Reply({"model": row.name, "paused": pause is not None, "changed": True}, [Derived(changed, cause)])


@dataclass(frozen=True, slots=True)
class Started:
    """A job that this instance has taken."""

    run_id: str
    attempt: int
    request: JobRequest
    traceparent: str | None = None


def on_job_wanted(owner: str, ctx: TrainerContext) -> Reply[Started | None]:
    """Take the next job, if there is one, under a new attempt; an old attempt's finish will affect nothing."""
    job = ctx.store.next_job(owner, ctx.now_us)
    if job is None:
        return Reply(None)
    cause = _job_cause(job, "started", job.attempt + 1)
    if job.attempt >= ctx.own.max_attempts:
        ctx.store.take_job(job.run_id, job.attempt, owner, ctx.now_us)
        ctx.store.close_job(job.run_id, job.attempt + 1, "failed", "its process died too often")
        failed = RunFailed(
            model=job.model,
            run_id=job.run_id,
            attempt=job.attempt,
            reason="crashed",
            detail=f"its process died {job.attempt} times: see the trainer's log",
        )
        return Reply(None, [Derived(failed, cause)])
    if not ctx.store.take_job(job.run_id, job.attempt, owner, ctx.now_us + LEASE_US):
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
    return Reply(Started(job.run_id, job.attempt + 1, request, job.traceparent), [Derived(started, cause)])


def on_job_alive(run_id: str, attempt: int, ctx: TrainerContext) -> Reply[bool]:
    """Extend the job's lease; False: it is somebody else's now."""
    return Reply(ctx.store.keep_job(run_id, attempt, ctx.now_us + LEASE_US))


def on_job_finished(
    started: Started, result: JobResult | None, fault: str, seconds: float, ctx: TrainerContext
) -> Reply[None]:
    """A job's process has ended: with a package, with a refusal, or without an answer (it is tried again then)."""
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
        return Reply(None, [Derived(_completed(job, started.request, result, seconds), cause)])
    failed = RunFailed.model_validate(
        {"model": job.model, "run_id": job.run_id, "attempt": started.attempt, "reason": reason, "detail": detail}
    )
    return Reply(None, [Derived(failed, cause)])


def _signal(
    trigger: Any, model: str, epoch: int, event: Event[DriftDetected] | Event[PerformanceDegraded], ctx: TrainerContext
) -> Iterable[Payload]:
    row = _declared(model, ctx)
    ctx.store.saw(model, event.time_us)
    if trigger not in row.spec.get("retraining", {}).get("triggers", (trigger,)):
        return ()
    return _decide(Asked(trigger, event.time_us, epoch), model, event, ctx)


def _decide(asked: Asked, model: str, cause: Event[Any] | Cause, ctx: TrainerContext) -> Sequence[RetrainDecided]:
    if ctx.has_answered(cause.id):
        return ()
    row = _declared(model, ctx)
    try:
        declared = trainable(row)
        cuts = ctx.store.newest_cut(model, row.view_version, asked.time_us)
        history = ctx.store.history(model, asked.time_us)
        answer = decision.decide(asked, declared.spec, row.view_version, cuts, history)
    except NotComputable as error:
        answer = Answer(False, "not_computable", str(error))
    run_id = ids.run_id(cause.id) if answer.retrain else None
    if run_id is not None and answer.cut is not None:
        request = request_of(row, declared, answer, run_id, asked.time_us, ctx)
        ctx.store.add_job(
            {
                "run_id": run_id,
                "model": model,
                "trigger": asked.trigger,
                "decided_us": asked.time_us,
                "request": request.model_dump(mode="json"),
                "correlation_id": cause.correlation_id,
                "traceparent": cause.traceparent,
            }
        )
    return (
        RetrainDecided(
            model=model,
            retrain=answer.retrain,
            trigger=asked.trigger,
            reason=answer.reason,
            detail=answer.detail,
            cause_id=cause.id,
            as_of=format_us(asked.time_us),
            dataset=_dataset(answer.cut) if answer.retrain else None,
            run_id=run_id,
        ),
    )


def trainable(row: ModelRow) -> DeclaredModel:
    """A model's declaration; raises NotComputable if this release cannot train by it."""
    declared = read_model(row.name, row.spec, row.streams)
    spec = declared.spec
    if spec.metric_name not in [metric.name for metric in metrics_of(spec.task)]:
        raise NotComputable(f"there is no metric {spec.metric_name} of {spec.task} models here; upgrade this service")
    if unknown := set(spec.candidate_names) - {row.name for row in estimators_of(spec.task)}:
        names = ", ".join(sorted(unknown))
        raise NotComputable(f"there is no estimator {names} of {spec.task} models here; upgrade this service")
    return declared


def request_of(
    row: ModelRow, declared: DeclaredModel, answer: Answer, run_id: str, time_us: int, ctx: TrainerContext
) -> JobRequest:
    """Everything a job needs, fixed at the decision, so that another attempt does the same again."""
    assert answer.cut is not None
    spec, plan, cut = declared.spec, declared.plan, answer.cut
    policy = spec.retraining
    data_dir = ctx.settings.data_dir.resolve()
    training = TrainingRequest(
        model=row.name,
        task=spec.task,
        run_id=run_id,
        stream=spec.stream,
        label=spec.label,
        declaration=row.declaration,
        view_version=row.view_version,
        features=plan.names,
        candidates=tuple(Candidate(estimator=name) for name in spec.candidate_names),
        metric=spec.metric_name,
        confidence=spec.promotion.confidence,
        as_of=format_us(time_us),
        label_horizon_us=declared.label.horizon_us,
        holdout_us=policy.holdout_us,
        max_span_us=policy.max_span_us,
        max_rows=policy.max_rows,
        seed=zlib.crc32(run_id.encode()),
        threads=ctx.own.threads,
        time_budget_seconds=ctx.own.time_budget_seconds,
        dataset=DatasetClaim(uri=cut.uri, version=cut.version, label_cut=format_us(cut.cut_us), offsets=cut.offsets),
        code_commit=ctx.code_commit,
    )
    return JobRequest(
        training=training,
        table=str(data_dir / cut.uri),
        artifacts=str(data_dir / "artifacts"),
        keys=str(ctx.settings.keys.resolve()),
        champion=row.champion_package,
    )


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


def _dataset(cut: Cut | None) -> DatasetVersion | None:
    if cut is None:
        return None
    return DatasetVersion(
        uri=cut.uri, version=cut.version, rows=cut.rows, label_cut=format_us(cut.cut_us), offsets=cut.offsets
    )


def _job_cause(job: JobRow, what: str, attempt: int) -> Cause:
    return Cause(ids.attempt_id(job.run_id, what, attempt), job.decided_us, job.correlation_id, job.traceparent)


def _declared(model: str, ctx: TrainerContext) -> ModelRow:
    row = ctx.store.model(model)
    if row is None:
        raise NotYet(f"model {model} is not declared")
    return row


def _known(model: str, ctx: TrainerContext) -> ModelRow:
    row = ctx.store.model(model)
    if row is None:
        known = ", ".join(r.name for r in ctx.store.models()) or "none"
        raise Refused(
            404, "Unknown model", f"There is no model {model}.", field="model", fix=f"Declared models: {known}."
        )
    return row


HANDLERS = (
    Each(StreamDeclared, on_stream_declared),
    Each(ModelDeclared, on_model_declared),
    Each(DatasetCommitted, on_dataset_committed),
    Each(DriftDetected, on_drift_detected),
    Each(PerformanceDegraded, on_performance_degraded),
    Each(GateDecided, on_gate_decided),
    Each(ChampionChanged, on_champion_changed),
)
