"""The registry against a real broker: declarations, promotion with evidence, approval, rollback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from evenkeel.contracts.registry import ApprovalDecided, ChampionChanged, GateDecided, ModelDeclared, StreamDeclared
from evenkeel.contracts.trainer import RunCompleted
from evenkeel.libs.packages.package import PackageRef
from evenkeel.services.registry.service import service
from tests.makers import comparison, performance_degraded, run_completed
from tests.running import Running, eventually, publish_events, read_events, running, write_token
from tests.tiny_packages import tiny_package

pytestmark = pytest.mark.anyio
ROOT = Path(__file__).parents[2]
SMALLEST = (ROOT / "docs" / "examples" / "smallest.yaml").read_text()
T0, T1 = "2013-02-01T00:00:00Z", "2013-02-03T00:00:00Z"


@pytest.fixture
async def registry(broker: str, tmp_path: Path) -> AsyncIterator[tuple[Running, httpx2.AsyncClient]]:
    token = write_token(tmp_path, "scientist", "approver", "client")
    async with (
        running(service, broker, tmp_path, http=True) as running_service,
        httpx2.AsyncClient(base_url=running_service.url, headers={"Authorization": f"Bearer {token}"}) as http,
    ):
        yield running_service, http


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


async def view_of(http: httpx2.AsyncClient, model: str) -> str:
    return str((await http.get(f"/v1/models/{model}")).json()["view_version"])


async def changes(broker: str, model: str, count: int) -> list[ChampionChanged]:
    async def enough() -> list[ChampionChanged] | None:
        found = [e.data for e in await read_events(broker, ChampionChanged) if e.data.model == model]
        return found if len(found) >= count else None

    return await eventually(enough, f"{count} champions of {model}")


async def test_a_declaration_is_said_once_and_a_bad_one_names_line_and_fix(
    registry: tuple[Running, httpx2.AsyncClient], broker: str
) -> None:
    _, http = registry
    looked_at = await http.post("/v1/declarations?dry_run=true", content=declaration("declared"))
    assert looked_at.json() == {"valid": True}
    first = await http.post("/v1/declarations", content=declaration("declared"))
    again = await http.post("/v1/declarations", content=declaration("declared"))
    assert (first.json(), again.json()) == (
        {"streams": ["orders"], "models": ["declared"]},
        {"streams": [], "models": []},
    )
    bad = await http.post(
        "/v1/declarations", content=declaration("declared").replace("fields: [amount]", "fields: [amont]")
    )
    assert bad.status_code == 422
    problem = bad.json()["problems"][0]
    assert problem["line"] > 1
    assert "amont" in problem["message"]
    assert problem["fix"]
    assert [e.data.name for e in await read_events(broker, StreamDeclared)] == ["orders"]
    assert [e.data.name for e in await read_events(broker, ModelDeclared)] == ["declared"]


async def test_promotion_refusal_and_rollback_by_degradation(
    registry: tuple[Running, httpx2.AsyncClient], broker: str, tmp_path: Path
) -> None:
    _, http = registry
    await http.post("/v1/declarations", content=declaration("loop"))
    view = await view_of(http, "loop")
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
    by_hand = (await http.post("/v1/models/loop/rollback", json={"epoch": 2})).json()
    assert by_hand["changed"] is False
    nothing_left = await http.post("/v1/models/loop/rollback", json={})
    assert nothing_left.status_code == 409
    assert len(await changes(broker, "loop", 3)) == 3


async def test_an_altered_package_fails_its_gate(
    registry: tuple[Running, httpx2.AsyncClient], broker: str, tmp_path: Path
) -> None:
    _, http = registry
    await http.post("/v1/declarations", content=declaration("altered"))
    ref = tiny_package(tmp_path / "artifacts", tmp_path / "keys", seed=7)
    model = tmp_path / "artifacts" / "sha256" / ref.digest.removeprefix("sha256:") / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    await publish_events(broker, "trainer", [(run("altered", ref, await view_of(http, "altered"), 1), {"time": T0})])

    async def decided() -> list[Any] | None:
        found = [e.data for e in await read_events(broker, GateDecided) if e.data.model == "altered"]
        return found if len(found) == 5 else None

    gates = {gate.gate: gate for gate in await eventually(decided, "five gates")}
    assert not gates["golden_rows"].passed
    assert "altered" in gates["golden_rows"].detail
    assert not [e for e in await read_events(broker, ChampionChanged) if e.data.model == "altered"]


async def test_an_approval_is_used_once_for_the_package_it_was_asked_for(
    registry: tuple[Running, httpx2.AsyncClient], broker: str, tmp_path: Path
) -> None:
    _, http = registry
    await http.post("/v1/declarations", content=declaration("careful", "    promotion: {risk: approval}\n"))
    ref = tiny_package(tmp_path / "artifacts", tmp_path / "keys", seed=9)
    await publish_events(broker, "trainer", [(run("careful", ref, await view_of(http, "careful"), 1), {"time": T0})])

    async def asked() -> dict[str, Any] | None:
        found = (await http.get("/v1/models/careful/approvals")).json()["approvals"]
        return found[0] if found else None

    request = await eventually(asked, "a request for approval")
    answer = {"nonce": request["nonce"], "package": ref.digest, "approved": True, "approver": "risk-board"}
    other = await http.post("/v1/models/careful/approvals", json=answer | {"package": "sha256:" + "0" * 64})
    assert (other.status_code, other.json()["field"]) == (409, "package")
    assert (await http.post("/v1/models/careful/approvals", json=answer)).json()["promoted"] is True
    assert (await http.post("/v1/models/careful/approvals", json=answer)).status_code == 409
    (champion,) = await changes(broker, "careful", 1)
    assert champion.cause == "approval"
    (decided,) = [e.data for e in await read_events(broker, ApprovalDecided) if e.data.model == "careful"]
    assert (decided.approver, decided.package, decided.epoch) == ("risk-board", ref.digest, 0)


async def test_without_the_role_nothing_changes(
    registry: tuple[Running, httpx2.AsyncClient], broker: str, tmp_path: Path
) -> None:
    service_running, _ = registry
    async with httpx2.AsyncClient(base_url=service_running.url) as nobody:
        assert (await nobody.post("/v1/declarations", content=SMALLEST)).status_code == 401
        client = {"Authorization": f"Bearer {write_token(tmp_path, 'client')}"}

        async def forbidden() -> bool:
            return (await nobody.post("/v1/declarations", content=SMALLEST, headers=client)).status_code == 403

        await eventually(forbidden, "the new token to be known")
