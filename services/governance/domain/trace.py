"""Where a walk begins: what an id names, and what became of it."""

from __future__ import annotations

from typing import Final, Literal

from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ids import accepted_event_id, prediction_id, vector_id
from evenkeel.contracts.ingest import EventAccepted
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.payload import Fact
from evenkeel.contracts.registry import ApprovalDecided, ChampionChanged, ModelDeclared, StreamDeclared
from evenkeel.contracts.serving import ActivationFailed, PredictionMade, VersionActivated
from evenkeel.contracts.topics import TOPICS
from evenkeel.contracts.trainer import RetrainDecided
from evenkeel.libs.errors import Refused
from evenkeel.services.governance.domain.facts import LoggedFact
from evenkeel.services.governance.domain.graph import Graph
from evenkeel.services.governance.domain.lineage import explain_event, explain_prediction
from evenkeel.services.governance.domain.walk import Walk, unknown_model

Kind = Literal["event", "prediction", "loop", "fact"]


def find_prediction(graph: Graph, identifier: str, model: str | None) -> LoggedFact[PredictionMade]:
    """By its own id, or by the outside id of the event that was scored in `model`'s stream. Raises Refused."""
    found = graph.event(PredictionMade, identifier)
    if found is not None and model not in (None, found.data.model):
        raise Refused(
            404, "Another model", f"This prediction is of {found.data.model}.", field="model", fix="Name that one."
        )
    if found is None and model is not None:
        found = _prediction_of(graph, identifier, model)
    if found is not None:
        return found
    if model is None:
        known = graph.any_event(identifier)
        kind = "The log has no event with this id." if known is None else f"It is an event of {known.topic}."
        raise Refused(
            404,
            "Unknown prediction",
            f"There is no prediction {identifier}. {kind}",
            field="id",
            fix="Give the prediction's CloudEvents id, or the outside event id together with ?model=.",
        )
    raise Refused(
        404,
        "Unknown prediction",
        f"The log has no prediction of {model} for an event {identifier}.",
        field="id",
        fix="It may not be logged yet, or was asked for over HTTP: then give the prediction's own id.",
    )


def _prediction_of(graph: Graph, event_id: str, model: str) -> LoggedFact[PredictionMade] | None:
    """What a model's newest view that knows an outside event predicted of it on the stream."""
    declarations = graph.facts(ModelDeclared, model)
    if not declarations:
        raise unknown_model(graph, model)
    views = dict.fromkeys(
        (str(fact.data.spec.get("stream")), fact.data.view_version) for fact in reversed(declarations)
    )
    for stream, view_version in views:
        vector = vector_id(accepted_event_id(stream, event_id), model, view_version)
        found = graph.event(PredictionMade, prediction_id(vector))
        if found is not None:
            return found
    return None


def follow(walk: Walk, identifier: str, model: str | None) -> Kind:
    """Walk from whatever the id names; says what that is. Raises Refused."""
    graph = walk.graph
    prediction = graph.event(PredictionMade, identifier)
    if prediction is not None:
        explain_prediction(walk, prediction)
        return "prediction"
    run_id = _run_named(graph, identifier)
    if run_id is not None:
        follow_run(walk, run_id)
        return "loop"
    found = graph.with_id(identifier)
    accepted = _accepted(graph, identifier) if found is None else []
    if accepted:
        for event in accepted:
            _follow_event(walk, event, model)
        return "event"
    found = found or graph.any_event(identifier)
    if found is not None:
        # A signal or a decision that led to no run; or what is no part of a turn.
        walk.add(found, *graph.caused_by(RetrainDecided, identifier))
        return "loop" if isinstance(found.data, DriftDetected | PerformanceDegraded | RetrainDecided) else "fact"
    raise Refused(
        404,
        "Nothing has this id",
        f"The log has no event, prediction, run, signal or decision {identifier}.",
        field="id",
        fix="It may not be logged yet; a rejected record is found with `evenkeel rejected list`.",
    )


def _run_named(graph: Graph, identifier: str) -> str | None:
    """The run that an id is part of: its own id, or that of any fact of its turn."""
    if graph.of_run(RetrainDecided, identifier):
        return identifier
    fact = graph.with_id(identifier)
    if fact is None:
        return None
    if fact.run_id is not None:
        return fact.run_id
    if isinstance(fact.data, VersionActivated | ActivationFailed):
        champions = graph.facts(ChampionChanged, fact.data.model, fact.data.epoch)
        return champions[0].run_id if champions else None
    decided = [decision for decision in graph.caused_by(RetrainDecided, identifier) if decision.data.retrain]
    return decided[0].run_id if decided else None


def follow_run(walk: Walk, run_id: str) -> None:
    """One turn of the loop: what asked and the decision, then all that names the run, who approved, and the replicas."""
    graph = walk.graph
    decision = walk.first(graph.of_run(RetrainDecided, run_id), "decision", run_id)
    if decision is not None:
        trigger = graph.with_id(decision.data.cause_id)
        if trigger is not None:
            walk.add(trigger, what="trigger")
        walk.add(decision)
    turn = [fact for fact in graph.part_of_run(run_id) if not isinstance(fact.data, RetrainDecided)]
    for champion in graph.of_run(ChampionChanged, run_id):
        turn += graph.caused_by(ApprovalDecided, champion.data.cause_id)
        turn += graph.facts(VersionActivated, champion.data.model, champion.data.epoch)
        turn += graph.facts(ActivationFailed, champion.data.model, champion.data.epoch)
    walk.add(*sorted(turn, key=_in_turn))


_PLACE_IN_MAP: Final[dict[type[Fact], int]] = {topic.payload: number for number, topic in enumerate(TOPICS)}


def _in_turn(fact: LoggedFact[Fact]) -> tuple[int, int, int]:
    """As they were said. What one transaction said has one time, and stands on several topics: then in the map's order."""
    return fact.recorded_us, _PLACE_IN_MAP.get(type(fact.data), len(TOPICS)), fact.leaf


def _accepted(graph: Graph, identifier: str) -> list[LoggedFact[EventAccepted]]:
    """By its own id, or by its outside id in any stream."""
    ids = [identifier, *(accepted_event_id(stream, identifier) for stream in graph.subjects(StreamDeclared))]
    return [fact for fact in (graph.event(EventAccepted, event_id) for event_id in ids) if fact is not None]


def _follow_event(walk: Walk, accepted: LoggedFact[EventAccepted], model: str | None) -> None:
    """From a raw record to every prediction that was made of it on the stream."""
    graph, before = walk.graph, len(walk.steps)
    explain_event(walk, accepted)
    walk.steps[before:] = reversed(walk.steps[before:])
    for name in graph.subjects(ModelDeclared) if model is None else (model,):
        for view_version in dict.fromkeys(fact.data.view_version for fact in graph.facts(ModelDeclared, name)):
            vector = graph.event(VectorComputed, vector_id(accepted.event_id, name, view_version))
            if vector is None:
                continue
            walk.add(vector)
            prediction = graph.event(PredictionMade, prediction_id(vector.event_id))
            if prediction is not None:
                walk.add(prediction)
