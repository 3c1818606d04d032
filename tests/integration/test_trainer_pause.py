"""A paused loop answers every trigger with who paused it since when, over a restart, and goes on when it is resumed."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.monitor import DriftDetected
from evenkeel.contracts.payload import Caller
from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.contracts.trainer import LoopChanged, RetrainDecided
from evenkeel.libs.client.errors import CallRefused
from evenkeel.services.trainer.service import service
from evenkeel.services.trainer.settings import TrainerSettings
from tests.makers import drift_detected
from tests.model_life import MODEL, VIEW, declaration
from tests.running import HOLDER, eventually, publish_events, read_events, running, write_token

pytestmark = pytest.mark.anyio

OWN = TrainerSettings(standby=False)
PAUSE = {"by": "Ada", "reason": "a data incident upstream"}


def drift(number: int) -> tuple[DriftDetected, dict[str, str]]:
    found = drift_detected(
        model=MODEL,
        epoch=0,
        version=0,
        window_start="2013-01-13T00:00:00Z",
        window_end="2013-01-14T00:00:00Z",
        significance=0.001,
        n=900,
    )
    return found, {"time": f"2013-01-14T00:00:0{number}Z", "id": f"drift-{number}"}


async def answers(broker: str) -> dict[str, RetrainDecided]:
    return {e.data.cause_id: e.data for e in await read_events(broker, RetrainDecided)}


async def answered(broker: str, number: int) -> RetrainDecided:
    async def given() -> RetrainDecided | None:
        return (await answers(broker)).get(f"drift-{number}")

    return await eventually(given, f"the answer to drift {number}")


async def test_a_pause_answers_every_trigger_until_it_is_resumed(broker: str, tmp_path: Path) -> None:
    declared = declaration()
    spec = declared.models[MODEL]
    time = {"time": "2013-01-01T00:00:00Z"}
    await publish_events(
        broker,
        "registry",
        [
            (StreamDeclared.of(name="orders", spec=declared.streams["orders"]), time),
            (ModelDeclared.of(name=MODEL, spec=spec, streams=declared.streams, view_version=VIEW), time),
        ],
    )
    token = write_token(tmp_path, "operator")
    async with (
        running(service, broker, tmp_path, OWN, http=True) as trainer,
        trainer.client(token) as client,
    ):

        async def known() -> bool:
            return bool((await client.trainer.loops()).loops)

        await eventually(known, "the model")
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as http:
            unnamed = await http.post(f"{trainer.url}/v1/models/{MODEL}/pause", json={"by": "Ada"})
        assert (unnamed.status_code, unnamed.json()["field"]) == (422, "reason")
        assert (await client.trainer.pause(MODEL, **PAUSE)).changed
        with pytest.raises(CallRefused, match="paused by Ada since ") as again:
            await client.trainer.pause(MODEL, by="Bob", reason="me too")
        assert again.value.status == 409
        await publish_events(broker, "monitor", [drift(1)])
        first = await answered(broker, 1)
    async with (
        running(service, broker, tmp_path, OWN, http=True) as trainer,
        trainer.client(token) as client,
    ):
        (loop,) = (await client.trainer.loops()).loops
        assert (loop.state, loop.by, loop.reason) == ("paused", "Ada", PAUSE["reason"])
        await publish_events(broker, "monitor", [drift(2)])
        second = await answered(broker, 2)
        await client.trainer.resume(MODEL, by="Bob", reason="it is mended")
        await publish_events(broker, "monitor", [drift(3)])
        third = await answered(broker, 3)
    said = f"paused by Ada since {loop.since}: {PAUSE['reason']}"
    assert [(a.retrain, a.reason, a.detail) for a in (first, second)] == [(False, "paused", said)] * 2
    assert third.reason == "no_dataset"
    changed = [e.data for e in await read_events(broker, LoopChanged)]
    changes = [(one.state, one.by, one.reason) for one in changed]
    assert changes == [("paused", "Ada", PAUSE["reason"]), ("running", "Bob", "it is mended")]
    assert [one.caller for one in changed] == [Caller(name=HOLDER, role="operator")] * 2
    assert await read_events(broker, DatasetCommitted) == []
