"""What a fact says, in one sentence for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from evenkeel.contracts.feature import DatasetCommitted, VectorComputed
from evenkeel.contracts.ingest import EventAccepted
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import (
    ApprovalDecided,
    ChampionChanged,
    GateDecided,
    ModelDeclared,
    StreamDeclared,
    VersionRegistered,
)
from evenkeel.contracts.serving import ActivationFailed, PredictionMade, VersionActivated
from evenkeel.contracts.trainer import LoopChanged, RetrainDecided, RunCompleted, RunFailed, RunStarted

WHAT: Final[Mapping[type[Payload], str]] = {
    StreamDeclared: "stream declaration",
    ModelDeclared: "model declaration",
    DatasetCommitted: "dataset",
    DriftDetected: "drift",
    PerformanceDegraded: "decay",
    RetrainDecided: "decision",
    LoopChanged: "loop",
    RunStarted: "run started",
    RunFailed: "run failed",
    RunCompleted: "run",
    VersionRegistered: "version",
    GateDecided: "gate",
    ApprovalDecided: "approval",
    ChampionChanged: "champion",
    VersionActivated: "activation",
    ActivationFailed: "activation failed",
    PredictionMade: "prediction",
    VectorComputed: "vector",
    EventAccepted: "accepted event",
}
_TRIGGERS: Final = {
    "first_data": "there was enough data for a first model",
    "drift": "the inputs had drifted",
    "decay": "the champion had become worse",
    "schedule": "it was due",
    "command": "somebody asked for it",
}


def sentence(data: Payload) -> str:
    """One sentence, without its time, which stands beside it."""
    match data:
        case PredictionMade():
            return _prediction(data)
        case VectorComputed():
            late = "; the event came late" if data.late else ""
            return (
                f"{len(data.values)} features of {data.event_id} by view {_short(data.view_version)} of {data.model}, "
                f"declaration {data.declaration}{late}"
            )
        case EventAccepted():
            late = ", late" if data.late else ""
            return f"{data.event_id} of stream {data.stream} passed its contract, declaration {data.declaration}{late}"
        case StreamDeclared():
            return f"stream {data.name} was declared: topic {data.spec.get('topic')}, {len(data.spec.get('fields', ()))} fields"
        case ModelDeclared():
            return (
                f"model {data.name} was declared on stream {data.spec.get('stream')} with view {_short(data.view_version)}, "
                f"promotion risk {data.spec.get('promotion', {}).get('risk')}"
            )
        case DatasetCommitted():
            return (
                f"version {data.version} of {data.uri}: {data.rows:,} rows whose labels arrived before {data.label_cut}"
                f"{f' and not before {data.kept_from}' if data.kept_from else ''}, "
                f"events from {data.first_event_time} to {data.last_event_time}, {offsets_in_words(data.offsets)}"
            )
        case DriftDetected():
            strongest = max(data.features, key=lambda f: f.psi, default=None)
            named = f"; strongest {strongest.feature} with PSI {strongest.psi:.3f}" if strongest else ""
            return (
                f"{data.detector} found drift of {data.effect_size:.3f} (significance {data.significance:.2g}, n {data.n:,}) "
                f"in {data.window_start} to {data.window_end} under version {data.version}{named}"
            )
        case PerformanceDegraded():
            return (
                f"{data.metric} of version {data.version} fell from {data.baseline:.4f} to {data.current:.4f} "
                f"(significance {data.significance:.2g}, n {data.n:,}) in {data.window_start} to {data.window_end}"
            )
        case RetrainDecided():
            answer = f"retrain as run {data.run_id}" if data.retrain else f"no retraining ({data.reason})"
            return f"{answer}, because {_TRIGGERS.get(data.trigger, data.trigger)}: {data.detail}"
        case LoopChanged():
            return f"{data.by} {'paused the loop' if data.state == 'paused' else 'let the loop go on'}: {data.reason}"
        case RunStarted():
            return f"run {data.run_id} began, attempt {data.attempt}, on dataset version {data.dataset.version}"
        case RunFailed():
            return f"run {data.run_id} failed, attempt {data.attempt}: {data.reason}: {data.detail}"
        case RunCompleted():
            return _run(data)
        case VersionRegistered():
            return (
                f"version {data.version} is package {_short(data.package)} ({data.package_bytes:,} bytes, "
                f"{data.estimator}) of run {data.run_id}"
            )
        case GateDecided():
            return f"{data.gate} {'passed' if data.passed else 'failed'} for version {data.version}: {data.detail}"
        case ApprovalDecided():
            said = "approved" if data.approved else "rejected"
            comment = f": {data.comment}" if data.comment else ""
            return f"{data.approver} {said} version {data.version} against epoch {data.epoch}{comment}"
        case ChampionChanged():
            return _champion(data)
        case VersionActivated():
            return f"{data.replica} verified version {data.version} and serves it, loaded in {data.load_seconds:.2f} s"
        case ActivationFailed():
            return f"{data.replica} could not take version {data.version}: {data.reason}: {data.detail}"
    return type(data).__name__


def gates_in_words(gates: Sequence[GateDecided]) -> str:
    passed = sum(gate.passed for gate in gates)
    return f"{passed} of {len(gates)} passed: " + "; ".join(
        f"{gate.gate}{'' if gate.passed else ' FAILED'} ({gate.detail})" for gate in gates
    )


def offsets_in_words(offsets: Mapping[str, Mapping[str, int]]) -> str:
    if not offsets:
        return "no offsets named"
    parts = [f"{topic}/{partition} < {end}" for topic, ends in offsets.items() for partition, end in ends.items()]
    return "offsets " + ", ".join(parts)


def _prediction(data: PredictionMade) -> str:
    decided = "" if data.decision is None else f", decided {'yes' if data.decision else 'no'}"
    return (
        f"version {data.version} of {data.model} (epoch {data.epoch}, {data.role}) scored {data.score:.4f} for "
        f"{data.event_id}{decided}, asked by {data.origin}"
    )


def _run(data: RunCompleted) -> str:
    compared = data.comparison
    evidence = (
        "there was no champion to compare with"
        if compared is None
        else f"{compared.metric} {compared.candidate:.4f} against the champion's {compared.champion:.4f} on the same "
        f"{compared.n:,} unseen rows"
    )
    return (
        f"run {data.run_id} fitted {data.estimator} on {data.training_rows:,} rows of dataset version "
        f"{data.dataset.version}; {evidence}; code {data.code_commit[:12]}, seed {data.seed}"
    )


def _champion(data: ChampionChanged) -> str:
    before = f" in place of version {data.previous_version}" if data.previous_version is not None else ""
    why = f": {data.reason}" if data.reason else ""
    return f"version {data.version} became champion of {data.model} (epoch {data.epoch}) by {data.cause}{before}{why}"


def _short(digest: str) -> str:
    """Enough of a digest to recognise it."""
    return digest[: (7 if digest.startswith("sha256:") else 0) + 12]
