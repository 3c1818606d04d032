"""One maker for each payload that tests say often: a plausible fact, of which a test names what it is about.

drift_detected(epoch=2)             as monitor would say it of the champion of epoch 2
run_completed(ref, beats="sha256…") a finished run with this package, compared with that one
"""

from __future__ import annotations

from typing import Any, Final

from evenkeel.contracts.feature import DatasetCommitted, VectorComputed
from evenkeel.contracts.ingest import EventAccepted, EventRejected, LabelAccepted, RawRecord
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.registry import ChampionChanged
from evenkeel.contracts.serving import PredictionMade
from evenkeel.contracts.trainer import Comparison, RetrainDecided, RunCompleted, RunFailed
from evenkeel.libs.packages.package import PackageRef

FIRST_DAY: Final = "2013-01-01T00:00:00Z"
SECOND_DAY: Final = "2013-01-02T00:00:00Z"
NO_PACKAGE: Final = "sha256:" + "0" * 64
RAW: Final = RawRecord(topic="raw", partition=0, offset=0, sha256="0" * 64)


def event_accepted(**changes: Any) -> EventAccepted:
    fields: dict[str, Any] = {"stream": "s", "event_id": "e", "fields": {}, "declaration": 0, "raw": RAW}
    return EventAccepted(**fields | changes)


def label_accepted(**changes: Any) -> LabelAccepted:
    """Its label is named as its event, unless told otherwise."""
    label_id = changes.get("event_id", "e")
    fields: dict[str, Any] = {"stream": "s", "event_id": "e", "label_id": label_id, "fields": {}, "declaration": 0}
    return LabelAccepted(**fields | {"raw": RAW} | changes)


def event_rejected(**changes: Any) -> EventRejected:
    fields: dict[str, Any] = {"stream": "s", "kind": "event", "rule": "type", "reason": "r", "fix": "f", "raw": RAW}
    return EventRejected(**fields | changes)


def vector_computed(**changes: Any) -> VectorComputed:
    fields: dict[str, Any] = {"model": "m", "stream": "s", "event_id": "e", "view_version": "v", "declaration": 0}
    return VectorComputed(**fields | {"values": [1.0]} | changes)


def dataset_committed(**changes: Any) -> DatasetCommitted:
    fields: dict[str, Any] = {
        "model": "m",
        "uri": "tables/m",
        "version": 1,
        "view_version": "v",
        "declaration": 0,
        "rows": 100,
        "added": 100,
        "first_event_time": FIRST_DAY,
        "last_event_time": SECOND_DAY,
        "label_cut": SECOND_DAY,
        "offsets": {},
    }
    return DatasetCommitted(**fields | changes)


def prediction_made(**changes: Any) -> PredictionMade:
    fields: dict[str, Any] = {
        "model": "m",
        "stream": "s",
        "event_id": "e",
        "version": 1,
        "epoch": 1,
        "package": NO_PACKAGE,
        "origin": "stream",
        "score": 0.8,
        "view_version": "v",
    }
    return PredictionMade(**fields | changes)


def drift_detected(**changes: Any) -> DriftDetected:
    fields: dict[str, Any] = {
        "model": "m",
        "detector": "psi",
        "epoch": 1,
        "version": 1,
        "window_start": FIRST_DAY,
        "window_end": SECOND_DAY,
        "effect": 0.3,
        "significance": 0.01,
        "n": 500,
        "features": [],
        "detail": "",
    }
    return DriftDetected(**fields | changes)


def performance_degraded(**changes: Any) -> PerformanceDegraded:
    fields: dict[str, Any] = {
        "model": "m",
        "epoch": 1,
        "version": 1,
        "metric": "roc_auc",
        "baseline": 0.8,
        "current": 0.6,
        "effect": 0.2,
        "significance": 0.01,
        "n": 500,
        "window_start": FIRST_DAY,
        "window_end": SECOND_DAY,
        "detail": "",
    }
    return PerformanceDegraded(**fields | changes)


def retrain_decided(**changes: Any) -> RetrainDecided:
    """No: the last run was too recent."""
    fields: dict[str, Any] = {
        "model": "m",
        "retrain": False,
        "trigger": "drift",
        "reason": "cooldown",
        "detail": "",
        "cause_id": "c",
        "as_of": FIRST_DAY,
    }
    return RetrainDecided(**fields | changes)


def run_failed(**changes: Any) -> RunFailed:
    fields: dict[str, Any] = {"model": "m", "run_id": "run-1", "attempt": 1, "reason": "error", "detail": "d"}
    return RunFailed(**fields | changes)


def comparison(**changes: Any) -> Comparison:
    """Better by 0.1, and by 0.05 for certain."""
    fields: dict[str, Any] = {
        "metric": "roc_auc",
        "n": 900,
        "candidate": 0.8,
        "champion": 0.7,
        "improvement": 0.1,
        "standard_error": 0.01,
        "improvement_lower": 0.05,
        "improvement_upper": 0.2,
        "confidence": 0.9,
    }
    return Comparison(**fields | changes)


def run_completed(
    ref: PackageRef, *, beats: str | None = None, compared: Comparison | None = None, **changes: Any
) -> RunCompleted:
    """With this package; `beats` is the digest of the champion that it was compared with."""
    model = changes.get("model", "m")
    fields: dict[str, Any] = {
        "model": model,
        "run_id": "run-1",
        "trigger": "first_data",
        "package": ref.digest,
        "package_uri": ref.uri,
        "package_bytes": ref.size_bytes,
        "view_version": "v",
        "declaration": 0,
        "estimator": "logistic",
        "parameters": {},
        "dataset": {"uri": f"tables/{model}", "version": 1, "rows": 1000, "label_cut": FIRST_DAY},
        "training_rows": 800,
        "evaluation_rows": 900,
        "candidate": {"digest": ref.digest, "metrics": {"roc_auc": 0.8}},
        "golden_rows": 10,
        "golden_matched": True,
        "code_commit": "test",
        "seed": 1,
        "duration_seconds": 1.0,
    }
    if beats is not None:
        champion = {"digest": beats, "metrics": {"roc_auc": 0.7}}
        fields |= {"trigger": "drift", "champion": champion, "comparison": compared or comparison()}
    return RunCompleted(**fields | changes)


def champion_changed(ref: PackageRef | None = None, **changes: Any) -> ChampionChanged:
    """Promoted by its gates; its version is its epoch, unless told otherwise."""
    epoch = changes.get("epoch", 1)
    digest, uri = (NO_PACKAGE, "artifacts") if ref is None else (ref.digest, ref.uri)
    fields: dict[str, Any] = {
        "model": "m",
        "epoch": 1,
        "version": epoch,
        "package": digest,
        "package_uri": uri,
        "view_version": "v",
        "threshold": 0.5,
        "cause": "promotion",
        "cause_id": "gates",
    }
    return ChampionChanged(**fields | changes)
