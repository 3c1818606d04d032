"""The handlers on a real store: who may become champion, and what no longer counts because the world moved on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.declaration import Declaration
from evenkeel.contracts.envelope import format_us, parse_us
from evenkeel.contracts.http.registry import Applied, ApprovalResult
from evenkeel.contracts.monitor import PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared, StreamDeclared
from evenkeel.contracts.serving import ActivationFailed
from evenkeel.libs.clock import DAY_US, HOUR_US
from evenkeel.libs.errors import Fenced, Refused
from evenkeel.libs.packages.package import PackageRef
from evenkeel.libs.service import Derived, Reply
from evenkeel.services.registry.commands import (
    Apply,
    Approve,
    RollBack,
    answer_of,
    changes_of,
    on_apply,
    on_approve,
    on_roll_back,
)
from evenkeel.services.registry.context import RegistryContext
from evenkeel.services.registry.service import service
from tests.harness import CALLER, Harness
from tests.makers import performance_degraded, run_completed
from tests.tiny_packages import tiny_package


def declaration(*names: str, amount: str = "number", **promotion: Any) -> Declaration:
    model = {
        "task": "binary",
        "stream": "orders",
        "label": "returned",
        "features": [{"fields": ["amount"]}],
        "promotion": promotion,
    }
    stream = {
        "topic": "shop.orders",
        "id": "order_id",
        "time": "ordered_at",
        "fields": {"amount": {"type": amount}},
        "label": {
            "topic": "shop.returns",
            "id": "order_id",
            "joins": "order_id",
            "time": "decided_at",
            "horizon": "3d",
            "fields": {"returned": {"type": "boolean"}},
        },
    }
    return Declaration.model_validate({"streams": {"orders": stream}, "models": dict.fromkeys(names or ("m",), model)})


def day(number: float) -> str:
    return format_us(parse_us("2013-01-01T00:00:00Z") + round(number * DAY_US))


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PackageRef]]:
    folder = tmp_path_factory.mktemp("packages")
    return folder, [tiny_package(folder / "artifacts", folder / "keys", seed=seed) for seed in range(3)]


class Registry(Harness[RegistryContext]):
    """A registry with three usable packages."""

    def __init__(self, folder: Path, packages: list[PackageRef]) -> None:
        super().__init__(service, folder)
        self.packages = packages
        self.runs = 0

    def apply(self, *names: str, **changes: Any) -> list[Any]:
        wanted = declaration(*names, **changes)
        return payloads(self.reply(partial(on_apply, Apply(wanted, CALLER))))

    def run(self, number: int, at: float, model: str = "m", beats: int | None = None) -> list[Any]:
        """A run that completes at this day with the package of this number."""
        ref, self.runs = self.packages[number], self.runs + 1
        champion = None if beats is None else self.packages[beats].digest
        completed = run_completed(
            ref,
            beats=champion,
            model=model,
            run_id=f"run-{self.runs}",
            trigger="drift",
            view_version=self.ask(lambda ctx: str(ctx.store.model(model).view_version)),
        )
        return self.hear(completed, day(at))

    def states(self, model: str = "m") -> dict[int, str]:
        return self.ask(lambda ctx: {row.version: row.state for row in ctx.store.versions(model)})

    def requests(self, model: str = "m") -> list[Any]:
        return self.ask(lambda ctx: list(ctx.store.approvals(model)))

    def answer(self, request: Any, model: str = "m", *, approved: bool = True) -> Reply[ApprovalResult]:
        command = Approve(model, request.nonce, request.package, approved, "risk-board", "", CALLER)
        return self.reply(partial(on_approve, command))


@pytest.fixture
def registry(artifacts: tuple[Path, list[PackageRef]], tmp_path: Path) -> Iterator[Registry]:
    folder, packages = artifacts
    for name in ("artifacts", "keys"):
        (tmp_path / name).symlink_to(folder / name)
    registry = Registry(tmp_path, packages)
    yield registry
    registry.close()


def payloads(reply: Reply[Any]) -> list[Payload]:
    return [output.payload for output in reply.outputs if isinstance(output, Derived)]


def promoted(outputs: list[Any]) -> list[tuple[int, int, str]]:
    """(epoch, version, cause) of each change of champion."""
    return [(o.epoch, o.version, o.cause) for o in outputs if isinstance(o, ChampionChanged)]


def degraded(epoch: int) -> PerformanceDegraded:
    return performance_degraded(epoch=epoch, window_start=day(0), window_end=day(1))


def test_models_are_told_before_the_streams_that_they_read_and_again_when_one_changes(registry: Registry) -> None:
    first = registry.apply("m", "n")
    assert [type(payload) for payload in first] == [ModelDeclared, ModelDeclared, StreamDeclared]
    assert registry.apply("m", "n") == []
    again = registry.apply("m", "n", amount="integer")
    assert [type(payload) for payload in again] == [ModelDeclared, ModelDeclared, StreamDeclared]
    assert [payload.caller for payload in first] == [CALLER] * 3
    assert again[0].streams["orders"] == again[2].spec


def test_only_what_a_person_declared_names_him(registry: Registry) -> None:
    """A model that is declared anew because its stream was has not been touched by whoever declared the stream."""
    registry.apply("m", "n")
    other = Apply(Declaration(streams=declaration("m", amount="integer").streams), CALLER)
    said = payloads(registry.reply(partial(on_apply, other)))
    assert [(type(payload), payload.caller) for payload in said] == [
        (ModelDeclared, None),
        (ModelDeclared, None),
        (StreamDeclared, CALLER),
    ]


def test_a_dry_run_says_what_would_change_and_changes_nothing(registry: Registry) -> None:
    wanted = declaration("m", "n")
    changes = registry.ask(lambda ctx: changes_of(wanted, ctx.store))
    assert answer_of(changes, dry_run=True) == Applied(dry_run=True, streams=["orders"], models=["m", "n"])
    assert registry.ask(lambda ctx: (dict(ctx.store.streams()), dict(ctx.store.models()))) == ({}, {})
    registry.apply("m", "n")
    assert registry.ask(lambda ctx: changes_of(wanted, ctx.store)) == ({}, [])


def test_a_cooldown_counts_from_the_champions_event_time(registry: Registry) -> None:
    registry.apply(cooldown="10d")
    assert promoted(registry.run(0, 1)) == [(1, 1, "promotion")]
    assert promoted(registry.run(1, 10.9, beats=0)) == []
    assert promoted(registry.run(2, 11, beats=0)) == [(2, 3, "promotion")]
    assert registry.states() == {1: "retired", 2: "refused", 3: "champion"}


def test_a_champion_is_replaced_only_at_the_epoch_that_was_looked_at(registry: Registry) -> None:
    registry.apply()
    registry.run(0, 1)
    registry.run(1, 2, beats=0)
    row = {"version": 1, "package": "p", "since_us": 0, "previous_version": None, "cause": "promotion"}
    for epoch in (1, 3):
        with pytest.raises(Fenced, match=f"epoch {epoch}"):
            registry.ask(lambda ctx, epoch=epoch: ctx.store.replace_champion("m", epoch, row))  # type: ignore[misc]
    champion = registry.ask(lambda ctx: ctx.store.champion("m"))
    assert champion is not None
    assert (champion.epoch, champion.version) == (2, 2)


def test_only_the_champion_that_the_signal_is_about_is_rolled_back_and_only_on_trial(registry: Registry) -> None:
    registry.apply(bake="7d")
    registry.run(0, 1)
    registry.run(1, 2, beats=0)
    assert registry.hear(degraded(epoch=1), day(3)) == []
    assert registry.hear(degraded(epoch=2), day(9.1)) == []
    (changed,) = registry.hear(degraded(epoch=2), day(9))
    assert changed.caller is None, "the loop decided by itself"
    assert (changed.epoch, changed.version, changed.cause, changed.quarantined) == (3, 1, "rollback", 2)
    assert changed.rollback_target is None, "the version that was just taken out is nobody's way back"
    assert registry.states() == {1: "champion", 2: "quarantined"}
    assert registry.hear(degraded(epoch=2), day(9)) == []


def test_a_rollback_by_hand_names_its_epoch_and_counts_in_event_time(registry: Registry) -> None:
    registry.apply()
    registry.run(0, 1)
    registry.run(1, 2, beats=0)
    stale = registry.reply(partial(on_roll_back, RollBack("m", 1, "", CALLER)))
    assert (stale.answer.changed, stale.outputs) == (False, ())
    done = registry.reply(partial(on_roll_back, RollBack("m", 2, "smells", CALLER)))
    (output,) = done.outputs
    assert isinstance(output, Derived)
    assert promoted([output.payload]) == [(3, 1, "rollback")]
    assert isinstance(output.payload, ChampionChanged) and output.payload.caller == CALLER
    assert output.cause.time_us == parse_us(day(2)), "a click counts at the event time that was read"
    champion = registry.ask(lambda ctx: ctx.store.champion("m"))
    assert champion is not None
    assert champion.since_us == parse_us(day(2))


def test_a_quarantined_version_comes_back_only_by_approval(registry: Registry) -> None:
    registry.apply()
    registry.run(0, 1)
    registry.run(1, 2, beats=0)
    registry.reply(partial(on_roll_back, RollBack("m", 2, "", CALLER)))
    assert promoted(registry.run(1, 3, beats=0)) == []
    assert registry.states() == {1: "champion", 2: "quarantined"}
    (first,) = registry.requests()
    assert registry.answer(first, approved=False).answer.promoted is False
    assert promoted(registry.run(1, 4, beats=0)) == []
    assert registry.states() == {1: "champion", 2: "quarantined"}
    (second,) = [request for request in registry.requests() if request.state == "open"]
    assert registry.answer(second).answer.promoted is True
    assert registry.states() == {1: "retired", 2: "champion"}


def test_a_verdict_on_the_package_that_answers_leaves_it_the_champion(registry: Registry) -> None:
    registry.apply(margin=0.06)
    registry.run(0, 1)
    assert promoted(registry.run(0, 2, beats=0)) == []
    assert registry.states() == {1: "champion"}


def test_a_quarantined_predecessor_is_nobodys_way_back(registry: Registry) -> None:
    registry.apply()
    registry.run(0, 1)
    registry.run(1, 2, beats=0)
    registry.ask(lambda ctx: ctx.store.set_state("m", 1, "quarantined"))
    with pytest.raises(Refused, match="no predecessor"):
        registry.reply(partial(on_roll_back, RollBack("m", 2, "", CALLER)))
    assert registry.hear(degraded(epoch=2), day(3)) == []


def test_an_approval_counts_once_in_time_for_its_model_and_the_champion_it_was_asked_beside(
    registry: Registry,
) -> None:
    registry.apply("m", "n", risk="approval")
    registry.run(0, 1)
    registry.run(1, 1)
    first, second = registry.requests()
    with pytest.raises(Refused, match="no request with this nonce"):
        registry.answer(first, "n")
    assert registry.answer(first).answer.promoted is True
    with pytest.raises(Refused, match="This request is approved"):
        registry.answer(first)
    overtaken = registry.answer(second)
    assert (overtaken.answer.promoted, overtaken.outputs) == (False, ())
    with pytest.raises(Refused, match="This request is overtaken"):
        registry.answer(second)
    registry.run(2, 2, beats=0)
    late = registry.requests()[-1]
    registry.clock.us += round(registry.own.approval_hours * HOUR_US) + 1
    with pytest.raises(Refused, match="This request is expired"):
        registry.answer(late)
    assert registry.states() == {1: "champion", 2: "awaiting_approval", 3: "awaiting_approval"}


def test_a_no_is_told_and_promotes_nobody(registry: Registry) -> None:
    registry.apply(risk="approval")
    registry.run(0, 1)
    reply = registry.answer(registry.requests()[0], approved=False)
    (decided,) = payloads(reply)
    assert (decided.approver, decided.caller) == ("risk-board", CALLER)
    assert decided.model_dump(include={"approved", "version", "epoch"}) == {"approved": False, "version": 1, "epoch": 0}
    assert registry.states() == {1: "rejected"}
    assert registry.ask(lambda ctx: ctx.store.champion("m")) is None


def test_a_replicas_refusal_is_kept(registry: Registry) -> None:
    registry.apply()
    registry.run(0, 1)
    refusal = ActivationFailed(
        model="m",
        version=1,
        epoch=1,
        package=registry.packages[0].digest,
        replica="r1",
        reason="digest",
        detail="other bytes",
    )
    assert registry.hear(refusal, day(2)) == []
    (receipt,) = registry.ask(lambda ctx: ctx.store.receipts("m"))
    assert (receipt.replica, receipt.state, receipt.detail) == ("r1", "digest", "other bytes")
