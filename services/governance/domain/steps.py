"""The links of a walk in words. A fact tells itself; here are the links that are told of several facts, or of none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evenkeel.contracts.ids import record_place
from evenkeel.contracts.ingest import EventAccepted
from evenkeel.contracts.payload import Fact
from evenkeel.contracts.registry import ChampionChanged, GateDecided, RollbackTarget
from evenkeel.contracts.serving import PredictionMade
from evenkeel.contracts.trainer import RetrainDecided
from evenkeel.contracts.words import count, one_line
from evenkeel.services.governance.domain.facts import LoggedFact


@dataclass(frozen=True, slots=True)
class Step:
    """One link, with the leaf that proves it; a raw record is proven by the leaf that holds its digest."""

    what: str
    id: str
    summary: str
    data: dict[str, Any]
    leaf: int | None = None
    event_us: int | None = None
    recorded_us: int | None = None


def step_of(fact: LoggedFact[Fact], what: str | None = None) -> Step:
    """What a fact tells of itself, under its own word or under that of its part in the walk."""
    data = fact.data
    shown = data.model_dump(mode="json", by_alias=True)
    return _step(what or data.what or fact.topic, one_line(data.sentence()), shown, fact)


def gates_step(gates: Sequence[LoggedFact[GateDecided]]) -> Step:
    """The verdicts of all gates on one version, with the leaf of each."""
    first = gates[0]
    decided = [gate.data.model_dump(mode="json") | {"id": gate.event_id, "leaf": gate.leaf} for gate in gates]
    passed = sum(gate.data.passed for gate in gates)
    each = [f"{g.data.gate}{'' if g.data.passed else ' FAILED'} ({g.data.detail})" for g in gates]
    summary = f"{passed} of {len(gates)} passed: {'; '.join(each)}"
    data = {"version": first.data.version, "run_id": first.data.run_id, "gates": decided}
    return _step("gates", summary, data, first)


def fallback_step(champion: LoggedFact[ChampionChanged], target: RollbackTarget) -> Step:
    """A champion's named fallback answered, because the champion could not."""
    summary = f"version {champion.data.version} was not loaded where this was answered, its named fallback {target.version} was"
    return Step("fallback", champion.event_id, summary, target.model_dump(), champion.leaf)


def command_step(champion: LoggedFact[ChampionChanged]) -> Step:
    """A champion was changed by hand."""
    changed = champion.data
    how = "by hand"
    if changed.cause not in ("rollback", "command"):
        how = f"for a cause that this release does not know, {changed.cause}"
    done = "done" if changed.quarantined is None else f"version {changed.quarantined} was taken out of service"
    data = {"reason": changed.reason, "quarantined": changed.quarantined}
    return _step(
        changed.cause, f"{done} {how}: {changed.reason or 'no reason given'}", data, champion, changed.cause_id
    )


def asked_step(decision: LoggedFact[RetrainDecided]) -> Step:
    """A run was asked for by hand."""
    return _step("trigger", "somebody asked for the run", {}, decision, decision.data.cause_id)


def request_step(prediction: LoggedFact[PredictionMade]) -> Step:
    """What was predicted from did not come on the stream."""
    values = prediction.data.values or ()
    summary = f"{count(len(values), 'feature')} came with the request or from the online view"
    data = {"values": prediction.data.values, "view_position": prediction.data.view_position}
    return Step("request", prediction.cause_id or prediction.event_id, summary, data, prediction.leaf)


def raw_record_step(accepted: LoggedFact[EventAccepted]) -> Step:
    """The producer's own record."""
    raw = accepted.data.raw
    summary = f"topic {raw.topic}, partition {raw.partition}, offset {raw.offset}, SHA-256 {raw.sha256}"
    place = record_place(raw.topic, raw.partition, raw.offset)
    return Step("raw record", place, summary, raw.model_dump(), accepted.leaf, accepted.event_us, None)


def _step(what: str, summary: str, data: dict[str, Any], fact: LoggedFact[Fact], step_id: str | None = None) -> Step:
    return Step(what, step_id or fact.event_id, summary, data, fact.leaf, fact.event_us, fact.recorded_us)
