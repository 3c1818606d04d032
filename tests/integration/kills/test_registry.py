"""The registry killed at every step, in events and in commands: every promotion, refusal and rollback once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from evenkeel.contracts.http.registry import Applied, RollbackResult
from evenkeel.contracts.monitor import PerformanceDegraded
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import ChampionChanged
from evenkeel.contracts.serving import VersionActivated
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.features import compile_plan
from evenkeel.libs.packages.package import PackageRef
from evenkeel.services.registry.service import service
from tests.integration.test_registry import T0, T1, declaration, run
from tests.kills import same, stories, trial, without_wall_clock
from tests.makers import performance_degraded
from tests.running import publish_events
from tests.tiny_packages import tiny_package

pytestmark = pytest.mark.anyio

MODEL, CAREFUL = "loop", "careful"
FIRST = declaration(MODEL)
SECOND = declaration(CAREFUL, "    promotion: {risk: approval}\n")


def view() -> str:
    declared = load_declaration(FIRST, "first.yaml")
    return compile_plan(declared.models[MODEL], declared.streams).view_version


def parts(refs: list[PackageRef]) -> list[tuple[str, str, Payload]]:
    """(where to die, who tells, what): five promotions, two refusals, a request for approval, receipts."""

    def made(number: int, before: int | None, lower: float = 0.01, model: str = MODEL) -> Payload:
        champion = None if before is None else refs[before].digest
        return run(model, refs[number], view(), number, champion, lower)

    def receipt(epoch: int, number: int) -> Payload:
        return VersionActivated(
            model=MODEL, version=number + 1, epoch=epoch, package=refs[number].digest, replica="r1", load_seconds=0.1
        )

    return [
        ("loop.fetched@1", "trainer", made(0, None)),
        ("loop.begun@1", "trainer", made(1, 0)),
        ("loop.positions@2", "trainer", made(2, 1, -0.001)),
        ("promotion.decided@1", "trainer", made(3, 1)),
        ("loop.handled@1", "serving", receipt(1, 0)),
        ("loop.outbox@2", "trainer", made(4, 3)),
        ("loop.committed@1", "trainer", made(0, None, model=CAREFUL)),
        ("publish.sent@1", "trainer", made(5, 1)),
        ("publish.deleted@1", "trainer", made(6, 4)),
        ("loop.committed@1", "serving", receipt(2, 1)),
    ]


def degraded(epoch: int, version: int) -> PerformanceDegraded:
    return performance_degraded(
        model=MODEL,
        epoch=epoch,
        version=version,
        significance=0.001,
        n=900,
        window_start=T0,
        window_end=T1,
        in_bake_period=True,
        detail="worse",
    )


async def test_killed_at_every_step(
    broker: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "1")
    seed = tmp_path / "seed"
    refs = [tiny_package(seed / "artifacts", seed / "keys", seed=number) for number in range(8)]
    registry = trial(service, broker, tmp_path, postgres, seed)
    # Not committed, then committed but not answered: whoever asked asks again.
    await registry.kill("loop.outbox@1", lambda client: client.registry.apply(FIRST))
    await registry.kill("publish.sent@1", lambda client: client.registry.apply(FIRST))
    first = [answer[0] for answer in await registry.settle(declare)]
    assert first == [Applied(dry_run=False, streams=[], models=[])] * len(registry.killed) + [
        Applied(dry_run=False, streams=["orders"], models=[MODEL])
    ]
    for failpoint, source, payload in parts(refs):
        await publish_events(broker, source, [(payload, {"time": T0})])
        await registry.kill(failpoint)
    await registry.settle()
    # What monitor says of an epoch follows from it, so nobody can know it before it was published.
    await publish_events(broker, "monitor", [(degraded(5, 7), {"time": T1}), (degraded(5, 7), {"time": T1, "id": "b"})])
    await registry.kill("loop.positions@1")
    await registry.kill("loop.committed@1")
    await registry.settle()
    await publish_events(broker, "trainer", [(run(MODEL, refs[7], view(), 9, refs[4].digest), {"time": T1})])
    await registry.settle()
    await registry.kill("publish.sent@1", roll_back)
    same(await registry.settle(answers), "the answers")
    registry.was_killed_at_every_step()
    told = list((await stories(service, broker, commands=["http"])).values())
    assert len(told) == len(registry.copies)
    same(told, "the events")
    changes = [one.value for one in told[0].values() if one.topic == topic_of(ChampionChanged, "registry").name]
    changes.sort(key=lambda change: change["epoch"])
    assert [(one["epoch"], one["version"], one["cause"]) for one in changes] == [
        (1, 1, "promotion"),
        (2, 2, "promotion"),
        (3, 4, "promotion"),
        (4, 5, "promotion"),
        (5, 7, "promotion"),
        (6, 5, "rollback"),
        (7, 8, "promotion"),
        (8, 5, "rollback"),
    ]


async def declare(client: AsyncClient) -> list[Applied]:
    return [await client.registry.apply(text) for text in (FIRST, SECOND)]


async def roll_back(client: AsyncClient) -> RollbackResult:
    """By hand, and again if it was killed before it answered: the epoch that is named is taken out once."""
    return await client.registry.rollback(MODEL, epoch=7)


async def answers(client: AsyncClient) -> Any:
    await roll_back(client)
    registry = client.registry
    found: list[BaseModel] = [await registry.streams(), await registry.models()]
    for model in (MODEL, CAREFUL):
        found += [await registry.versions(model), await registry.champion(model), await registry.approvals(model)]
    return without_wall_clock([answer.model_dump(mode="json") for answer in found])
