"""What monitor does on each fact. The table at the foot maps payloads to handlers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ingest import EventRejected, LabelAccepted
from evenkeel.contracts.monitor import AlertChanged
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared, StreamDeclared
from evenkeel.contracts.serving import PredictionMade, ReplicaSeen
from evenkeel.contracts.trainer import RetrainDecided, RunCompleted, RunFailed, RunStarted
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.service import Batch, Derived, Each, Merge, Output, Released
from evenkeel.services.monitor.context import MonitorContext
from evenkeel.services.monitor.domain.measuring import AlertCleared, Finding, Measured
from evenkeel.services.monitor.findings import alert_cleared, profile_unusable, signal, window_measured


def on_stream_declared(event: Event[StreamDeclared], ctx: MonitorContext) -> list[Derived]:
    """Remember the contract; a model's declaration brings along what measuring needs of it."""
    ctx.store.put_declaration("stream", event.offset, event.data.name, event.data.model_dump_json())
    return []


def on_model_declared(event: Event[ModelDeclared], ctx: MonitorContext) -> list[Derived]:
    """Measure this model from here on."""
    ctx.store.put_declaration("model", event.offset, event.data.name, event.data.model_dump_json())
    ctx.declare(event.offset, event.data)
    return []


def on_champion_changed(event: Event[ChampionChanged], ctx: MonitorContext) -> list[Derived]:
    """Remember who answers in this epoch. It begins, for monitor, with its first prediction."""
    ctx.store.put_champion(event.data.model, event.data.epoch, event.data.model_dump_json())
    return []


def on_retrain_decided(event: Event[RetrainDecided], ctx: MonitorContext) -> list[Derived]:
    ctx.store.put_fact("decision", event.data.model, event.time_us, event.data.model_dump_json())
    return []


def on_run_started(event: Event[RunStarted], ctx: MonitorContext) -> list[Derived]:
    ctx.store.put_fact("run", event.data.model, event.time_us, event.data.model_dump_json())
    return []


def on_run_completed(event: Event[RunCompleted], ctx: MonitorContext) -> list[AlertChanged]:
    """Remember what the package achieved on unseen rows: what it is held to, should it become champion."""
    run, store = event.data, ctx.store
    store.put_fact("run", run.model, event.time_us, run.model_dump_json())
    store.put_evidence(run.model, run.package, run.model_dump_json())
    if not store.is_raised(run.model, "training"):
        return []
    detail = f"{run.model}: run {run.run_id} completed"
    alert = AlertChanged(model=run.model, alert="training", state="cleared", detail=detail)
    store.put_alert(alert, event.time_us)
    return [alert]


def on_run_failed(event: Event[RunFailed], ctx: MonitorContext) -> list[AlertChanged]:
    """Tell people, once, until a run completes."""
    run, store = event.data, ctx.store
    store.put_fact("run", run.model, event.time_us, run.model_dump_json())
    if store.is_raised(run.model, "training"):
        return []
    detail = f"{run.model}: run {run.run_id} failed ({run.reason}): {run.detail}"
    alert = AlertChanged(model=run.model, alert="training", state="raised", detail=detail)
    store.put_alert(alert, event.time_us)
    return [alert]


def on_replica_seen(event: Event[ReplicaSeen], ctx: MonitorContext) -> list[Derived]:
    ctx.store.put_fact("replica", event.data.replica, event.time_us, event.data.model_dump_json())
    return []


def on_events_rejected(events: Sequence[Event[EventRejected]], ctx: MonitorContext) -> list[Output]:
    """Count per stream, day of event time, kind and rule. They have no place in event-time order, so no window has them."""
    counts: Counter[tuple[str, int, str, str]] = Counter(
        (e.data.stream, e.time_us // DAY_US * DAY_US, e.data.kind, e.data.rule) for e in events
    )
    ctx.store.count_rejections(counts)
    return []


def on_released(released: Released, ctx: MonitorContext) -> list[Output]:
    """Fold each model's share of what was released, and publish what its measuring found."""
    names = ctx.members(released.group)
    batches = _of_each_model(released.events, names)
    outputs: list[Output] = [*_require_facts(batches, ctx)]
    requests = Counter(
        (e.data.model, e.time_us // DAY_US * DAY_US, e.data.version)
        for e in released.events
        if type(e.data) is PredictionMade and e.data.origin == "request"
    )
    if requests:
        ctx.store.count_requests(requests)
    for name in names:
        if name in ctx.unmeasured:
            continue
        model = ctx.models[name]
        outcome = model.fold(batches[name], released.watermark_us)
        ctx.store.keep(model, outcome)
        for found in outcome.findings:
            outputs += _publish(name, found, ctx)
    return outputs


def _of_each_model(events: Sequence[Event[Any]], names: Sequence[str]) -> dict[str, list[Event[Any]]]:
    """What each model is measured by: its vectors, its champions' answers on the stream, and all labels."""
    batches: dict[str, list[Event[Any]]] = {name: [] for name in names}
    every = list(batches.values())
    for event in events:
        data = event.data
        if type(data) is LabelAccepted:
            for batch in every:
                batch.append(event)
        elif type(data) is VectorComputed or (data.origin == "stream" and data.role == "champion"):
            batches[data.model].append(event)
    return batches


def _require_facts(batches: Mapping[str, Sequence[Event[Any]]], ctx: MonitorContext) -> list[Derived]:
    """Everything the events name must be known before the first of them is folded."""
    alerts: list[Derived] = []
    for name, batch in batches.items():
        declarations: set[int] = set()
        epochs: dict[int, Event[PredictionMade]] = {}
        for event in batch:
            data = event.data
            if type(data) is VectorComputed:
                declarations.add(data.declaration)
            elif type(data) is PredictionMade:
                epochs.setdefault(data.epoch, event)
        if not all(ctx.require_declaration(name, offset) for offset in declarations):
            ctx.unmeasured.add(name)
        if name in ctx.unmeasured:
            continue
        for epoch, first in sorted(epochs.items()):
            if not ctx.require_champion(name, epoch):
                alert, derived = profile_unusable(name, first)
                ctx.store.put_alert(alert, first.order_us)
                alerts.append(derived)
    return alerts


def _publish(model: str, found: Finding, ctx: MonitorContext) -> list[Output]:
    store, span = ctx.store, found.span
    if isinstance(found, Measured):
        derived = window_measured(model, found)
        store.put_window(model, span.end_us - span.start_us, span.end_us, derived.payload.model_dump_json())
        return [derived]
    if isinstance(found, AlertCleared):
        alert, derived = alert_cleared(model, found)
        store.put_alert(alert, span.end_us)
        return [derived]
    raised = signal(model, found)
    assert raised.signal.id is not None
    store.put_signal(raised.signal.id, model, raised.kind, span.end_us, raised.signal.payload.model_dump_json())
    store.put_alert(raised.alert, span.end_us)
    return [raised.signal, raised.raised]


HANDLERS = (
    Each(StreamDeclared, on_stream_declared),
    Each(ModelDeclared, on_model_declared),
    Each(ChampionChanged, on_champion_changed),
    Each(RetrainDecided, on_retrain_decided),
    Each(RunStarted, on_run_started),
    Each(RunCompleted, on_run_completed),
    Each(RunFailed, on_run_failed),
    Each(ReplicaSeen, on_replica_seen),
    Batch(EventRejected, on_events_rejected),
    Merge((PredictionMade, VectorComputed, LabelAccepted), on_released),
)
