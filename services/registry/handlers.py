"""What follows from a run, a receipt and a degraded champion."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, assert_never

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.ids import approval_nonce
from evenkeel.contracts.monitor import PerformanceDegraded
from evenkeel.contracts.payload import Caller, Payload
from evenkeel.contracts.registry import (
    ChampionChanged,
    GateDecided,
    RollbackTarget,
    VersionRegistered,
)
from evenkeel.contracts.serving import ActivationFailed, VersionActivated
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Each
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.domain.gates import Proposal, decide_gates
from evenkeel.services.registry.domain.promotion import Champion, after_gates, is_in_bake
from evenkeel.services.registry.domain.verdict import Verdict
from evenkeel.services.registry.store import VersionRow


def on_run_completed(event: Event[RunCompleted], ctx: RegistryContext) -> Iterable[Payload]:
    """Register the candidate, decide its gates, and promote it or ask for approval if all of them passed."""
    run, store = event.data, ctx.store
    model = store.model(run.model)
    if model is None:  # declarations are made here, so none can be on its way: a run of another registry's model
        return ()
    store.saw(run.model, event.time_us)
    if store.has_decided(run.run_id):  # this store was made again: what it said it folded, the evidence it did not say
        store.put_evidence(run.model, run.run_id, _evidence(run))
        return ()
    policy = ctx.policy(model)
    champion = store.champion(run.model)
    version, registered = _register(run, event.time_us, ctx)
    verdicts = decide_gates(
        Proposal(
            run=run,
            package_fault=ctx.package_fault(run.package),
            champion=champion,
            policy=policy,
            view_version=model.view_version,
            now_us=event.time_us,
        )
    )
    rows = [_gate_row(run, version, gate, verdict) for gate, verdict in verdicts.items()]
    store.put_gates(rows)
    produced: list[Payload] = [
        *registered,
        *(GateDecided(package=run.package, of=len(rows), **row) for row in rows),
    ]
    failpoint("promotion.decided")
    match follows := after_gates(list(verdicts.values()), policy, store.version(run.model, version).state):
        case "refused":
            judge(run.model, version, "refused", ctx)
        case "awaiting_approval":
            ask_for_approval(run.model, run.run_id, run.package, version, champion, ctx.now_us, ctx)
        case "promote":
            change = Change("promotion", event.id, event.time_us, run.run_id)
            produced.append(promote(run.model, version, champion, change, ctx))
        case _:
            assert_never(follows)
    return produced


def on_version_activated(event: Event[VersionActivated], ctx: RegistryContext) -> Iterable[Payload]:
    """Keep the replica's receipt."""
    _receipt(event, "active", f"loaded in {event.data.load_seconds:.2f} s", ctx)
    return ()


def on_activation_failed(event: Event[ActivationFailed], ctx: RegistryContext) -> Iterable[Payload]:
    """Keep the replica's refusal; it goes on answering with what it has."""
    _receipt(event, event.data.reason, event.data.detail, ctx)
    return ()


def on_performance_degraded(event: Event[PerformanceDegraded], ctx: RegistryContext) -> Iterable[Payload]:
    """Roll back a champion that is worse in its bake period; once, and only if it still answers."""
    degraded, store = event.data, ctx.store
    store.saw(degraded.model, event.time_us)
    model, champion = store.model(degraded.model), store.champion(degraded.model)
    if model is None or champion is None or champion.epoch != degraded.epoch:
        return ()
    policy = ctx.policy(model)
    if not is_in_bake(champion, policy, event.time_us) or rollback_target(degraded.model, champion, ctx) is None:
        return ()
    change = Change("rollback", event.id, event.time_us, reason=degraded.detail)
    return (roll_back(degraded.model, champion, change, ctx),)


def _register(run: RunCompleted, event_us: int, ctx: RegistryContext) -> tuple[int, list[Payload]]:
    """The version's number; a package that is known already keeps the one it has."""
    known = ctx.store.version_of_package(run.model, run.package)
    if known is not None:
        return known.version, []
    row = {
        "model": run.model,
        "package": run.package,
        "package_uri": run.package_uri,
        "package_bytes": run.package_bytes,
        "view_version": run.view_version,
        "run_id": run.run_id,
        "dataset_version": run.dataset.version,
        "estimator": run.estimator,
        "threshold": run.threshold,
    }
    number = ctx.store.add_version(row | {"state": "registered", "registered_us": event_us, "evidence": _evidence(run)})
    return number, [VersionRegistered(version=number, **row)]


def _evidence(run: RunCompleted) -> dict[str, Any]:
    return run.model_dump(
        mode="json", include={"candidate", "champion", "comparison", "training_rows", "evaluation_rows"}
    )


def _gate_row(run: RunCompleted, version: int, gate: str, verdict: Verdict) -> dict[str, Any]:
    return {"model": run.model, "version": version, "run_id": run.run_id, "gate": gate} | asdict(verdict)


def judge(model: str, version: int, state: str, ctx: RegistryContext) -> None:
    """A verdict that promotes nobody: a version that answers, or that was taken out of service, stays what it is."""
    if ctx.store.version(model, version).state not in ("champion", "quarantined"):
        ctx.store.set_state(model, version, state)


def ask_for_approval(
    model: str, run_id: str, package: str, version: int, champion: Champion | None, asked_us: int, ctx: RegistryContext
) -> None:
    """`asked_us` is wall time."""
    judge(model, version, "awaiting_approval", ctx)
    ctx.store.add_approval(
        {
            "nonce": approval_nonce(run_id, package),
            "model": model,
            "version": version,
            "package": package,
            "epoch": champion.epoch if champion else 0,
            "expires_us": asked_us + int(ctx.own.approval_hours * 3_600_000_000),
            "state": "open",
        }
    )


@dataclass(frozen=True, slots=True)
class Change:
    """Why a champion changes."""

    cause: Literal["promotion", "approval", "rollback", "command"]
    cause_id: str
    event_us: int
    run_id: str | None = None
    """None: the run of the version that becomes champion."""
    reason: str = ""
    quarantined: int | None = None
    """The version that is taken out of service."""
    caller: Caller | None = None


def promote(
    model: str, version: int, champion: Champion | None, change: Change, ctx: RegistryContext
) -> ChampionChanged:
    """Make a version the champion by compare-and-set."""
    store = ctx.store
    row = store.version(model, version)
    previous = champion.version if champion else None
    # Behind a rollback there is no further fallback: its predecessor is the version that was just taken out.
    fallback = store.version(model, previous) if previous and change.cause != "rollback" else None
    epoch = store.replace_champion(
        model,
        champion.epoch if champion else 0,
        {
            "version": version,
            "package": row.package,
            "since_us": change.event_us,
            "previous_version": fallback.version if fallback else None,
            "cause": change.cause,
        },
    )
    if previous is not None and change.quarantined is None:
        store.set_state(model, previous, "retired")
    store.set_state(model, version, "champion")
    return ChampionChanged(
        model=model,
        epoch=epoch,
        version=version,
        package=row.package,
        package_uri=row.package_uri,
        view_version=row.view_version,
        threshold=row.threshold,
        cause=change.cause,
        cause_id=change.cause_id,
        run_id=change.run_id or row.run_id,
        previous_version=previous,
        rollback_target=_target(fallback),
        quarantined=change.quarantined,
        reason=change.reason,
        caller=change.caller,
    )


def roll_back(model: str, champion: Champion, change: Change, ctx: RegistryContext) -> ChampionChanged:
    """Take the champion out of service; its predecessor, which there must be, answers again."""
    target = rollback_target(model, champion, ctx)
    assert target is not None, "whoever rolls back has looked"
    ctx.store.set_state(model, champion.version, "quarantined")
    return promote(model, target.version, champion, replace(change, quarantined=champion.version), ctx)


def _target(row: VersionRow | None) -> RollbackTarget | None:
    if row is None:
        return None
    return RollbackTarget(
        version=row.version, package=row.package, package_uri=row.package_uri, threshold=row.threshold
    )


def rollback_target(model: str, champion: Champion, ctx: RegistryContext) -> VersionRow | None:
    """The version to go back to: the champion's predecessor, unless it was itself taken out."""
    if champion.previous_version is None:
        return None
    row = ctx.store.find_version(model, champion.previous_version)
    return None if row is None or row.state == "quarantined" else row


def _receipt(
    event: Event[VersionActivated] | Event[ActivationFailed], state: str, detail: str, ctx: RegistryContext
) -> None:
    receipt = event.data
    ctx.store.saw(receipt.model, event.time_us)
    ctx.store.put_receipt(
        {
            "model": receipt.model,
            "epoch": receipt.epoch,
            "replica": receipt.replica,
            "state": state,
            "detail": detail,
            "recorded_us": event.recorded_us,
        }
    )


HANDLERS = (
    Each(RunCompleted, on_run_completed),
    Each(VersionActivated, on_version_activated),
    Each(ActivationFailed, on_activation_failed),
    Each(PerformanceDegraded, on_performance_degraded),
)
