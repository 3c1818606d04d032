"""Two releases side by side: what the older one says on a topic's former major reads as today's, once."""

from __future__ import annotations

from pathlib import Path

import pytest

from evenkeel.contracts import superseded
from evenkeel.contracts.monitor import DriftDetected
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.superseded import Superseded
from evenkeel.contracts.topics import Plane, Topic
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.service import Cause, Derived
from evenkeel.libs.telemetry.tracing import Tracing
from tests.integration.test_runtime import decisions, drift, drifts, trainer
from tests.running import eventually, publish_events, running

pytestmark = pytest.mark.anyio


class DriftSeen(Payload):
    """What monitor said before it named the window."""

    model: str
    psi: float


FORMER = Topic("monitor.drift-detected.v0", DriftSeen, "monitor", ("trainer",), Plane.CONTROL, lambda p: p.model)


def upcast(seen: DriftSeen) -> DriftDetected:
    return drift(1).model_copy(update={"model": seen.model, "effect": seen.psi})


async def say_as_before(broker: str, names: list[str]) -> None:
    """The older release's monitor, with its map."""
    builder = OutputBuilder("monitor", "older", {}, 0, Tracing("monitor", "test").batch())
    builder._routes[DriftSeen] = (FORMER, b"io.evenkeel." + FORMER.name.encode())
    builder.add([Derived(DriftSeen(model="m", psi=0.5), Cause(n, 0, n), id=n) for n in names], "test")
    bus = KafkaBus(broker, "older")
    await bus.start()
    await bus.create_topics([FORMER])
    await bus.publish(builder.records)
    await bus.publish(builder.records)
    await bus.stop()


async def test_both_majors_have_their_effect_once(broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Superseded(FORMER.name, DriftSeen, "monitor.drift-detected.v1", upcast)
    monkeypatch.setattr(superseded, "SUPERSEDED", (row,))
    await say_as_before(broker, ["s-old-1", "s-old-2"])
    await publish_events(broker, "monitor", drifts("s-new-", 2))
    for _ in range(2):
        async with running(trainer(), broker, tmp_path):

            async def all_decided() -> bool:
                return len(await decisions(broker, "s-")) == 4

            await eventually(all_decided, "four decisions")
    found = [event.data.cause_id for event in await decisions(broker, "s-")]
    assert sorted(found) == ["s-new-0", "s-new-1", "s-old-1", "s-old-2"]


async def test_a_former_major_that_is_nowhere_is_not_waited_for(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Superseded("monitor.drift-detected.v00", DriftSeen, "monitor.drift-detected.v1", upcast)
    monkeypatch.setattr(superseded, "SUPERSEDED", (row,))
    async with running(trainer(), broker, tmp_path) as found:
        assert found.runtime.not_ready_reason is None
