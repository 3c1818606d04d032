"""What the routes read, each from one snapshot of the store."""

from __future__ import annotations

from typing import Any

import orjson
import sqlalchemy as sa

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.http.monitor import (
    Alert,
    LatestRun,
    MeasuringPolicy,
    MonitoredModel,
    RejectionCount,
    Replica,
)
from evenkeel.contracts.monitor import WindowMeasured
from evenkeel.contracts.registry import ChampionChanged
from evenkeel.contracts.trainer import RetrainDecided
from evenkeel.libs.errors import Refused
from evenkeel.services.monitor.domain.measuring import decode_state
from evenkeel.services.monitor.store import (
    alerts,
    champions,
    declarations,
    facts,
    joins,
    rejections,
    requests,
    signals,
    states,
    windows,
)

Json = dict[str, Any]


def _known(connection: sa.Connection, model: str) -> Json:
    """The newest declaration of a model; Refused if there is none."""
    c = declarations.c
    query = sa.select(c.payload).where(c.kind == "model", c.name == model).order_by(c.offset.desc()).limit(1)
    text = connection.execute(query).scalar()
    if text is None:
        raise Refused(404, "Not found", f"There is no model {model}.", field="model", fix="GET /v1/models lists them.")
    return dict(orjson.loads(text))


def models(connection: sa.Connection) -> list[MonitoredModel]:
    """Every model with its champion, what is open, its last window, signals and alerts."""
    c = declarations.c
    names = connection.execute(sa.select(c.name).where(c.kind == "model").distinct().order_by(c.name)).scalars().all()
    return [_state(connection, name) for name in names]


def _state(connection: sa.Connection, model: str) -> MonitoredModel:
    blob = connection.execute(sa.select(states.c.blob).where(states.c.model == model)).scalar()
    state = None if blob is None else decode_state(blob)
    epoch = None if state is None else state.epoch
    j = joins.c
    counts = sa.select(j.open, j.early).where(j.model == model).order_by(j.number.desc()).limit(1)
    waiting = connection.execute(counts).first()
    w, a, f, r = windows.c, alerts.c, facts.c, requests.c
    last = connection.execute(
        sa.select(w.payload).where(w.model == model).order_by(w.end_us.desc(), w.length_us).limit(1)
    ).scalar()
    told = connection.execute(
        sa.select(a.alert, a.state, a.time_us, a.detail).where(a.model == model).order_by(a.alert)
    )
    query = sa.select(f.kind, f.time_us, f.payload).where(f.key == model, f.kind.in_(["decision", "run"]))
    asked = connection.execute(sa.select(sa.func.sum(r.count)).where(r.model == model)).scalar()
    about = {row.kind: row for row in connection.execute(query)}
    return MonitoredModel(
        model=model,
        champion=None if epoch is None else _champion(connection, model, epoch),
        activated=None if state is None or epoch is None else format_us(state.activated_us),
        open_predictions=0 if waiting is None else waiting.open,
        early_labels=0 if waiting is None else waiting.early,
        request_predictions=int(asked or 0),
        last_window=None if last is None else WindowMeasured.model_validate_json(last),
        last_drift_signal=None if state is None or state.drift_us is None else format_us(state.drift_us),
        last_decay_signal=None if state is None or state.decay_us is None else format_us(state.decay_us),
        alerts=[
            Alert(alert=row.alert, state=row.state, time=format_us(row.time_us), detail=row.detail) for row in told
        ],
        last_decision=RetrainDecided.model_validate_json(about["decision"].payload) if "decision" in about else None,
        last_run=_latest_run(about["run"].payload, about["run"].time_us) if "run" in about else None,
    )


def _champion(connection: sa.Connection, model: str, epoch: int) -> ChampionChanged:
    c = champions.c
    text = connection.execute(sa.select(c.payload).where(c.model == model, c.epoch == epoch)).scalar_one()
    return ChampionChanged.model_validate_json(text)


def _latest_run(payload: str, time_us: int) -> LatestRun:
    """Of a run's start, completion or failure: only a completed run has a package, only a failed one a reason."""
    run = orjson.loads(payload)
    state = "completed" if "package" in run else "failed" if "reason" in run else "started"
    return LatestRun(run_id=run["run_id"], state=state, time=format_us(time_us), detail=run.get("detail"))


def measured(connection: sa.Connection, model: str, length_us: int | None, limit: int) -> list[WindowMeasured]:
    """The newest windows of one length, oldest first; without a length, the model's shortest."""
    _known(connection, model)
    w = windows.c
    if length_us is None:
        length_us = connection.execute(sa.select(sa.func.min(w.length_us)).where(w.model == model)).scalar()
    query = (
        sa.select(w.payload).where(w.model == model, w.length_us == length_us).order_by(w.end_us.desc()).limit(limit)
    )
    return [WindowMeasured.model_validate_json(text) for text in connection.execute(query).scalars()][::-1]


def signalled(connection: sa.Connection, model: str, kind: str, limit: int) -> list[Json]:
    """The newest signals of a kind, "drift" or "decay", oldest first, with their ids."""
    s = signals.c
    query = sa.select(s.id, s.payload).where(s.model == model, s.kind == kind).order_by(s.time_us.desc()).limit(limit)
    return [{"id": row.id} | orjson.loads(row.payload) for row in connection.execute(query)][::-1]


def policy(connection: sa.Connection, model: str) -> MeasuringPolicy:
    """The model's metric and monitoring policy as declared last."""
    spec = _known(connection, model)["spec"]
    return MeasuringPolicy(task=spec["task"], metric=spec.get("metric"), monitoring=spec["monitoring"])


def rejected(connection: sa.Connection, stream: str, limit: int) -> list[RejectionCount]:
    """Counts by day, kind and rule, newest first."""
    r = rejections.c
    query = (
        sa.select(r.day_us, r.kind, r.rule, r.count).where(r.stream == stream).order_by(r.day_us.desc(), r.kind, r.rule)
    )
    return [
        RejectionCount(day=format_us(row.day_us)[:10], kind=row.kind, rule=row.rule, count=row.count)
        for row in connection.execute(query.limit(limit))
    ]


def replicas(connection: sa.Connection) -> list[Replica]:
    """Serving's replicas as they last announced themselves."""
    f = facts.c
    query = sa.select(f.payload, f.time_us).where(f.kind == "replica").order_by(f.key)
    found = connection.execute(query)
    return [Replica.model_validate(orjson.loads(row.payload) | {"seen": format_us(row.time_us)}) for row in found]
