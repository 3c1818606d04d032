"""Monitor against a real broker: a champion's fortnight, from predictions, vectors and late labels to signals and routes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.http.monitor import RejectionCount
from evenkeel.contracts.ingest import LabelAccepted
from evenkeel.contracts.monitor import AlertChanged, DriftDetected, PerformanceDegraded, WindowMeasured
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.serving import PredictionMade, ReplicaSeen
from evenkeel.contracts.topics import BY_NAME, topics_carrying
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.client.errors import CallRefused
from evenkeel.libs.clock import DAY_US, HOUR_US
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.service import Cause, Derived, Output, Watermark
from evenkeel.libs.telemetry.tracing import Tracing
from evenkeel.services.monitor.service import service
from tests.makers import event_rejected
from tests.running import Running, eventually, publish_events, read_events, running, write_token
from tests.unit.monitor.scenes import (
    MODEL,
    START,
    STREAM,
    champion,
    day,
    declared,
    label,
    package,
    prediction,
    run,
    steady_rows,
    traffic,
)

pytestmark = pytest.mark.anyio

DAYS = 16
WATERMARKS: dict[type[Payload], str] = {VectorComputed: MODEL, PredictionMade: MODEL, LabelAccepted: f"{STREAM}#label"}


class Upstream:
    """Ingest, feature and serving, as far as monitor hears of them."""

    def __init__(self, broker: str, store: str = "test", watermarks: Mapping[type[Payload], str] = WATERMARKS) -> None:
        self._bus = KafkaBus(broker, "test-upstream")
        self._store, self._watermarks = store, watermarks
        self._sequences: dict[str, int] = {}
        self._trace = Tracing("test", "test").batch()

    async def __aenter__(self) -> Self:
        await self._bus.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._bus.stop()

    async def send(self, events: Sequence[Event[Any]], watermark_us: int) -> None:
        for payload, stream in self._watermarks.items():
            outputs: list[Output] = [
                Derived(
                    e.data,
                    Cause(e.id, e.time_us, e.id),
                    id=e.id,
                    stream=stream,
                    order_us=e.order_us,
                )
                for e in events
                if type(e.data) is payload
            ]
            outputs.append(Watermark(payload, stream, watermark_us))
            producer = topics_carrying(payload)[0].producer
            builder = OutputBuilder(producer, self._store, self._sequences, 0, self._trace)
            builder.add(outputs, producer)
            records = builder.finish()
            self._sequences |= builder.sequences
            await self._bus.publish(records)


async def facts(broker: str, data_dir: Path, baseline: float = 0.87) -> None:
    """A declared model, its run and its champion."""
    ref = package(data_dir, steady_rows())
    at = {"time": START}
    await publish_events(broker, "registry", [(declared(cooldown="10d"), at)])
    await publish_events(broker, "trainer", [(run(ref, baseline), at)])
    await publish_events(broker, "registry", [(champion(ref), at)])


def stream() -> list[Event[Any]]:
    """Calm until day 8; then a feature moves and the champion gets worse. Day 3's labels come a day and a half late."""
    calm = traffic(range(8), per_day=60)
    worse = traffic(range(8, DAYS), per_day=60, season=1.5, skill=-1.5)
    moved = [
        label(int(e.data.event_id[1:]), e.time_us + 36 * HOUR_US, 1.0 if e.data.fields["late"] == 1.0 else -1.0)
        if isinstance(e.data, LabelAccepted) and e.data.event_id[1:].startswith("3000")
        else e
        for e in calm
    ]
    return sorted([*moved, *worse], key=lambda e: e.order_us)


async def feed(upstream: Upstream, events: Sequence[Event[Any]], until_us: int, step_us: int) -> None:
    """Quarter by quarter, as a gate in front of a replay would."""
    start, end_us = 0, day(0)
    while end_us < until_us:
        end_us += step_us
        end = start
        while end < len(events) and events[end].order_us < end_us:
            end += 1
        await upstream.send(events[start:end], end_us)
        start = end


async def measured_until(broker: str, end_us: int) -> None:
    async def measured() -> bool:
        return any(e.data.window_end == format_us(end_us) for e in await read_events(broker, WindowMeasured))

    await eventually(measured, f"the window to {format_us(end_us)}")


async def test_a_prediction_for_an_unknown_model_is_left_alone(broker: str, tmp_path: Path) -> None:
    """Only declared models are measured; nothing is dead-lettered for one that is not.

    The first of this broker's tests, for the packages of the others are in no folder that a new store knows.
    """
    stranger = prediction(1, day(0.5), 0.5).data.model_copy(update={"model": "stranger"})
    async with running(service, broker, tmp_path) as monitor:
        await publish_events(broker, "serving", [(stranger, {"time": START, "stream": "stranger"})])
        await eventually(monitor.runtime.has_read_all, "the prediction to be read")
    assert await read_events(broker, Payload, "monitor.record-dead-lettered.v1") == []


async def test_a_fortnight_from_topics_to_signals_and_routes(broker: str, tmp_path: Path) -> None:
    await facts(broker, tmp_path)
    events = stream()
    half = next(i for i, e in enumerate(events) if e.order_us >= day(9))
    async with Upstream(broker) as upstream:
        async with running(service, broker, tmp_path):
            await feed(upstream, events[:half], day(9), DAY_US // 4)
            await measured_until(broker, day(9))
        seen = ReplicaSeen(replica="r1", url="http://x", state="ready", epochs={MODEL: 1})
        await publish_events(broker, "serving", [(seen, {"time": START})])
        rejected = event_rejected(stream=STREAM)
        await publish_events(broker, "ingest", [(rejected, {"time": START})])
        await upstream.send([e for e in events[half:] if e.order_us < day(DAYS)], day(DAYS) + 1)
    async with running(service, broker, tmp_path, http=True) as monitor:
        await measured_until(broker, day(DAYS))
        windows = [e.data for e in await read_events(broker, WindowMeasured)]
        assert len(windows) == DAYS + 2
        daily = sorted(
            (w for w in windows if _hours(w) == 24),
            key=lambda w: w.window_end,
        )
        sent = [e for e in events if isinstance(e.data, LabelAccepted) and e.order_us < day(DAYS)]
        assert sum(w.labelled for w in daily) == len(sent)
        assert daily[3].labelled < 30 < daily[4].labelled, "late labels count when they arrive"
        (drift,) = await read_events(broker, DriftDetected)
        assert drift.data.epoch == 1
        assert "season" in {feature.feature for feature in drift.data.features}
        (degraded,) = await read_events(broker, PerformanceDegraded)
        assert degraded.data.metric == "roc_auc"
        assert degraded.data.current < 0.6 < degraded.data.baseline
        assert {(e.data.alert, e.data.state) for e in await read_events(broker, AlertChanged)} == {
            ("drift", "raised"),
            ("decay", "raised"),
        }
        assert await read_events(broker, Payload, "monitor.record-dead-lettered.v1") == []
        await _routes(monitor, tmp_path, drift.id)


def _hours(window: WindowMeasured) -> int:
    start, end = np.datetime64(window.window_start[:-1]), np.datetime64(window.window_end[:-1])
    return int((end - start) / np.timedelta64(1, "h"))


async def _routes(up: Running, data_dir: Path, drift_id: str) -> None:
    operator, scientist = write_token(data_dir, "operator"), write_token(data_dir, "scientist")
    async with up.client(operator) as watching, up.client(scientist) as looking, up.client() as nobody:

        async def known() -> bool:
            try:
                return bool((await watching.monitor.models()).models)
            except CallRefused:
                return False

        await eventually(known, "the token to be known")
        state = await watching.monitor.models()
        (one,) = state.models
        assert one.champion is not None and one.last_window is not None
        assert (one.model, one.champion.epoch, one.last_window.model) == (MODEL, 1, MODEL)
        assert one.open_predictions > 0
        assert {alert.alert: alert.state for alert in one.alerts} == {"drift": "raised", "decay": "raised"}
        assert state.replicas[0].replica == "r1"
        assert len((await looking.monitor.windows(MODEL, window="24h", limit=5)).windows) == 5
        assert len((await looking.monitor.windows(MODEL, window="7d")).windows) == 2
        performance = await looking.monitor.performance(MODEL)
        assert len(performance.series) == DAYS
        quality = performance.series[-1].metrics["roc_auc"]
        assert quality is not None and quality < 0.6
        assert len(performance.degraded) == 1
        drift = await looking.monitor.drift(MODEL)
        effects = {(found.feature, found.statistic): found.effect for found in drift.series[-1].drift}
        assert effects["season", "psi"] > 0.5
        assert [signal.id for signal in drift.signals] == [drift_id]
        counted = await watching.monitor.rejections(STREAM)
        assert counted.rejections == [RejectionCount(day=START[:10], kind="event", rule="type", count=1)]
        for client, call, wanted in (
            (nobody, nobody.monitor.models, 401),
            (looking, looking.monitor.models, 403),
        ):
            with pytest.raises(CallRefused) as refused:
                await call()
            assert refused.value.status == wanted, client
        with pytest.raises(CallRefused) as missing:
            await looking.monitor.windows("none")
        assert missing.value.status == 404
        with pytest.raises(CallRefused) as wrong:
            await looking.monitor.windows(MODEL, window="soon")
        assert (wrong.value.status, wrong.value.field) == (422, "window")


def test_monitor_hears_what_this_test_speaks_of() -> None:
    for payload in WATERMARKS:
        assert "monitor" in BY_NAME[topics_carrying(payload)[0].name].consumers
