"""The one map of topics: what is said, by whom, to whom, keyed how, kept how long.

A new fact starts here: a payload, a row, an example message. `TOPICS` is the rows; everything else (AsyncAPI, schemas,
topic creation, the runtime's routing, the topology test) is derived from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from evenkeel.contracts import feature, governance, ingest, monitor, registry, runtime, serving, trainer
from evenkeel.contracts.payload import Fact, Payload

SERVICES: Final = ("ingest", "feature", "trainer", "registry", "serving", "monitor", "governance")
DAY_MS: Final = 86_400_000


class Plane(StrEnum):
    DATA = "data"
    """Events, vectors, predictions: many, kept by time."""
    CONTROL = "control"
    """Small facts, kept for ever, folded by every service that needs them before it touches data."""


@dataclass(frozen=True, slots=True)
class Topic:
    """One row. `key` gives the record key of a payload; the partition follows from it."""

    name: str
    payload: type[Fact]
    producer: str
    consumers: tuple[str, ...]
    plane: Plane
    key: Callable[[Any], str]
    partitions: int = 1
    retention_ms: int = -1
    compacted: bool = False
    personal: bool = False
    also: tuple[type[Payload], ...] = (runtime.SourcesSealed,)
    """What travels in band beside the payload."""

    @property
    def config(self) -> dict[str, str]:
        """The broker's settings of this topic."""
        return {
            "cleanup.policy": "compact" if self.compacted else "delete",
            "retention.ms": str(self.retention_ms),
            "message.timestamp.type": "LogAppendTime",
            "compression.type": "producer",
        }


def _data(
    name: str, payload: type[Fact], producer: str, consumers: tuple[str, ...], key: Callable[[Any], str], **more: Any
) -> Topic:
    return Topic(
        name, payload, producer, consumers, Plane.DATA, key, **{"partitions": 3, "retention_ms": 30 * DAY_MS} | more
    )


def _control(
    name: str, payload: type[Fact], producer: str, consumers: tuple[str, ...], key: Callable[[Any], str], **more: Any
) -> Topic:
    return Topic(name, payload, producer, consumers, Plane.CONTROL, key, **more)


def _model(payload: Any) -> str:
    return str(payload.model)


def _event(payload: Any) -> str:
    return str(payload.event_id)


def _name(payload: Any) -> str:
    return str(payload.name)


_LOG = "governance"
_CLOCKED: Final = (runtime.ClockAdvanced, runtime.SourcesSealed)

TOPICS: Final[tuple[Topic, ...]] = (
    _data(
        "ingest.event-accepted.v1",
        ingest.EventAccepted,
        "ingest",
        ("feature", _LOG),
        _event,
        personal=True,
        also=_CLOCKED,
    ),
    _data(
        "ingest.label-accepted.v1",
        ingest.LabelAccepted,
        "ingest",
        ("feature", "monitor", _LOG),
        _event,
        personal=True,
        also=_CLOCKED,
    ),
    _data(
        "ingest.event-rejected.v1",
        ingest.EventRejected,
        "ingest",
        ("monitor", _LOG),
        lambda p: p.stream,
        personal=True,
        partitions=1,
    ),
    _data(
        "feature.vector-computed.v1",
        feature.VectorComputed,
        "feature",
        ("serving", "monitor", _LOG),
        _event,
        also=_CLOCKED,
    ),
    _data(
        "feature.view-updated.v1",
        feature.ViewUpdated,
        "feature",
        ("serving",),
        lambda p: f"{p.view}|{p.view_version}|{p.slot}",
        retention_ms=-1,
        compacted=True,
        also=_CLOCKED,
    ),
    _control("feature.view-started.v1", feature.ViewStarted, "feature", (_LOG,), _model),
    _control("feature.dataset-committed.v1", feature.DatasetCommitted, "feature", ("trainer", _LOG), _model),
    _control("trainer.retrain-decided.v1", trainer.RetrainDecided, "trainer", ("monitor", _LOG), _model),
    _control("trainer.loop-changed.v1", trainer.LoopChanged, "trainer", (_LOG,), _model),
    _control("trainer.run-started.v1", trainer.RunStarted, "trainer", ("monitor", _LOG), _model),
    _control("trainer.run-completed.v1", trainer.RunCompleted, "trainer", ("registry", "monitor", _LOG), _model),
    _control("trainer.run-failed.v1", trainer.RunFailed, "trainer", ("monitor", _LOG), _model),
    _control(
        "registry.stream-declared.v1",
        registry.StreamDeclared,
        "registry",
        ("ingest", "feature", "trainer", "monitor", _LOG),
        _name,
    ),
    _control(
        "registry.model-declared.v1",
        registry.ModelDeclared,
        "registry",
        ("feature", "trainer", "serving", "monitor", _LOG),
        _name,
    ),
    _control("registry.version-registered.v1", registry.VersionRegistered, "registry", (_LOG,), _model),
    _control("registry.gate-decided.v1", registry.GateDecided, "registry", ("trainer", _LOG), _model),
    _control("registry.approval-decided.v1", registry.ApprovalDecided, "registry", (_LOG,), _model),
    _control(
        "registry.champion-changed.v1",
        registry.ChampionChanged,
        "registry",
        ("trainer", "serving", "monitor", _LOG),
        _model,
    ),
    _data("serving.prediction-made.v1", serving.PredictionMade, "serving", ("monitor", _LOG), _event, also=_CLOCKED),
    _control("serving.version-activated.v1", serving.VersionActivated, "serving", ("registry", _LOG), _model),
    _control("serving.activation-failed.v1", serving.ActivationFailed, "serving", ("registry", _LOG), _model),
    _control("serving.replica-seen.v1", serving.ReplicaSeen, "serving", ("monitor", _LOG), lambda p: p.replica),
    _control("monitor.window-measured.v1", monitor.WindowMeasured, "monitor", (_LOG,), _model),
    _control("monitor.drift-detected.v1", monitor.DriftDetected, "monitor", ("trainer", _LOG), _model),
    _control(
        "monitor.performance-degraded.v1", monitor.PerformanceDegraded, "monitor", ("trainer", "registry", _LOG), _model
    ),
    _control("monitor.alert-changed.v1", monitor.AlertChanged, "monitor", (_LOG,), _model),
    _control("governance.checkpoint-signed.v1", governance.CheckpointSigned, "governance", (), lambda p: "log"),
    _control(
        "governance.subject-erased.v1",
        governance.SubjectErased,
        "governance",
        ("ingest", "feature", "serving"),
        lambda p: p.subject,
    ),
    *(
        _data(
            f"{s}.record-dead-lettered.v1",
            runtime.RecordDeadLettered,
            s,
            () if s == _LOG else (_LOG,),
            lambda p: p.topic,
            partitions=1,
            personal=True,
        )
        for s in SERVICES
    ),
)

BY_NAME: Final = {topic.name: topic for topic in TOPICS}


def topic_of(payload: type[Payload], service: str) -> Topic:
    """The topic on which a service publishes this payload.

    >>> topic_of(ingest.EventAccepted, "ingest").name
    'ingest.event-accepted.v1'
    """
    for topic in TOPICS:
        if topic.payload is payload and topic.producer == service:
            return topic
    raise LookupError(f"{service} publishes no {payload.__name__}: add a row to contracts/topics.py")


def topics_carrying(payload: type[Payload]) -> tuple[Topic, ...]:
    """The topics whose records carry this payload."""
    return tuple(topic for topic in TOPICS if topic.payload is payload)


def consumed_by(service: str) -> tuple[Topic, ...]:
    return tuple(topic for topic in TOPICS if service in topic.consumers)


def published_by(service: str) -> tuple[Topic, ...]:
    return tuple(topic for topic in TOPICS if topic.producer == service)
