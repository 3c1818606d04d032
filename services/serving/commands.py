"""What a replica tells of itself."""

from __future__ import annotations

from dataclasses import dataclass

from evenkeel.contracts.ids import receipt_id
from evenkeel.contracts.serving import ActivationFailed, ReplicaSeen, VersionActivated
from evenkeel.libs.service import Cause, Derived, Reply
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import ChampionDecision, Outcome, next_receipt


@dataclass(frozen=True, slots=True)
class ReportActivation:
    """How an epoch's version fared on this replica."""

    fact: ChampionDecision
    outcome: Outcome
    detail: str
    load_seconds: float
    replica: str
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class AnnounceReplica:
    """This replica is there, or leaves."""

    seen: ReplicaSeen
    cause_id: str


def on_report_activation(command: ReportActivation, ctx: ServingContext) -> Reply[bool]:
    """Once: what was told before, also before a restart, is not told again. The ids follow from the fact, the replica and
    how often the outcome has changed."""
    fact, outcome = command.fact, command.outcome
    receipt = next_receipt(fact, outcome, ctx.store.receipt(fact.model))
    if receipt is None:
        return Reply(False)
    ctx.store.put_receipt(fact.model, receipt)
    payload: VersionActivated | ActivationFailed
    if outcome == "activated":
        payload = VersionActivated(
            model=fact.model,
            version=fact.target.version,
            epoch=fact.epoch,
            package=fact.target.package,
            replica=command.replica,
            load_seconds=command.load_seconds,
        )
    else:
        payload = ActivationFailed(
            model=fact.model,
            version=fact.target.version,
            epoch=fact.epoch,
            package=fact.target.package,
            replica=command.replica,
            reason=outcome,
            detail=command.detail,
        )
    cause = Cause(fact.event_id, fact.time_us, fact.correlation_id, command.traceparent or fact.traceparent)
    return Reply(True, [Derived(payload, cause, id=receipt_id(fact.event_id, command.replica, receipt.number))])


def on_announce_replica(command: AnnounceReplica, ctx: ServingContext) -> Reply[None]:
    """Publish it."""
    return Reply(None, [Derived(command.seen, Cause(command.cause_id, ctx.now_us, command.cause_id))])
