"""What people command: a declaration, an approval, a rollback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from evenkeel.contracts.declaration import Declaration, ModelSpec, StreamSpec
from evenkeel.contracts.http.registry import Applied, ApprovalResult, RollbackResult
from evenkeel.contracts.ids import LABEL_SUFFIX, random_id
from evenkeel.contracts.payload import Caller, Payload
from evenkeel.contracts.registry import ApprovalDecided, ModelDeclared, StreamDeclared
from evenkeel.libs.errors import Refused
from evenkeel.libs.features import compile_plan
from evenkeel.libs.service import Cause, Derived, Reply
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.domain.promotion import Champion
from evenkeel.services.registry.handlers import Change, judge, promote, roll_back, rollback_target
from evenkeel.services.registry.store import ModelRow, RegistryStore


@dataclass(frozen=True, slots=True)
class Apply:
    """Take a checked declaration."""

    declaration: Declaration
    caller: Caller


@dataclass(frozen=True, slots=True)
class Approve:
    """The answer to a request for approval."""

    model: str
    nonce: str
    package: str
    approved: bool
    approver: str
    comment: str
    caller: Caller


@dataclass(frozen=True, slots=True)
class RollBack:
    """Take the champion of this epoch out of service, or whichever answers."""

    model: str
    epoch: int | None
    reason: str
    caller: Caller


class ChangedModel(NamedTuple):
    """A model to be declared anew, with the streams that it uses."""

    name: str
    spec: ModelSpec
    streams: dict[str, StreamSpec]
    view_version: str


class Changes(NamedTuple):
    """What a declaration changes; what is as it was is not said again."""

    streams: dict[str, StreamSpec]
    models: Sequence[ChangedModel]


def changes_of(declaration: Declaration, store: RegistryStore) -> Changes:
    """Streams that are new or declared otherwise; models that are, or that use such a stream. Raises Refused."""
    before, known = store.streams(), store.models()
    streams = before | declaration.streams
    changed = {name: spec for name, spec in sorted(declaration.streams.items()) if before.get(name) != spec}
    specs = {name: ModelSpec.model_validate(row.spec) for name, row in known.items()} | declaration.models
    models = []
    for name, spec in sorted(specs.items()):
        row = known.get(name)
        try:
            used, view_version = _plan_of(spec, streams)
        except ValueError as error:
            if row is not None and name not in declaration.models and changed.keys().isdisjoint(row.streams):
                continue  # a newer release took it, and nothing that it stands on is declared here
            raise Refused(
                409,
                "A model could no longer be computed",
                f"Model {name} stands on what is declared here, and could not be computed then: {error}.",
                field=f"models.{name}",
                fix="Declare the model with it, as it is to be then.",
            ) from error
        if row is None or ModelSpec.model_validate(row.spec) != spec or _streams_of(row) != used:
            models.append(ChangedModel(name, spec, used, view_version))
    return Changes(changed, models)


def on_apply(command: Apply, ctx: RegistryContext) -> Reply[Applied]:
    """All of it, or nothing."""
    changes, cause = changes_of(command.declaration, ctx.store), _command_cause(ctx, None)
    produced: list[Payload] = []
    for name, stream in changes.streams.items():
        ctx.store.put_stream(name, stream.written())
    for name, spec, streams, view_version in changes.models:
        caller = command.caller if name in command.declaration.models else None
        model = ModelDeclared.of(name, spec, streams, view_version, caller)
        ctx.store.put_model(name, model.spec, model.streams, view_version)
        produced.append(model)
    # Last: an accepted event names its stream's declaration, and whoever knows that knows the models declared with it.
    produced += [StreamDeclared.of(n, s, command.caller) for n, s in changes.streams.items()]
    return Reply(answer_of(changes, dry_run=False), [Derived(payload, cause) for payload in produced])


def answer_of(changes: Changes, *, dry_run: bool) -> Applied:
    """What changed, or would."""
    return Applied(dry_run=dry_run, streams=list(changes.streams), models=[model.name for model in changes.models])


def on_roll_back(command: RollBack, ctx: RegistryContext) -> Reply[RollbackResult]:
    """If the named epoch no longer answers, nothing changes."""
    champion = _known_champion(command.model, ctx)
    if command.epoch is not None and command.epoch != champion.epoch:
        reason = "the world moved on"
        return Reply(RollbackResult(changed=False, epoch=champion.epoch, version=champion.version, reason=reason))
    if rollback_target(command.model, champion, ctx) is None:
        raise Refused(
            409,
            "Nothing to roll back to",
            f"Version {champion.version} has no predecessor that may answer.",
            field="model",
            fix="Train and promote another version.",
        )
    cause = _command_cause(ctx, command.model)
    change = Change("rollback", cause.id, cause.time_us, reason=command.reason, caller=command.caller)
    changed = roll_back(command.model, champion, change, ctx)
    answer = RollbackResult(changed=True, epoch=changed.epoch, version=changed.version)
    return Reply(answer, [Derived(changed, cause)])


def on_approve(command: Approve, ctx: RegistryContext) -> Reply[ApprovalResult]:
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
        reason = "another version was promoted meanwhile"
        return Reply(ApprovalResult(promoted=False, version=asked.version, reason=reason))
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
        caller=command.caller,
    )
    produced: list[Payload] = [decided]
    if command.approved:
        change = Change("approval", cause.id, cause.time_us, caller=command.caller)
        produced.append(promote(command.model, asked.version, champion, change, ctx))
    else:
        judge(command.model, asked.version, "rejected", ctx)
    answer = ApprovalResult(promoted=command.approved, version=asked.version)
    return Reply(answer, [Derived(payload, cause) for payload in produced])


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
