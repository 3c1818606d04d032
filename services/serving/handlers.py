"""What serving does on each fact. The table at the foot maps payloads to handlers."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import VectorComputed, ViewUpdated
from evenkeel.contracts.governance import SubjectErased
from evenkeel.contracts.ids import prediction_id
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.runtime import ClockAdvanced
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.errors import Retry
from evenkeel.libs.service import Batch, Derived, Each, Output, Stateless
from evenkeel.libs.settings import DEFAULT_PORTS, Settings
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import ChampionDecision, Target
from evenkeel.services.serving.domain.dataplane import answer, prediction_made
from evenkeel.services.serving.settings import ServingSettings
from evenkeel.services.serving.store import Declared

SETTLE_SECONDS: Final = 5.0
"""How long the scorer waits for the champions known at the start, before it asks for its records again."""


def on_model_declared(event: Event[ModelDeclared], ctx: ServingContext) -> list[Derived]:
    """Know the features of this view version, and keep its windows from here on."""
    ctx.declare(Declared(event.offset, event.data))
    return []


def on_champion_changed(event: Event[ChampionChanged], ctx: ServingContext) -> list[Derived]:
    """Remember the latest epoch; the activator loads its version once this is committed."""
    data, rollback = event.data, event.data.rollback_target
    ctx.decide(
        ChampionDecision(
            model=data.model,
            epoch=data.epoch,
            target=Target(data.version, data.package, data.threshold),
            view_version=data.view_version,
            rollback=None if rollback is None else Target(rollback.version, rollback.package, rollback.threshold),
            event_id=event.id,
            correlation_id=event.correlation_id,
            time_us=event.time_us,
            traceparent=event.traceparent,
        )
    )
    return []


def on_subject_erased(event: Event[SubjectErased], ctx: ServingContext) -> list[Derived]:
    """Nothing to forget: declarations with personal fields are refused, so nothing here is about a person."""
    return []


def on_views_updated(events: Sequence[Event[ViewUpdated | ClockAdvanced]], ctx: ServingContext) -> list[Derived]:
    """Keep the slots, with the position they came from."""
    ctx.put_slots(events)
    return []


def on_vectors(events: Sequence[Event[VectorComputed]], ctx: ServingContext) -> Sequence[PredictionMade | None]:
    """Score each vector with its model's champion, if that was trained on these features."""
    if not ctx.settled.wait(SETTLE_SECONDS):
        raise Retry("champions are still being loaded")
    answers: list[PredictionMade | None] = [None] * len(events)
    by_model: dict[str, list[int]] = {}
    for position, event in enumerate(events):
        by_model.setdefault(event.data.model, []).append(position)
    for model, positions in by_model.items():
        champion = ctx.champion(model)
        if champion is None:
            ctx.metrics.unscored.labels("no_champion").inc(len(positions))
            continue
        width = len(champion.rows.names)
        fitting = [
            position
            for position in positions
            if events[position].data.view_version == champion.view_version
            and len(events[position].data.values) == width
        ]
        if len(fitting) < len(positions):
            ctx.metrics.unscored.labels("view_version").inc(len(positions) - len(fitting))
        if fitting:
            rows = np.array([events[position].data.values for position in fitting], np.float32)
            for position, answered in zip(fitting, answer(champion, rows), strict=True):
                if answered is None:
                    ctx.metrics.unscored.labels("not_finite").inc()
                    continue
                event = events[position]
                answers[position] = prediction_made(
                    champion,
                    answered,
                    origin="stream",
                    stream=event.data.stream,
                    event_id=event.data.event_id,
                    vector_id=event.id,
                )
    return answers


def on_tick(ctx: ServingContext) -> Iterable[Output]:
    ctx.sweep()
    return ()


def replica_name(settings: Settings, own: ServingSettings) -> str:
    """How this replica calls itself."""
    port = settings.port if settings.port is not None else DEFAULT_PORTS["serving"]
    return own.replica or f"{socket.gethostname()}-{port}"


HANDLERS = (
    Each(ModelDeclared, on_model_declared),
    Each(ChampionChanged, on_champion_changed),
    Each(SubjectErased, on_subject_erased),
    Batch(ViewUpdated, on_views_updated),
    Stateless(VectorComputed, PredictionMade, on_vectors, id_of=prediction_id),
)
