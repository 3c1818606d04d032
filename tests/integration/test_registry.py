"""The registry against a real broker: declarations, promotion with evidence, approval, rollback."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx2
import pytest
from typer.testing import CliRunner

from evenkeel.apps.cli.main import app
from evenkeel.contracts.http.registry import Applied, Approval, ApprovalResult, DeclarationProblem
from evenkeel.contracts.http.route import ROLES
from evenkeel.contracts.payload import Caller
from evenkeel.contracts.registry import ApprovalDecided, ChampionChanged, GateDecided, ModelDeclared, StreamDeclared
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import CallRefused
from evenkeel.libs.packages.package import PackageRef
from evenkeel.libs.process.lock import FolderLock
from evenkeel.services.registry.service import service
from tests.makers import comparison, performance_degraded, run_completed
from tests.running import HOLDER, Running, eventually, publish_events, read_events, running, write_token
from tests.tiny_packages import tiny_package

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
SMALLEST = (ROOT / "docs" / "examples" / "smallest.yaml").read_text()
T0, T1 = "2013-02-01T00:00:00Z", "2013-02-03T00:00:00Z"


@pytest.fixture
async def registry(broker: str, tmp_path: Path) -> AsyncIterator[tuple[Running, AsyncClient]]:
    token = write_token(tmp_path, "scientist", "approver", "client")
    async with (
        running(service, broker, tmp_path, http=True) as running_service,
        running_service.client(token) as client,
    ):
        yield running_service, client


def declaration(model: str, policy: str = "") -> str:
    return SMALLEST.replace("order-returned", model) + policy


def run(
    model: str, ref: PackageRef, view: str, number: int, champion: str | None = None, lower: float = 0.01
) -> RunCompleted:
    return run_completed(
        ref,
        beats=champion,
        compared=comparison(improvement_lower=lower),
        model=model,
        run_id=f"run-{model}-{number}",
        trigger="drift",
        view_version=view,
    )


async def view_of(client: AsyncClient, model: str) -> str:
    return (await client.registry.model(model)).view_version


async def changes(broker: str, model: str, count: int) -> list[ChampionChanged]:
    async def enough() -> list[ChampionChanged] | None:
        found = [e.data for e in await read_events(broker, ChampionChanged) if e.data.model == model]
        return found if len(found) >= count else None

    return await eventually(enough, f"{count} champions of {model}")


async def test_a_declaration_is_said_once_and_a_bad_one_names_line_and_fix(
    registry: tuple[Running, AsyncClient], broker: str
) -> None:
    _, client = registry
    looked_at = await client.registry.apply(declaration("declared"), dry_run=True)
    first = await client.registry.apply(declaration("declared"), filename="bestellungen.yaml")
    again = await client.registry.apply(declaration("declared"))
    assert looked_at == Applied(dry_run=True, streams=["orders"], models=["declared"])
    assert first == Applied(dry_run=False, streams=["orders"], models=["declared"])
    assert again == Applied(dry_run=False, streams=[], models=[])
    with pytest.raises(CallRefused) as bad:
        await client.registry.apply(declaration("declared").replace("fields: [amount]", "fields: [amont]"))
    assert (bad.value.status, bad.value.title) == (422, "The declaration cannot be applied")
    assert isinstance(bad.value.problem, DeclarationProblem)
    fault = bad.value.problem.problems[0]
    assert fault.line > 1
    assert "amont" in fault.message
    assert fault.fix == bad.value.fix
    (stream,) = [e.data for e in await read_events(broker, StreamDeclared)]
    (model,) = [e.data for e in await read_events(broker, ModelDeclared)]
    assert (stream.name, model.name) == ("orders", "declared")
    assert stream.caller == model.caller == Caller(name=HOLDER, role="scientist")
    assert (await client.registry.streams()).streams.keys() == {"orders"}
    assert [found.model for found in (await client.registry.models()).models] == ["declared"]
    assert (await client.registry.declaration_schema()).title == "Declaration"


async def test_promotion_refusal_and_rollback_by_degradation(
    registry: tuple[Running, AsyncClient], broker: str, tmp_path: Path
) -> None:
    _, client = registry
    await client.registry.apply(declaration("loop"))
    view = await view_of(client, "loop")
    refs = [tiny_package(tmp_path / "artifacts", tmp_path / "keys", seed=n) for n in range(3)]
    await publish_events(broker, "trainer", [(run("loop", refs[0], view, 1), {"time": T0})])
    (first,) = await changes(broker, "loop", 1)
    await publish_events(
        broker,
        "trainer",
        [
            (run("loop", refs[1], view, 2, refs[0].digest, lower=-0.001), {"time": T0}),
            (run("loop", refs[2], view, 3, refs[0].digest), {"time": T0}),
        ],
    )
    _, second = await changes(broker, "loop", 2)
    assert (first.epoch, second.epoch, second.package, second.cause) == (1, 2, refs[2].digest, "promotion")
    refused = [
        e.data for e in await read_events(broker, GateDecided) if e.data.package == refs[1].digest and not e.data.passed
    ]
    assert [gate.gate for gate in refused] == ["better_than_champion"]
    degraded = performance_degraded(
        model="loop",
        epoch=2,
        version=second.version,
        significance=0.001,
        n=900,
        window_start=T0,
        window_end=T1,
        in_bake_period=True,
        detail="worse",
    )
    await publish_events(broker, "monitor", [(degraded, {"time": T1}), (degraded, {"time": T1, "id": "again"})])
    third = (await changes(broker, "loop", 3))[2]
    assert (third.epoch, third.version, third.cause, third.quarantined) == (
        3,
        first.version,
        "rollback",
        second.version,
    )
    by_hand = await client.registry.rollback("loop", epoch=2)
    assert (by_hand.changed, by_hand.epoch, by_hand.version) == (False, 3, first.version)
    with pytest.raises(CallRefused) as nothing_left:
        await client.registry.rollback("loop")
    assert (nothing_left.value.status, nothing_left.value.title) == (409, "Nothing to roll back to")
    assert len(await changes(broker, "loop", 3)) == 3
    history = await client.registry.champion("loop")
    assert history.champion == history.history[-1]
    assert [(e.epoch, e.cause, e.since, e.active) for e in history.history] == [
        (1, "promotion", T0, False),
        (2, "promotion", T0, False),
        (3, "rollback", T1, True),
    ]
    versions = (await client.registry.versions("loop")).versions
    assert [(v.version, v.state, v.registered, len(v.gates)) for v in versions] == [
        (1, "champion", T0, 5),
        (2, "refused", T0, 5),
        (3, "quarantined", T0, 5),
    ]
    assert versions[2].evidence is not None
    assert versions[2].evidence.comparison == run("loop", refs[2], view, 3, refs[0].digest).comparison


async def test_an_altered_package_fails_its_gate(
    registry: tuple[Running, AsyncClient], broker: str, tmp_path: Path
) -> None:
    _, client = registry
    await client.registry.apply(declaration("altered"))
    ref = tiny_package(tmp_path / "artifacts", tmp_path / "keys", seed=7)
    model = tmp_path / "artifacts" / "sha256" / ref.digest.removeprefix("sha256:") / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    await publish_events(broker, "trainer", [(run("altered", ref, await view_of(client, "altered"), 1), {"time": T0})])

    async def decided() -> list[Any] | None:
        found = [e.data for e in await read_events(broker, GateDecided) if e.data.model == "altered"]
        return found if len(found) == 5 else None

    gates = {gate.gate: gate for gate in await eventually(decided, "five gates")}
    assert not gates["golden_rows"].passed
    assert "altered" in gates["golden_rows"].detail
    assert not [e for e in await read_events(broker, ChampionChanged) if e.data.model == "altered"]


async def test_an_approval_is_used_once_for_the_package_it_was_asked_for(
    registry: tuple[Running, AsyncClient], broker: str, tmp_path: Path
) -> None:
    _, client = registry
    await client.registry.apply(declaration("careful", "    promotion: {risk: approval}\n"))
    ref = tiny_package(tmp_path / "artifacts", tmp_path / "keys", seed=9)
    await publish_events(broker, "trainer", [(run("careful", ref, await view_of(client, "careful"), 1), {"time": T0})])

    async def asked() -> Approval | None:
        found = (await client.registry.approvals("careful")).approvals
        return found[0] if found else None

    request = await eventually(asked, "a request for approval")
    assert (request.package, request.state, request.approver) == (ref.digest, "open", None)

    async def approve(package: str) -> ApprovalResult:
        return await client.registry.approve(
            "careful", nonce=request.nonce, package=package, approved=True, approver="risk-board"
        )

    with pytest.raises(CallRefused) as other:
        await approve("sha256:" + "0" * 64)
    assert (other.value.status, other.value.field, other.value.fix) == (409, "package", f"Send {ref.digest}.")
    assert (await approve(ref.digest)) == ApprovalResult(promoted=True, version=1)
    with pytest.raises(CallRefused, match="This request is approved"):
        await approve(ref.digest)
    (champion,) = await changes(broker, "careful", 1)
    assert champion.cause == "approval"
    (decided,) = [e.data for e in await read_events(broker, ApprovalDecided) if e.data.model == "careful"]
    assert (decided.approver, decided.package, decided.epoch) == ("risk-board", ref.digest, 0)
    assert decided.caller == champion.caller == Caller(name=HOLDER, role="approver")


async def test_without_the_role_nothing_changes(
    registry: tuple[Running, AsyncClient], broker: str, tmp_path: Path
) -> None:
    service_running, _ = registry
    async with httpx2.AsyncClient(base_url=service_running.url) as nobody:
        assert (await nobody.post("/v1/declarations", content=SMALLEST)).status_code == 401
        client = {"Authorization": f"Bearer {write_token(tmp_path, 'client')}"}

        async def forbidden() -> bool:
            return (await nobody.post("/v1/declarations", content=SMALLEST, headers=client)).status_code == 403

        await eventually(forbidden, "the new token to be known")


async def test_what_the_document_shows_of_the_client_runs_as_it_stands(
    registry: tuple[Running, AsyncClient], tmp_path: Path
) -> None:
    up, _ = registry
    (tmp_path / "keys" / "token").write_text(write_token(tmp_path, *ROLES))
    lock = FolderLock(tmp_path / "supervisor.json")
    lock.acquire(json.dumps({"urls": {"registry": up.url}}))
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "client.md").read_text(), re.MULTILINE | re.DOTALL)
    command = [sys.executable, "-c", "\n".join(blocks)]
    environment = {**os.environ, "EVENKEEL_DATA_DIR": str(tmp_path)}

    async def run_it() -> str | None:
        done = await asyncio.create_subprocess_exec(*command, env=environment, cwd=ROOT, stdout=PIPE, stderr=PIPE)
        said, wrong = (part.decode() for part in await done.communicate())
        assert done.returncode == 0 or "known bearer token" in wrong, said + wrong
        return said if done.returncode == 0 else None

    said = (await eventually(run_it, "the document's code to run with the new token")).splitlines()
    lock.release()
    assert said == [
        "dry_run=True streams=['orders'] models=['order-returned']",
        "declared: ['orders'] ['order-returned']",
        "order-returned is answered by nobody yet",
        "404 No champion order-returned has no champion. Declared models: order-returned.",
        "ready 0 champions so far",
    ]


async def test_the_command_line_applies_checks_and_says_every_fault(
    registry: tuple[Running, AsyncClient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    up, _ = registry
    token = write_token(tmp_path, *ROLES)
    monkeypatch.setenv("EVENKEEL_TOKEN", token)
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(declaration("declared"))
    bad.write_text(declaration("declared").replace("boolean", "bolean").replace("task: binary", "task: binry"))

    async def evenkeel(*arguments: str) -> tuple[int, list[str]]:
        command = [*arguments, "--data-dir", str(tmp_path), "--url", up.url]
        done = await anyio.to_thread.run_sync(lambda: CliRunner().invoke(app, command))
        return done.exit_code, done.output.splitlines()

    async def known() -> bool:
        return (await evenkeel("apply", str(good), "--dry-run"))[0] == 0

    await eventually(known, "the new token to be known")
    said = await evenkeel("apply", str(good), "--dry-run")
    assert said == (0, [f"{good}: valid, would declare stream orders, model declared"])
    assert await evenkeel("apply", str(good)) == (0, [f"{good}: stream orders, model declared declared"])
    assert await evenkeel("apply", str(good)) == (0, [f"{good}: nothing has changed"])
    code, (line,) = await evenkeel("apply", str(good), "--json")
    assert (code, json.loads(line)) == (0, {"dry_run": False, "streams": [], "models": []})
    code, lines = await evenkeel("apply", str(bad))
    faults = [line.removeprefix("error: ") for line in lines]
    assert code == 1
    assert [re.match(r"line \d+, [\w.\[\]]+: .*; .*", fault) is not None for fault in faults] == [True, True], lines
    parked = await evenkeel("parked", "list", "--service", "registry")
    assert parked == (0, ["nothing is parked"])
    code, lines = await evenkeel("parked", "release", "x", "--service", "registry")
    assert (code, lines) == (1, ["error: nothing is parked under x"])
