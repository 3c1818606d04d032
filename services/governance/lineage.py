"""Why a prediction is as it is: the walk from it back to the raw record, and to whoever and whatever put its version there.

Control-plane facts come from the graph, data-plane events from the log by the ids that cause each other. What is not
found, or contradicts what it should prove, is said in `missing`; the rest of the walk goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.feature import DatasetCommitted, VectorComputed
from evenkeel.contracts.ids import accepted_event_id, prediction_id, vector_id
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
from evenkeel.contracts.topics import topics_carrying
from evenkeel.contracts.trainer import DatasetVersion, RetrainDecided, RunCompleted, RunFailed, RunStarted
from evenkeel.libs.audit.log import AuditLog
from evenkeel.libs.errors import Refused
from evenkeel.services.governance.facts import Fact, Opaque, read_event
from evenkeel.services.governance.sentences import WHAT, gates_in_words, offsets_in_words, sentence
from evenkeel.services.governance.store import GovernanceStore

P = TypeVar("P", bound=Payload)
Followed = Literal["event", "prediction", "loop", "fact"]


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain, with the leaf that proves it; a raw record is proven by the leaf that holds its digest."""

    what: str
    id: str
    summary: str
    data: dict[str, Any]
    leaf: int | None = None
    event_us: int | None = None
    recorded_us: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "id": self.id,
            "time": None if self.event_us is None else format_us(self.event_us),
            "recorded": None if self.recorded_us is None else format_us(self.recorded_us),
            "summary": self.summary,
            "data": self.data,
            "leaf": self.leaf,
        }


def step_of(fact: Fact[Payload], what: str | None = None) -> Step:
    data = fact.data
    return Step(
        what or WHAT[type(data)],
        fact.event_id,
        sentence(data),
        data.model_dump(mode="json", by_alias=True),
        fact.leaf,
        fact.event_us,
        fact.recorded_us,
    )


@dataclass(slots=True)
class Lineage:
    """One walk; `steps` and `missing` grow as it goes."""

    connection: sa.Connection
    log: AuditLog
    steps: list[Step] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)

    @property
    def _graph(self) -> GovernanceStore:
        return GovernanceStore(self.connection)

    # -- finding the prediction -------------------------------------------------------------------------------------

    def find_prediction(self, identifier: str, model: str | None) -> Fact[PredictionMade]:
        """By its own id, or by the outside id of the event that was scored in `model`'s stream. Raises Refused."""
        found = self._event(identifier, PredictionMade)
        if found is not None:
            if model in (None, found.data.model):
                return found
            raise Refused(
                404, "Another model", f"This prediction is of {found.data.model}.", field="model", fix="Name that one."
            )
        if model is None:
            known = self.log.find(self.connection, identifier)
            kind = f"It is an event of {known[0][1].topic}." if known else "The log has no event with this id."
            raise Refused(
                404,
                "Unknown prediction",
                f"There is no prediction {identifier}. {kind}",
                field="id",
                fix="Give the prediction's CloudEvents id, or the outside event id together with ?model=.",
            )
        declarations = self._graph.facts(ModelDeclared, model)
        if not declarations:
            raise unknown_model(self._graph, model)
        views = dict.fromkeys(
            (str(fact.data.spec.get("stream")), fact.data.view_version) for fact in reversed(declarations)
        )
        for stream, view_version in views:
            vector = vector_id(accepted_event_id(stream, identifier), model, view_version)
            found = self._event(prediction_id(vector), PredictionMade)
            if found is not None:
                return found
        raise Refused(
            404,
            "Unknown prediction",
            f"The log has no prediction of {model} for an event {identifier}.",
            field="id",
            fix="It may not be logged yet, or was asked for over HTTP: then give the prediction's own id.",
        )

    def _event(self, event_id: str, payload: type[P]) -> Fact[P] | None:
        """The first record with this id that carries the payload."""
        (topic,) = topics_carrying(payload)
        for leaf, record in self.log.find(self.connection, event_id):
            if record.topic == topic.name:
                try:
                    return read_event(record, leaf, payload)
                except Opaque:
                    continue
        return None

    # -- any id -------------------------------------------------------------------------------------------------------

    def follow(self, identifier: str, model: str | None) -> Followed:
        """Walk from whatever the id names; says what that is. Raises Refused."""
        prediction = self._event(identifier, PredictionMade)
        if prediction is not None:
            self.explain(prediction)
            return "prediction"
        run_id = self._run_named(identifier)
        if run_id is not None:
            self.follow_run(run_id)
            return "loop"
        refused = self._graph.with_id(identifier)
        if refused is not None:
            # A signal or a decision that led to no run; or a fact that is no part of a turn.
            self.steps.append(step_of(refused))
            self.steps += map(step_of, self._graph.caused_by(RetrainDecided, identifier))
            return "loop" if isinstance(refused.data, DriftDetected | PerformanceDegraded | RetrainDecided) else "fact"
        accepted = self._accepted(identifier)
        if accepted:
            for event in accepted:
                self._follow_event(event, model)
            return "event"
        raise Refused(
            404,
            "Nothing has this id",
            f"The log has no event, prediction, run, signal or decision {identifier}.",
            field="id",
            fix="It may not be logged yet; a rejected record is found with `evenkeel rejected list`.",
        )

    def follow_run(self, run_id: str) -> None:
        """One turn of the loop, in its order: what asked, the decision, the run, its gates, the champion, the replicas."""
        graph = self._graph
        decisions = self._found(graph.of_run(RetrainDecided, run_id), "decision", run_id)
        if decisions is not None:
            trigger = graph.with_id(decisions.data.cause_id)
            if trigger is not None:
                self.steps.append(step_of(trigger, "trigger"))
            self.steps.append(step_of(decisions))
        for payload in (RunStarted, RunFailed, RunCompleted, VersionRegistered, GateDecided):
            found: list[Fact[Any]] = graph.of_run(payload, run_id)
            self.steps += map(step_of, found)
        for champion in graph.of_run(ChampionChanged, run_id):
            self.steps += map(step_of, graph.caused_by(ApprovalDecided, champion.data.cause_id))
            self.steps.append(step_of(champion))
            for receipt in (VersionActivated, ActivationFailed):
                told: list[Fact[Any]] = graph.facts(receipt, champion.data.model, champion.data.epoch)
                self.steps += map(step_of, told)

    def _run_named(self, identifier: str) -> str | None:
        """The run that an id is part of: its own id, or that of any fact of its turn."""
        if self._graph.of_run(RetrainDecided, identifier):
            return identifier
        fact = self._graph.with_id(identifier)
        if fact is None:
            return None
        run_id = getattr(fact.data, "run_id", None)
        if run_id is not None:
            return str(run_id)
        if isinstance(fact.data, VersionActivated | ActivationFailed):
            champions = self._graph.facts(ChampionChanged, fact.data.model, fact.data.epoch)
            return champions[0].data.run_id if champions else None
        decided = [d.data.run_id for d in self._graph.caused_by(RetrainDecided, identifier) if d.data.retrain]
        return decided[0] if decided else None

    def _accepted(self, identifier: str) -> list[Fact[EventAccepted]]:
        """By its own id, or by its outside id in any stream."""
        ids = [identifier]
        ids += [accepted_event_id(stream, identifier) for stream in self._graph.subjects(StreamDeclared)]
        return [fact for fact in (self._event(event_id, EventAccepted) for event_id in ids) if fact is not None]

    def _follow_event(self, accepted: Fact[EventAccepted], model: str | None) -> None:
        """From a raw record to every prediction that was made of it on the stream."""
        said = accepted.data
        accepted_id = accepted_event_id(said.stream, said.event_id)
        here = len(self.steps)
        self._explain_event(accepted)
        self.steps[here:] = reversed(self.steps[here:])
        for name in self._graph.subjects(ModelDeclared) if model is None else (model,):
            for view_version in dict.fromkeys(
                fact.data.view_version for fact in self._graph.facts(ModelDeclared, name)
            ):
                vector = self._event(vector_id(accepted_id, name, view_version), VectorComputed)
                if vector is None:
                    continue
                self.steps.append(step_of(vector))
                prediction = self._event(prediction_id(vector.event_id), PredictionMade)
                if prediction is not None:
                    self.steps.append(step_of(prediction))

    # -- the walk -----------------------------------------------------------------------------------------------------

    def explain(self, prediction: Fact[PredictionMade]) -> None:
        """From a prediction to everything it rests on."""
        said = prediction.data
        self.steps.append(step_of(prediction))
        champions = self._graph.facts(ChampionChanged, said.model, said.epoch)
        champion = self._found(champions, "champion", f"epoch {said.epoch} of {said.model}")
        if champion is not None:
            self.steps.append(step_of(champion))
            self.steps += map(step_of, self._graph.facts(VersionActivated, said.model, said.epoch))
            self._check_reign(said, champion)
        self.explain_version(said.model, said.version, champion)
        self._explain_input(prediction)

    def explain_version(self, model: str, version: int, champion: Fact[ChampionChanged] | None) -> None:
        """Where a version comes from, what it was held to, and why it became champion."""
        registered = self._found(
            self._graph.facts(VersionRegistered, model, version), "version", f"version {version} of {model}"
        )
        run_id = None if registered is None else registered.data.run_id
        if champion is not None and champion.data.version == version:
            run_id = champion.data.run_id or run_id
        if registered is not None:
            self.steps.append(step_of(registered))
        run = None if run_id is None else self._found(self._graph.of_run(RunCompleted, run_id), "run", run_id)
        if run is not None:
            self.steps.append(step_of(run))
            self._explain_dataset(model, run.data.dataset)
        if run_id is not None:
            self._explain_gates(model, version, run_id, champion)
        if champion is not None:
            self._explain_promotion(champion, run)
        if run_id is not None:
            self._explain_decision(run_id)

    def _check_reign(self, said: PredictionMade, champion: Fact[ChampionChanged]) -> None:
        """Only the epoch's own version may answer, or the rollback target that it names."""
        changed = champion.data
        if (said.version, said.package) == (changed.version, changed.package):
            return
        target = changed.rollback_target
        if target is None or (said.version, said.package) != (target.version, target.package):
            why = f"epoch {said.epoch} is version {changed.version}, the prediction is by version {said.version}"
            self._miss("champion", f"epoch {said.epoch} of {said.model}", why)
            return
        self.steps += map(step_of, self._graph.facts(ActivationFailed, said.model, said.epoch))
        summary = (
            f"version {changed.version} was not loaded where this was answered, its named fallback {said.version} was"
        )
        self.steps.append(Step("fallback", champion.event_id, summary, target.model_dump(), champion.leaf))

    def _explain_dataset(self, model: str, dataset: DatasetVersion) -> None:
        found = [
            fact
            for fact in self._graph.facts(DatasetCommitted, model, dataset.version)
            if (fact.data.uri, fact.data.label_cut) == (dataset.uri, dataset.label_cut)
        ]
        committed = self._found(found, "dataset", f"version {dataset.version} of {dataset.uri}")
        if committed is None:
            return
        self.steps.append(step_of(committed))
        if dataset.offsets and dataset.offsets != committed.data.offsets:
            why = f"the run names other {offsets_in_words(dataset.offsets)} than the commit"
            self._miss("dataset", committed.event_id, why)

    def _explain_gates(self, model: str, version: int, run_id: str, champion: Fact[ChampionChanged] | None) -> None:
        gates = [fact for fact in self._graph.facts(GateDecided, model, version) if fact.data.run_id == run_id]
        first = self._found(gates, "gates", f"version {version} of {model}, run {run_id}")
        if first is None:
            return
        decided = [fact.data.model_dump(mode="json") | {"id": fact.event_id, "leaf": fact.leaf} for fact in gates]
        summary = gates_in_words([fact.data for fact in gates])
        data = {"version": version, "run_id": run_id, "gates": decided}
        self.steps.append(
            Step("gates", first.event_id, summary, data, first.leaf, first.event_us, first.recorded_us),
        )
        failed = [fact.data.gate for fact in gates if not fact.data.passed]
        if failed and _is_promotion_of(champion, version):
            self._miss("gates", first.event_id, f"promoted although {', '.join(failed)} failed")

    def _explain_promotion(self, champion: Fact[ChampionChanged], run: Fact[RunCompleted] | None) -> None:
        """What made the champion change: its run, a person, or the one before it."""
        changed = champion.data
        match changed.cause:
            case "promotion":
                if run is not None and run.data.run_id == changed.run_id and run.event_id != changed.cause_id:
                    self._miss(
                        "champion", champion.event_id, f"its cause {changed.cause_id} is not the run's completion"
                    )
            case "approval":
                approval = self._found(
                    [a for a in self._graph.caused_by(ApprovalDecided, changed.cause_id) if a.data.approved],
                    "approval",
                    f"epoch {changed.epoch} of {changed.model}",
                )
                if approval is not None:
                    self.steps.append(step_of(approval))
                    if (approval.data.version, approval.data.package) != (changed.version, changed.package):
                        self._miss("approval", approval.event_id, "it approves another version than was promoted")
            case _:
                degraded = self._graph.with_id(changed.cause_id)
                if degraded is not None:
                    self.steps.append(step_of(degraded, "rollback" if changed.cause == "command" else changed.cause))
                    return
                by_hand = changed.cause in ("rollback", "command")
                how = "by hand" if by_hand else f"for a cause that is not known here, {changed.cause}"
                quarantined = (
                    f"version {changed.quarantined} was taken out of service" if changed.quarantined else "done"
                )
                self.steps.append(
                    Step(
                        changed.cause,
                        changed.cause_id,
                        f"{quarantined} {how}: {changed.reason or 'no reason given'}",
                        {"reason": changed.reason, "quarantined": changed.quarantined},
                        champion.leaf,
                        champion.event_us,
                        champion.recorded_us,
                    )
                )

    def _explain_decision(self, run_id: str) -> None:
        decisions = [fact for fact in self._graph.of_run(RetrainDecided, run_id) if fact.data.retrain]
        decision = self._found(decisions, "decision", run_id)
        if decision is None:
            return
        self.steps.append(step_of(decision))
        trigger = self._graph.with_id(decision.data.cause_id)
        if trigger is not None:
            self.steps.append(step_of(trigger, "trigger"))
        elif decision.data.trigger == "command":
            self.steps.append(
                Step(
                    "trigger",
                    decision.data.cause_id,
                    "somebody asked for the run",
                    {},
                    decision.leaf,
                    decision.event_us,
                    decision.recorded_us,
                )
            )
        else:
            self._miss(
                "trigger", decision.data.cause_id, f"the {decision.data.trigger} that asked for it is not logged"
            )

    def _explain_input(self, prediction: Fact[PredictionMade]) -> None:
        """What was predicted from: a published vector and its event, or what came with the request."""
        said = prediction.data
        if said.vector_id is None:
            accepted = self._event(accepted_event_id(said.stream, said.event_id), EventAccepted)
            summary = f"{len(said.values or ())} features came with the request or from the online view"
            data = {"values": said.values, "view_position": said.view_position}
            self.steps.append(
                Step("request", prediction.cause_id or prediction.event_id, summary, data, prediction.leaf)
            )
            if accepted is not None:
                self._explain_event(accepted)
            return
        vector = self._event(said.vector_id, VectorComputed)
        if vector is None:
            self._miss("vector", said.vector_id)
            return
        self.steps.append(step_of(vector))
        self._explain_declaration(ModelDeclared, "model declaration", said.model, vector.data.declaration)
        if vector.data.model != said.model or vector.data.event_id != said.event_id:
            why = f"it is of {vector.data.event_id} for {vector.data.model}, the prediction is of {said.event_id}"
            self._miss("vector", said.vector_id, why)
        accepted = None if vector.cause_id is None else self._event(vector.cause_id, EventAccepted)
        if accepted is None:
            self._miss("accepted event", vector.cause_id or said.event_id)
            return
        self._explain_event(accepted)

    def _explain_event(self, accepted: Fact[EventAccepted]) -> None:
        self.steps.append(step_of(accepted))
        said = accepted.data
        self._explain_declaration(StreamDeclared, "stream declaration", said.stream, said.declaration)
        raw = said.raw
        place = f"{raw.topic}/{raw.partition}/{raw.offset}"
        summary = f"topic {raw.topic}, partition {raw.partition}, offset {raw.offset}, SHA-256 {raw.sha256}"
        self.steps.append(
            Step("raw record", place, summary, raw.model_dump(), accepted.leaf, accepted.event_us, None),
        )

    def _explain_declaration(self, payload: type[P], what: str, name: str, offset: int) -> None:
        fact = self._found(self._graph.facts(payload, name, offset), what, f"{name}, offset {offset}")
        if fact is not None:
            self.steps.append(step_of(fact))

    # -- what is not there ----------------------------------------------------------------------------------------------

    def _found(self, facts: list[Fact[P]], what: str, name: str) -> Fact[P] | None:
        if facts:
            return facts[0]
        self._miss(what, name)
        return None

    def _miss(self, what: str, name: str, why: str = "it is not in the log") -> None:
        self.missing.append({"what": what, "id": name, "why": why})


def _is_promotion_of(champion: Fact[ChampionChanged] | None, version: int) -> bool:
    return (
        champion is not None and champion.data.version == version and champion.data.cause in ("promotion", "approval")
    )


def unknown_model(graph: GovernanceStore, model: str) -> Refused:
    known = ", ".join(graph.subjects(ModelDeclared)) or "none"
    return Refused(
        404,
        "Unknown model",
        f"The log has no declaration of a model {model}.",
        field="model",
        fix=f"Declared models: {known}.",
    )
