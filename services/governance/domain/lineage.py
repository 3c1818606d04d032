"""Why a prediction is as it is: back to the raw record, and to whoever and whatever put its version there.

Control-plane facts come from the graph, data-plane events from the log by the ids that cause each other.
"""

from __future__ import annotations

from typing import TypeVar

from evenkeel.contracts.feature import DatasetCommitted, VectorComputed
from evenkeel.contracts.ids import accepted_event_id
from evenkeel.contracts.ingest import EventAccepted
from evenkeel.contracts.payload import Fact
from evenkeel.contracts.registry import (
    ApprovalDecided,
    ChampionChanged,
    GateDecided,
    ModelDeclared,
    StreamDeclared,
    VersionRegistered,
)
from evenkeel.contracts.serving import ActivationFailed, PredictionMade, VersionActivated
from evenkeel.contracts.trainer import DatasetVersion, RetrainDecided, RunCompleted
from evenkeel.contracts.words import offsets
from evenkeel.services.governance.domain.facts import LoggedFact
from evenkeel.services.governance.domain.steps import (
    asked_step,
    command_step,
    fallback_step,
    gates_step,
    raw_record_step,
    request_step,
)
from evenkeel.services.governance.domain.walk import Walk

F = TypeVar("F", bound=Fact)


def explain_prediction(walk: Walk, prediction: LoggedFact[PredictionMade]) -> None:
    """From a prediction to everything it rests on."""
    said = prediction.data
    walk.add(prediction)
    champions = walk.graph.facts(ChampionChanged, said.model, said.epoch)
    champion = walk.first(champions, "champion", f"epoch {said.epoch} of {said.model}")
    if champion is not None:
        walk.add(champion, *walk.graph.facts(VersionActivated, said.model, said.epoch))
        _check_reign(walk, said, champion)
    explain_version(walk, said.model, said.version, champion)
    _explain_input(walk, prediction)


def explain_champion(walk: Walk, champion: LoggedFact[ChampionChanged]) -> None:
    """From a change of champion to everything it rests on."""
    changed = champion.data
    walk.add(champion, *walk.graph.facts(VersionActivated, changed.model, changed.epoch))
    explain_version(walk, changed.model, changed.version, champion)


def explain_version(walk: Walk, model: str, version: int, champion: LoggedFact[ChampionChanged] | None) -> None:
    """Where a version comes from, what it was held to, and why it became champion."""
    graph = walk.graph
    registered = walk.first(graph.facts(VersionRegistered, model, version), "version", f"version {version} of {model}")
    run_id = None if registered is None else registered.data.run_id
    if champion is not None and champion.data.version == version:
        run_id = champion.data.run_id or run_id
    if registered is not None:
        walk.add(registered)
    run = None if run_id is None else walk.first(graph.of_run(RunCompleted, run_id), "run", run_id)
    if run is not None:
        walk.add(run)
        _explain_dataset(walk, model, run.data.dataset)
    if run_id is not None:
        _explain_gates(walk, model, version, run_id, champion)
    if champion is not None:
        _explain_promotion(walk, champion, run)
    if run_id is not None:
        _explain_decision(walk, run_id)


def explain_event(walk: Walk, accepted: LoggedFact[EventAccepted]) -> None:
    """From an accepted event to its raw record."""
    walk.add(accepted)
    _explain_declaration(walk, StreamDeclared, accepted.data.stream, accepted.data.declaration)
    walk.steps.append(raw_record_step(accepted))


def _check_reign(walk: Walk, said: PredictionMade, champion: LoggedFact[ChampionChanged]) -> None:
    """Only the epoch's own version may answer, or the rollback target that it names."""
    changed, target = champion.data, champion.data.rollback_target
    if (said.version, said.package) == (changed.version, changed.package):
        return
    if target is None or (said.version, said.package) != (target.version, target.package):
        why = f"epoch {said.epoch} is version {changed.version}, the prediction is by version {said.version}"
        walk.miss("champion", f"epoch {said.epoch} of {said.model}", why)
        return
    walk.add(*walk.graph.facts(ActivationFailed, said.model, said.epoch))
    walk.steps.append(fallback_step(champion, target))


def _explain_dataset(walk: Walk, model: str, dataset: DatasetVersion) -> None:
    found = [
        fact
        for fact in walk.graph.facts(DatasetCommitted, model, dataset.version)
        if (fact.data.uri, fact.data.label_cut) == (dataset.uri, dataset.label_cut)
    ]
    committed = walk.first(found, "dataset", f"version {dataset.version} of {dataset.uri}")
    if committed is None:
        return
    walk.add(committed)
    if dataset.offsets and dataset.offsets != committed.data.offsets:
        why = f"the run read {offsets(dataset.offsets)}, the commit names {offsets(committed.data.offsets)}"
        walk.miss("dataset", committed.event_id, why)


def _explain_gates(
    walk: Walk, model: str, version: int, run_id: str, champion: LoggedFact[ChampionChanged] | None
) -> None:
    gates = [fact for fact in walk.graph.facts(GateDecided, model, version) if fact.data.run_id == run_id]
    first = walk.first(gates, "gates", f"version {version} of {model}, run {run_id}")
    if first is None:
        return
    walk.steps.append(gates_step(gates))
    failed = [fact.data.gate for fact in gates if not fact.data.passed]
    if failed and _is_promotion_of(champion, version):
        walk.miss("gates", first.event_id, f"promoted although {', '.join(failed)} failed")


def _is_promotion_of(champion: LoggedFact[ChampionChanged] | None, version: int) -> bool:
    return (
        champion is not None and champion.data.version == version and champion.data.cause in ("promotion", "approval")
    )


def _explain_promotion(walk: Walk, champion: LoggedFact[ChampionChanged], run: LoggedFact[RunCompleted] | None) -> None:
    """What made the champion change: its run, a person, or the one before it."""
    changed = champion.data
    if changed.cause == "promotion":
        if run is not None and run.data.run_id == changed.run_id and run.event_id != changed.cause_id:
            walk.miss("champion", champion.event_id, f"its cause {changed.cause_id} is not the run's completion")
    elif changed.cause == "approval":
        _explain_approval(walk, changed)
    else:
        degraded = walk.graph.with_id(changed.cause_id)
        if degraded is None:
            walk.steps.append(command_step(champion))
        else:
            walk.add(degraded, what="rollback" if changed.cause == "command" else changed.cause)


def _explain_approval(walk: Walk, changed: ChampionChanged) -> None:
    approvals = [fact for fact in walk.graph.caused_by(ApprovalDecided, changed.cause_id) if fact.data.approved]
    approval = walk.first(approvals, "approval", f"epoch {changed.epoch} of {changed.model}")
    if approval is None:
        return
    walk.add(approval)
    if (approval.data.version, approval.data.package) != (changed.version, changed.package):
        walk.miss("approval", approval.event_id, "it approves another version than was promoted")


def _explain_decision(walk: Walk, run_id: str) -> None:
    decisions = [fact for fact in walk.graph.of_run(RetrainDecided, run_id) if fact.data.retrain]
    decision = walk.first(decisions, "decision", run_id)
    if decision is None:
        return
    walk.add(decision)
    trigger = walk.graph.with_id(decision.data.cause_id)
    if trigger is not None:
        walk.add(trigger, what="trigger")
    elif decision.data.trigger == "command":
        walk.steps.append(asked_step(decision))
    else:
        why = f"the {decision.data.trigger} that asked for it is not logged"
        walk.miss("trigger", decision.data.cause_id, why)


def _explain_input(walk: Walk, prediction: LoggedFact[PredictionMade]) -> None:
    """What was predicted from: a published vector and its event, or what came with the request."""
    said = prediction.data
    if said.vector_id is None:
        walk.steps.append(request_step(prediction))
        accepted = walk.graph.event(EventAccepted, accepted_event_id(said.stream, said.event_id))
        if accepted is not None:
            explain_event(walk, accepted)
        return
    vector = walk.event(VectorComputed, said.vector_id)
    if vector is None:
        return
    walk.add(vector)
    _explain_declaration(walk, ModelDeclared, said.model, vector.data.declaration)
    if vector.data.model != said.model or vector.data.event_id != said.event_id:
        why = f"it is of {vector.data.event_id} for {vector.data.model}, the prediction is of {said.event_id}"
        walk.miss("vector", said.vector_id, why)
    accepted = walk.event(EventAccepted, vector.cause_id or accepted_event_id(said.stream, said.event_id))
    if accepted is not None:
        explain_event(walk, accepted)


def _explain_declaration(walk: Walk, payload: type[F], name: str, offset: int) -> None:
    found = walk.first(walk.graph.facts(payload, name, offset), payload.what, f"{name}, offset {offset}")
    if found is not None:
        walk.add(found)
