"""What follows from new data, drift and decay."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from evenkeel.contracts import ids
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.payload import Caller, Payload
from evenkeel.contracts.registry import ChampionChanged, GateDecided, ModelDeclared, StreamDeclared
from evenkeel.contracts.trainer import (
    DatasetVersion,
    RetrainDecided,
)
from evenkeel.libs.clock import format_us, parse_us
from evenkeel.libs.errors import NotYet
from evenkeel.libs.estimators import estimators_of
from evenkeel.libs.features import DeclaredModel, NotComputable, read_model
from evenkeel.libs.metrics import metrics_of
from evenkeel.libs.service import Cause, Each
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.domain import decision
from evenkeel.services.trainer.domain.decision import Answer, Cut, Trigger, TriggerEvent
from evenkeel.services.trainer.domain.job import (
    Candidate,
    DatasetClaim,
    JobRequest,
    TrainingRequest,
)
from evenkeel.services.trainer.store import ModelRow


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
        return decide(TriggerEvent("first_data", asked_us), committed.model, event, ctx)
    if decision.is_due(cut.cut_us, spec, history):
        return decide(TriggerEvent("schedule", asked_us), committed.model, event, ctx)
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


def _signal(
    trigger: Trigger,
    model: str,
    epoch: int,
    event: Event[DriftDetected] | Event[PerformanceDegraded],
    ctx: TrainerContext,
) -> Iterable[Payload]:
    row = _declared(model, ctx)
    ctx.store.saw(model, event.time_us)
    if trigger not in row.spec.get("retraining", {}).get("triggers", (trigger,)):
        return ()
    return decide(TriggerEvent(trigger, event.time_us, epoch), model, event, ctx)


def decide(
    asked: TriggerEvent, model: str, cause: Event[Any] | Cause, ctx: TrainerContext, caller: Caller | None = None
) -> Sequence[RetrainDecided]:
    """The answer to a trigger, with its job if it is yes; nothing if the cause has its answer. `caller`: who asked."""
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
            caller=caller,
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


def _dataset(cut: Cut | None) -> DatasetVersion | None:
    if cut is None:
        return None
    return DatasetVersion(
        uri=cut.uri, version=cut.version, rows=cut.rows, label_cut=format_us(cut.cut_us), offsets=cut.offsets
    )


def _declared(model: str, ctx: TrainerContext) -> ModelRow:
    row = ctx.store.model(model)
    if row is None:
        raise NotYet(f"model {model} is not declared")
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
