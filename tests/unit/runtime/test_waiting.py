"""Readiness and patience: what is shown while something is waited for, and how long the waits are."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import Gauge

from evenkeel.libs.errors import Retry
from evenkeel.libs.runtime.waiting import MOST_SECONDS, Backoff, Persistence, Readiness, StopSignal
from evenkeel.libs.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio


@pytest.fixture
def gauge() -> Gauge:
    return Gauge("ready", "", registry=None)


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1)
    waits = [backoff.seconds() for _ in range(12)]
    expected = [0.1 * 2**n for n in range(6)] + [MOST_SECONDS] * 6
    for wait, middle in zip(waits, expected, strict=True):
        assert 0.7 * middle <= wait <= 1.3 * middle


def test_a_trouble_shows_when_nobody_else_has_something_to_say(gauge: Gauge) -> None:
    readiness = Readiness(gauge)
    assert readiness.reason == "starting"
    readiness.say(None)
    assert (readiness.reason, gauge._value.get()) == (None, 1)
    readiness.trouble("commit", "broker: it does not answer")
    assert readiness.reason is None
    readiness.say(None)
    assert (readiness.reason, gauge._value.get()) == ("broker: it does not answer", 0)
    readiness.over("commit")
    readiness.say(None)
    assert readiness.reason is None


async def test_infrastructure_is_waited_for_and_named_until_it_is_back(gauge: Gauge) -> None:
    readiness, metrics, left = Readiness(gauge), Metrics("feature"), [1, 2]
    persist = Persistence(StopSignal(), readiness, metrics.retries)

    async def step() -> str:
        if left:
            left.pop()
            raise Retry("it is away")
        return "back"

    assert await persist("store", step) == "back"
    assert readiness.reason == "store: it is away", "whoever waits says so; who goes on says that it is ready"
    readiness.say(None)
    assert readiness.reason is None
    assert metrics.retries.labels("store")._value.get() == 2


async def test_a_wait_ends_when_the_service_stops(gauge: Gauge) -> None:
    stop = StopSignal()
    persist = Persistence(stop, Readiness(gauge), Metrics("feature").retries)

    async def step() -> None:
        stop.set()
        raise Retry("it is away")

    with pytest.raises(asyncio.CancelledError):
        await persist("broker", step)
    assert await stop.within(0.0)
