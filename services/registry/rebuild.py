"""The registry folded from what it said itself: commands came by HTTP and are on no topic, their consequences are.

What one transaction said belongs together. Of the last ones before the loss some records may be missing; a run of which not
all was said is decided again when it is read again, with the same ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.registry import (
    ApprovalDecided,
    ChampionChanged,
    GateDecided,
    ModelDeclared,
    StreamDeclared,
    VersionRegistered,
)
from evenkeel.libs.service import Cause, Derived, Output, Rebuild
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.domain.promotion import after_gates
from evenkeel.services.registry.domain.verdict import Verdict
from evenkeel.services.registry.handlers import Change, ask_for_approval, judge, promote


def fold(published: Sequence[Event[Any]], ctx: RegistryContext) -> None:
    """One transaction after another, as they were."""
    for _, said in groupby(published, key=lambda e: (e.recorded_us, e.causation_id)):
        events = list(said)
        gates = [event for event in events if isinstance(event.data, GateDecided)]
        if gates or any(isinstance(event.data, VersionRegistered) for event in events):
            _fold_run(events, gates, ctx)
            continue
        for event in events:
            _fold_event(event, ctx)


def _fold_event(event: Event[Any], ctx: RegistryContext) -> None:
    store, data = ctx.store, event.data
    match data:
        case StreamDeclared():
            store.put_stream(data.name, data.spec)
        case ModelDeclared():
            store.put_model(data.name, data.spec, data.streams, data.view_version)
        case ApprovalDecided():
            store.close_approval(data.nonce, "approved" if data.approved else "rejected", data.approver, data.comment)
            if not data.approved:
                store.set_state(data.model, data.version, "rejected")
        case ChampionChanged():
            _fold_champion(event, ctx)


def _fold_run(events: list[Event[Any]], gates: list[Event[GateDecided]], ctx: RegistryContext) -> None:
    """What followed from a run, unless some of it was never published."""
    store = ctx.store
    changed = [event for event in events if isinstance(event.data, ChampionChanged)]
    if not gates or len(gates) < gates[0].data.of:
        return
    run = gates[0].data
    model = store.model(run.model)
    if model is None:
        return
    policy = ctx.policy(model)
    verdicts = [Verdict(g.data.passed, g.data.detail, g.data.value, g.data.bar) for g in gates]
    registered = [event for event in events if isinstance(event.data, VersionRegistered)]
    known = store.find_version(run.model, run.version)
    follows = after_gates(verdicts, policy, "registered" if known is None else known.state)
    if (follows == "promote" and not changed) or not (registered or known is not None):
        return
    for event in registered:
        store.put_version(
            event.data.model_dump() | {"state": "registered", "registered_us": event.time_us, "evidence": {}}
        )
    store.put_gates([event.data.model_dump(exclude={"package", "of"}) for event in gates])
    if follows == "refused":
        judge(run.model, run.version, "refused", ctx)
    elif follows == "awaiting_approval":
        champion = store.champion(run.model)
        ask_for_approval(run.model, run.run_id, run.package, run.version, champion, gates[0].recorded_us, ctx)
    for event in changed:
        _fold_champion(event, ctx)


def _fold_champion(event: Event[ChampionChanged], ctx: RegistryContext) -> None:
    store, changed = ctx.store, event.data
    target = changed.rollback_target
    row = {
        "version": changed.version,
        "package": changed.package,
        "since_us": event.time_us,
        "previous_version": None if target is None else target.version,
        "cause": changed.cause,
    }
    store.put_champion(changed.model, changed.epoch, row)
    store.saw(changed.model, event.time_us)
    if changed.quarantined is not None:
        store.set_state(changed.model, changed.quarantined, "quarantined")
    elif changed.previous_version is not None:
        store.set_state(changed.model, changed.previous_version, "retired")
    store.set_state(changed.model, changed.version, "champion")


def finished(ctx: RegistryContext) -> Iterable[Output]:
    """An approval that was published before the champion that follows from it: say that, too."""
    crowned = {event.data.cause_id for event in ctx.published_before if isinstance(event.data, ChampionChanged)}
    for event in ctx.published_before:
        decided = event.data
        if not isinstance(decided, ApprovalDecided) or not decided.approved or event.causation_id in crowned:
            continue
        champion = ctx.store.champion(decided.model)
        if (champion.epoch if champion else 0) == decided.epoch and event.causation_id is not None:
            cause = Cause(event.causation_id, event.time_us, event.correlation_id)
            change = Change("approval", cause.id, cause.time_us, caller=decided.caller)
            changed = promote(decided.model, decided.version, champion, change, ctx)
            yield Derived(changed, cause)


REBUILD: Final = Rebuild(
    fold=fold,
    finished=finished,
    forgotten="that a request for approval was overtaken (it is open again, and overtaken again when it is answered)",
)
