"""What monitor answers: windows, quality and drift over time, rejections, and how every model stands."""

from __future__ import annotations

from typing import Any, Final

from pydantic import Field

from evenkeel.contracts.http.messages import Answer, Detail, EventTime, ModelName, Query, RunId, StreamName, WallTime
from evenkeel.contracts.http.route import Route
from evenkeel.contracts.monitor import DriftDetected, FeatureDrift, PerformanceDegraded, WindowMeasured
from evenkeel.contracts.payload import Count, Finite, Identifier, Word
from evenkeel.contracts.registry import ChampionChanged
from evenkeel.contracts.trainer import RetrainDecided


class Alert(Answer):
    """An alert as it stands."""

    alert: Word
    """`drift`, `decay`, `training`, `profile`, …"""
    state: Word
    """`raised` or `cleared`."""
    time: EventTime
    """Since when."""
    detail: Detail


class LatestRun(Answer):
    """The training run that was heard of last."""

    run_id: RunId
    state: Word
    """`started`, `completed` or `failed`."""
    time: EventTime
    """When it was heard of."""
    detail: str | None = None
    """Why it failed."""


class MonitoredModel(Answer):
    """How a model stands."""

    model: ModelName
    champion: ChampionChanged | None = None
    """The one whose predictions are measured now; it begins with its first prediction."""
    activated: EventTime | None = None
    """Event time of its first prediction."""
    open_predictions: Count
    """Predictions whose label may still come."""
    early_labels: Count
    """Labels that came before their prediction."""
    request_predictions: Count
    """Answers to clients; they are counted, not measured."""
    last_window: WindowMeasured | None = None
    """The latest that was closed; null before the first."""
    last_drift_signal: EventTime | None = None
    """Of the present champion; null if there was none."""
    last_decay_signal: EventTime | None = None
    """Of the present champion; null if there was none."""
    alerts: list[Alert]
    """Raised ones, and those that were cleared."""
    last_decision: RetrainDecided | None = None
    """Whether to retrain; null before the first."""
    last_run: LatestRun | None = None
    """Null before the first."""


class Replica(Answer):
    """A replica of serving, as it last announced itself."""

    replica: str
    """Its name."""
    url: str
    """Where it answers."""
    state: Word
    """`ready` or `stopping`."""
    epochs: dict[Identifier, Count]
    """Model → the epoch that answers there."""
    seen: WallTime
    """When it announced itself."""


class MonitoredModels(Answer):
    """Every model, and serving's replicas."""

    models: list[MonitoredModel]
    """By name."""
    replicas: list[Replica]
    """By name."""


class WindowsQuery(Query):
    window: str | None = None
    """The windows' length, such as `24h` or `7d`; without it, the model's shortest."""
    limit: int = Field(400, ge=1, le=10_000)
    """How many windows at most."""


class Windows(Answer):
    """Measured windows, as they were published."""

    model: ModelName
    windows: list[WindowMeasured]
    """The newest ones, oldest first."""


class Measured(Answer):
    """Quality in one window."""

    window_start: EventTime
    """Inclusive."""
    window_end: EventTime
    """Exclusive."""
    epoch: Count | None = None
    """Of the champion at the window's end; null before the first."""
    version: Count | None = None
    """The champion at the window's end."""
    labelled: Count
    """Predictions whose label arrived in the window."""
    metrics: dict[str, Finite | None]
    """Metric → value; null where it is not defined."""


class MeasuringPolicy(Answer):
    """What the model is held to, as it was declared last."""

    task: Word
    """What is predicted: `binary`, `regression`, …"""
    metric: Word | None = None
    """The metric that decides; null: the task's default."""
    monitoring: dict[str, Any]
    """As it was declared."""


class DegradedSignal(PerformanceDegraded):
    """A signal that the champion is worse than its evidence."""

    id: str
    """Its CloudEvents id."""


class Performance(Answer):
    """Quality over time."""

    model: ModelName
    policy: MeasuringPolicy
    """What it is held to."""
    series: list[Measured]
    """The newest windows, oldest first."""
    degraded: list[DegradedSignal]
    """Where it was called degraded, oldest first."""


class Drifted(Answer):
    """The features of one window against the champion's profile."""

    window_start: EventTime
    """Inclusive."""
    window_end: EventTime
    """Exclusive."""
    epoch: Count | None = None
    """Of the champion at the window's end; null before the first."""
    version: Count | None = None
    """Of the champion at the window's end; null before the first."""
    vectors: Count
    """Vectors in the window."""
    drift: list[FeatureDrift]
    """Every feature by every statistic of the policy, the furthest first."""


class DriftSignal(DriftDetected):
    """A signal that features have moved."""

    id: str
    """Its CloudEvents id."""


class Drift(Answer):
    """Drift over time."""

    model: ModelName
    series: list[Drifted]
    """The newest windows, oldest first."""
    signals: list[DriftSignal]
    """Where drift was called, oldest first."""


class RejectionsQuery(Query):
    limit: int = Field(1000, ge=1, le=10_000)
    """How many counts at most."""


class RejectionCount(Answer):
    """How many records of one day broke one rule."""

    day: str
    """Of event time, as `2013-07-01`."""
    kind: Word
    """`event` or `label`."""
    rule: Word
    """Which rule was broken."""
    count: Count
    """How many records."""


class Rejections(Answer):
    """What broke a stream's contract."""

    stream: StreamName
    rejections: list[RejectionCount]
    """The newest day first."""


MODELS: Final = Route(
    name="models",
    method="GET",
    path="/v1/models",
    role="operator",
    summary="How every model stands",
    description="Champion, open predictions, last window, signals and alerts of every model; serving's replicas.",
    answer=MonitoredModels,
)
WINDOWS: Final = Route(
    name="windows",
    method="GET",
    path="/v1/models/{model}/windows",
    role="scientist",
    summary="Measured windows",
    description="Measured windows, as they were published.",
    answer=Windows,
    query=WindowsQuery,
)
PERFORMANCE: Final = Route(
    name="performance",
    method="GET",
    path="/v1/models/{model}/performance",
    role="scientist",
    summary="Quality over time",
    description="The champion's metrics in each window, and where it was called degraded.",
    answer=Performance,
    query=WindowsQuery,
)
DRIFT: Final = Route(
    name="drift",
    method="GET",
    path="/v1/models/{model}/drift",
    role="scientist",
    summary="Drift over time",
    description="Each feature's distance from the champion's profile in each window, and the drift signals.",
    answer=Drift,
    query=WindowsQuery,
)
REJECTIONS: Final = Route(
    name="rejections",
    method="GET",
    path="/v1/streams/{stream}/rejections",
    role="operator",
    summary="What broke a stream's contract",
    description="Rejected records, counted by day of event time and rule.",
    answer=Rejections,
    query=RejectionsQuery,
)

ROUTES: Final[tuple[Route[Any], ...]] = (MODELS, WINDOWS, PERFORMANCE, DRIFT, REJECTIONS)
