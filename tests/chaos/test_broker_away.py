"""The broker is away for a while: serving goes on, ingest says so, nothing is lost, and everything can still be stopped."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.serving import PredictionMade
from evenkeel.libs.process.ports import free_port
from tests.chaos.quiet import until_quiet
from tests.chaos.run import loaded_system
from tests.invariants.oracle import Oracle, Violation
from tests.running import eventually, read_events

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

AWAY_SECONDS = 12.0
STOP_SECONDS = 15.0


async def test_predictions_go_on_and_are_recorded_once_it_is_back(tmp_path: Path) -> None:
    kafka = EmbeddedKafka(tmp_path / "broker", free_port())
    kafka.start()
    try:
        async with loaded_system(tmp_path / "data", 1, 500.0, print, broker=kafka.address) as (system, load):
            kafka.kill()
            away_since = time.monotonic()
            statuses = [await load.ask_once() for _ in range(50)]
            answer = await load.post_once()
            while time.monotonic() - away_since < AWAY_SECONDS:
                statuses.append(await load.ask_once())
                await asyncio.sleep(0.1)
            assert set(statuses) == {200}
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1"), answer.text

            await asyncio.to_thread(kafka.start)

            async def recorded() -> bool:
                return load.predictions <= {e.id for e in await read_events(system.broker, PredictionMade)}

            await eventually(recorded, "every prediction to be recorded", 60)
            _, restless = await until_quiet(system.urls, time.monotonic(), 60)
            assert restless == []
            assert await once(Oracle(system.broker, system.data_dir, system.urls, system.token)) == []

            kafka.kill()
            assert await load.ask_once() == 200
            asked_at = time.monotonic()
            await asyncio.to_thread(system.stop)
            assert time.monotonic() - asked_at < STOP_SECONDS
            assert system.exit_codes == dict.fromkeys(system.urls, 0)
            await asyncio.to_thread(kafka.start)
            assert await once(Oracle(system.broker, system.data_dir)) == []
    finally:
        kafka.kill()


async def once(oracle: Oracle) -> list[Violation]:
    """Invariant 2. A record whose acknowledgement went with the broker may be there again, as the same record."""
    return await asyncio.to_thread(oracle.every_event_once)
