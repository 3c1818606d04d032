"""Monitor killed at every step: each window, signal and alert once, and every answer as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.monitor import AlertChanged, DriftDetected, PerformanceDegraded, WindowMeasured
from evenkeel.contracts.serving import ReplicaSeen
from evenkeel.contracts.topics import topic_of
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.services.monitor.service import service
from tests.integration.test_monitor import Upstream, facts, feed
from tests.kills import same, stories, trial
from tests.makers import event_rejected, run_failed
from tests.running import publish_events
from tests.unit.monitor.scenes import DAY_US, MODEL, START, STREAM, day, traffic

pytestmark = pytest.mark.anyio

KILLS = (
    "loop.fetched@4",
    "loop.begun@3",
    "merge.released@1",
    "loop.handled@3",
    "loop.outbox@4",
    "loop.positions@3",
    "loop.committed@4",
    "publish.sent@1",
    "publish.deleted@1",
)
"""Each within what its part brings for certain: read partition by partition, all of it may be released at once."""
DAYS_EACH = 2
DAYS = DAYS_EACH * len(KILLS)


async def test_killed_at_every_step(
    broker: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "50")
    seed = tmp_path / "seed"
    await facts(broker, seed, baseline=0.87)
    monitor = trial(service, broker, tmp_path, postgres, seed)
    events = [*traffic(range(8), per_day=60), *traffic(range(8, DAYS), per_day=60, season=1.5, skill=-1.5)]
    events.sort(key=lambda event: event.order_us)
    rejected = event_rejected(stream=STREAM)
    failed = run_failed(model=MODEL, run_id="run-9")
    async with Upstream(broker) as upstream:
        for number, failpoint in enumerate(KILLS):
            end_us = day(DAYS_EACH * (number + 1))
            part = [event for event in events if end_us - DAYS_EACH * DAY_US <= event.order_us < end_us]
            await feed(upstream, part, end_us, DAY_US // 4)
            await publish_events(broker, "ingest", [(rejected, {"time": START})] * 5)
            if number == 3:
                await publish_events(broker, "trainer", [(failed, {"time": START})])
                seen = ReplicaSeen(replica="r1", url="http://x", state="ready", epochs={MODEL: 1})
                await publish_events(broker, "serving", [(seen, {"time": START})])
            await monitor.kill(failpoint)
    same(await monitor.settle(answers), "the answers")
    monitor.was_killed_at_every_step()
    told = list((await stories(service, broker)).values())
    assert len(told) == len(monitor.copies)
    same(told, "the events")
    kinds = {one.topic for one in told[0].values()}
    assert kinds == {
        topic_of(payload, "monitor").name
        for payload in (WindowMeasured, DriftDetected, PerformanceDegraded, AlertChanged)
    }


async def answers(client: AsyncClient) -> Any:
    monitor = client.monitor
    rejections = await monitor.rejections(STREAM)
    assert rejections.rejections[0].count == 5 * len(KILLS)
    return [
        await monitor.windows(MODEL, limit=10_000),
        await monitor.performance(MODEL, limit=10_000),
        await monitor.drift(MODEL, limit=10_000),
        await monitor.models(),
        rejections,
    ]
