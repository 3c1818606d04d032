"""What follows from a run, a receipt, a degraded champion, and from what people command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, assert_never

from evenkeel.contracts.declaration import Declaration, ModelSpec, StreamSpec
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.ids import LABEL_SUFFIX, approval_nonce, random_id
from evenkeel.contracts.monitor import PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import (
    ApprovalDecided,
    ChampionChanged,
    GateDecided,
    ModelDeclared,
    RollbackTarget,
    StreamDeclared,
    VersionRegistered,
)
from evenkeel.contracts.serving import ActivationFailed, VersionActivated
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.errors import Refused
from evenkeel.libs.features import compile_plan
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Cause, Derived, Each, Reply
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.domain.gates import Candidate, Proposal, decide_gates
from evenkeel.services.registry.domain.promotion import Champion, after_gates, is_in_bake
from evenkeel.services.registry.domain.verdict import Verdict
from evenkeel.services.registry.store import ModelRow, VersionRow

Cause_ = Literal["promotion", "approval", "rollback", "command"]


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
    candidate = Candidate(
        package=run.package,
        package_bytes=run.package_bytes,
        view_version=run.view_version,
        comparison=run.comparison,
        compared_with=run.champion.digest if run.champion else None,
        package_fault=ctx.package_fault(run.package),
    )
    verdicts = decide_gates(
        Proposal(
            candidate=candidate,
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
            produced.append(
                promote(run.model, version, champion, "promotion", event.id, event.time_us, ctx, run.run_id)
            )
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
    if not is_in_bake(champion, policy, event.time_us) or _rollback_target(degraded.model, champion, ctx) is None:
        return ()
    return (_roll_back(degraded.model, champion, event.id, event.time_us, degraded.detail, "rollback", ctx),)


@dataclass(frozen=True, slots=True)
class Rollback:
    """A command: take the champion of this epoch out of service."""

    model: str
    epoch: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class Approval:
    """A command: the answer to a request for approval."""

    model: str
    nonce: str
    package: str
    approved: bool
    approver: str
    comment: str


def on_apply(declaration: Declaration, ctx: RegistryContext) -> Reply[dict[str, list[str]]]:
    """Take a checked declaration; what is as it was is not said again."""
    store, cause = ctx.store, _command_cause(ctx, None)
    before = store.streams()
    streams = before | declaration.streams
    changed = {name for name, spec in declaration.streams.items() if before.get(name) != spec}
    for name in changed:
        store.put_stream(name, streams[name].written())
    produced: list[Payload] = []
    known = store.models()
    specs = {name: ModelSpec.model_validate(row.spec) for name, row in known.items()} | declaration.models
    declared = []
    for name, spec in sorted(specs.items()):
        row = known.get(name)
        try:
            used, view_version = _plan_of(spec, streams)
        except ValueError as error:
            if row is not None and name not in declaration.models and changed.isdisjoint(row.streams):
                continue  # a newer release took it, and nothing that it stands on is declared here
            raise Refused(
                409,
                "A model could no longer be computed",
                f"Model {name} stands on what is declared here, and could not be computed then: {error}.",
                field=f"models.{name}",
                fix="Declare the model with it, as it is to be then.",
            ) from error
        if row is None or ModelSpec.model_validate(row.spec) != spec or _streams_of(row) != used:
            model = ModelDeclared.of(name, spec, used, view_version)
            store.put_model(name, model.spec, model.streams, view_version)
            produced.append(model)
            declared.append(name)
    # Last: an accepted event names its stream's declaration, and whoever knows that knows the models declared with it.
    produced += [StreamDeclared.of(name, streams[name]) for name in sorted(changed)]
    answer = {"streams": sorted(changed), "models": declared}
    return Reply(answer, [Derived(payload, cause) for payload in produced])


def on_rollback(command: Rollback, ctx: RegistryContext) -> Reply[dict[str, Any]]:
    """Roll back by hand; if the named epoch no longer answers, nothing changes."""
    champion = _known_champion(command.model, ctx)
    if command.epoch is not None and command.epoch != champion.epoch:
        return Reply(
            {"changed": False, "epoch": champion.epoch, "version": champion.version, "reason": "the world moved on"}
        )
    if _rollback_target(command.model, champion, ctx) is None:
        raise Refused(
            409,
            "Nothing to roll back to",
            f"Version {champion.version} has no predecessor that may answer.",
            field="model",
            fix="Train and promote another version.",
        )
    cause = _command_cause(ctx, command.model)
    changed = _roll_back(command.model, champion, cause.id, cause.time_us, command.reason, "rollback", ctx)
    return Reply({"changed": True, "epoch": changed.epoch, "version": changed.version}, [Derived(changed, cause)])


def on_approval(command: Approval, ctx: RegistryContext) -> Reply[dict[str, Any]]:
    """Use a request for approval, once, for the very package and epoch that it was asked for."""
    store = ctx.store
    asked = store.approval(command.nonce)
    if asked is None or asked.model != command.model:
        raise Refused(
            404, "No such request", "There is no request with this nonce.", field="nonce", fix="List the open ones."
        )
    if asked.package != command.package:
        raise Refused(
            409,
            "Another package",
            "The request is about another package.",
            field="package",
            fix=f"Send {asked.package}.",
        )
    if asked.state != "open" or asked.expires_us < ctx.now_us:
        state = asked.state if asked.state != "open" else "expired"
        raise Refused(409, "Request is closed", f"This request is {state}.", field="nonce", fix="Train again.")
    champion = store.champion(command.model)
    if (champion.epoch if champion else 0) != asked.epoch:
        store.close_approval(command.nonce, "overtaken", command.approver, command.comment)
        return Reply({"promoted": False, "reason": "another version was promoted meanwhile"})
    store.close_approval(
        command.nonce, "approved" if command.approved else "rejected", command.approver, command.comment
    )
    cause = _command_cause(ctx, command.model)
    decided = ApprovalDecided(
        model=command.model,
        version=asked.version,
        package=asked.package,
        epoch=asked.epoch,
        nonce=command.nonce,
        approved=command.approved,
        approver=command.approver,
        comment=command.comment,
    )
    produced: list[Payload] = [decided]
    if command.approved:
        produced.append(promote(command.model, asked.version, champion, "approval", cause.id, cause.time_us, ctx))
    else:
        judge(command.model, asked.version, "rejected", ctx)
    return Reply(
        {"promoted": command.approved, "version": asked.version}, [Derived(payload, cause) for payload in produced]
    )


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


def promote(
    model: str,
    version: int,
    champion: Champion | None,
    cause: Cause_,
    cause_id: str,
    event_us: int,
    ctx: RegistryContext,
    run_id: str | None = None,
    reason: str = "",
    quarantined: int | None = None,
) -> ChampionChanged:
    """Make a version the champion by compare-and-set."""
    store = ctx.store
    row = store.version(model, version)
    previous = champion.version if champion else None
    # Behind a rollback there is no further fallback: its predecessor is the version that was just taken out.
    fallback = store.version(model, previous) if previous and cause != "rollback" else None
    epoch = store.replace_champion(
        model,
        champion.epoch if champion else 0,
        {
            "version": version,
            "package": row.package,
            "since_us": event_us,
            "previous_version": fallback.version if fallback else None,
            "cause": cause,
        },
    )
    if previous is not None and quarantined is None:
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
        cause=cause,
        cause_id=cause_id,
        run_id=run_id or row.run_id,
        previous_version=previous,
        rollback_target=_target(fallback),
        quarantined=quarantined,
        reason=reason,
    )


def _target(row: VersionRow | None) -> RollbackTarget | None:
    if row is None:
        return None
    return RollbackTarget(
        version=row.version, package=row.package, package_uri=row.package_uri, threshold=row.threshold
    )


def _rollback_target(model: str, champion: Champion, ctx: RegistryContext) -> VersionRow | None:
    """The version to go back to: the champion's predecessor, unless it was itself taken out."""
    if champion.previous_version is None:
        return None
    row = ctx.store.find_version(model, champion.previous_version)
    return None if row is None or row.state == "quarantined" else row


def _roll_back(
    model: str, champion: Champion, cause_id: str, event_us: int, reason: str, cause: Cause_, ctx: RegistryContext
) -> ChampionChanged:
    target = _rollback_target(model, champion, ctx)
    assert target is not None, "whoever rolls back has looked"
    ctx.store.set_state(model, champion.version, "quarantined")
    return promote(
        model, target.version, champion, cause, cause_id, event_us, ctx, reason=reason, quarantined=champion.version
    )


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


def _known_champion(model: str, ctx: RegistryContext) -> Champion:
    champion = ctx.store.champion(model)
    if champion is None:
        known = ", ".join(ctx.store.models()) or "none"
        raise Refused(404, "No champion", f"{model} has no champion.", field="model", fix=f"Declared models: {known}.")
    return champion


def _command_cause(ctx: RegistryContext, model: str | None) -> Cause:
    """A command's event time is the latest folded for its model, so that a click today does not age a replayed year."""
    row = ctx.store.model(model) if model else None
    command_id = random_id()
    return Cause(command_id, row.event_us if row is not None and row.event_us else ctx.now_us, command_id)


def _plan_of(spec: ModelSpec, streams: Mapping[str, StreamSpec]) -> tuple[dict[str, StreamSpec], str]:
    plan = compile_plan(spec, streams)
    names = {spec.stream} | {source.removesuffix(LABEL_SUFFIX) for source in plan.sources}
    return {name: streams[name] for name in sorted(names)}, plan.view_version


def _streams_of(row: ModelRow) -> dict[str, StreamSpec]:
    return {name: StreamSpec.model_validate(spec) for name, spec in row.streams.items()}


HANDLERS = (
    Each(RunCompleted, on_run_completed),
    Each(VersionActivated, on_version_activated),
    Each(ActivationFailed, on_activation_failed),
    Each(PerformanceDegraded, on_performance_degraded),
)
