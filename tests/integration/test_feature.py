"""Feature against a real broker, killed at every step: vectors, view and training table as if nothing had happened."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from deltalake import DeltaTable

from contracts.envelope import format_us
from contracts.feature import DatasetCommitted, VectorComputed, ViewUpdated
from libs.bus.kafka import KafkaBus
from libs.bus.protocol import OutgoingRecord
from libs.features import FeatureState, SlotUpdate
from libs.testing import eventually, read_events, read_topic, running, write_token
from services.feature.domain import View
from services.feature.service import service
from services.feature.settings import FeatureSettings
from tests.feature_log import MINUTE_US, START_US, Feature, Log, LogRecord

pytestmark = pytest.mark.anyio

FLIGHTS = 400
EVERY_US = 18 * MINUTE_US
END_US = START_US + FLIGHTS * EVERY_US
KILLS = (
    "loop.handled=kill@3",
    "dataset.staged=kill@1",
    "loop.committed=kill@3",
    "dataset.committed=kill@1",
    "publish.sent=kill@3",
)


def days() -> tuple[Log, list[list[LogRecord]]]:
    """Five days with windows full at the end; the log, and the same cut into a day for each kill and what is left."""
    log, cuts = Log(), [0]
    log.declare(["flights", "weather", "sales"], ["delay", "load", "returned"])
    for number in range(FLIGHTS):
        time_us = START_US + number * EVERY_US
        fields = {"origin": "AB"[number % 2], "carrier": "xyz"[number % 3], "load": number / 7}
        watermark_us = time_us - EVERY_US
        log.event("flights", f"f{number}", time_us - (number % 4) * MINUTE_US, fields, watermark_us=watermark_us)
        if number % 5 == 0:
            log.event("weather", f"w{number}", time_us, {"origin": "A", "wind": number % 11}, watermark_us=time_us)
        if number >= 10:
            label = {"origin": "AB"[number % 2], "carrier": "xyz"[number % 3], "delay": number % 40 - 5.5}
            log.label("flights", f"f{number - 10}", time_us, label, watermark_us=time_us)
        if number % 20 == 19:
            log.close(watermark_us)
        if number % (FLIGHTS // len(KILLS)) == 70:
            cuts.append(len(log.records))
    log.close(END_US)
    return log, [log.records[first:end] for first, end in pairwise([*cuts, len(log.records)])]


async def write(broker: str, records: Sequence[LogRecord]) -> None:
    bus = KafkaBus(broker, "log")
    await bus.start()
    await bus.publish([OutgoingRecord(r.topic, r.partition, r.key, r.value, r.headers) for r in records])
    await bus.stop()


async def killed(broker: str, data_dir: Path, failpoint: str) -> None:
    """Run the service's process until it dies at the failpoint."""
    environment = {
        **os.environ,
        "EVENKEEL_BROKER": broker,
        "EVENKEEL_DATA_DIR": str(data_dir),
        "EVENKEEL_PORT": "0",
        "EVENKEEL_MAX_BATCH_RECORDS": "20",
        "EVENKEEL_FAILPOINTS": failpoint,
        "EVENKEEL_FEATURE_SNAPSHOT_RECORDS": "60",
        "EVENKEEL_FEATURE_VIEW_FLUSH_MS": "20",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "services", "feature", env=environment)
    try:
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_killed_at_every_step_it_publishes_and_stores_what_one_quiet_run_does(
    broker: str, tmp_path: Path
) -> None:
    log, parts = days()
    quiet = Feature(tmp_path / "quiet")
    quiet.consume(log.records)
    expected = {model: quiet.vectors(model) for model in ("delay", "load")}
    rows = {model: quiet.staged_rows(model) for model in expected}
    data_dir = tmp_path / "data"
    for failpoint, part in zip(KILLS, parts, strict=False):
        await write(broker, part)
        await killed(broker, data_dir, failpoint)
    await write(broker, parts[-1])
    own = FeatureSettings(view_flush_ms=20, snapshot_records=60)
    token = write_token(data_dir, "scientist")
    async with running(service, broker, data_dir, own, http=True) as found:

        async def consumed() -> bool:
            return all(view.watermark_us == END_US for view in found.runtime.context.views.values())

        async def announced() -> bool:
            events = {event.id for event in await read_events(broker, DatasetCommitted)}
            return len(events) == sum(map(len, rows.values()))

        await eventually(consumed, "the end of the log")
        await eventually(announced, "the last dataset")
        for model in expected:
            view, undisturbed = found.runtime.context.views[model], quiet.context.views[model]
            state = windows(undisturbed)
            assert any(state.values())
            assert windows(view) == state
            await eventually(partial(published, broker, view, state), f"the view of {model} to be published")
        await check_api(found.url, token, expected, rows)
    await check_vectors(broker, expected)
    await check_datasets(broker, data_dir, quiet, expected, rows)
    quiet.stop()


def windows(view: View, state: FeatureState | None = None) -> dict[str, bytes]:
    """Entity → the tiles that a vector can still read at the end. When expired ones go is no promise."""
    copy = FeatureState(view.plan, journal=False)
    copy.restore((state or view.state).snapshot())
    copy.evict(END_US)
    return dict(copy.snapshot())


async def published(broker: str, view: View, expected: dict[str, bytes]) -> bool:
    """Whether the compacted topic gives the same state to whoever reads it."""
    copy = FeatureState(view.plan, journal=False)
    for slot, data in {
        e.data.slot: e.data for e in await read_events(broker, ViewUpdated) if e.data.view == view.model
    }.items():
        assert data.view_version == view.plan.view_version
        copy.apply(SlotUpdate(slot, data.tile))
    return windows(view, copy) == expected


async def check_vectors(broker: str, expected: dict[str, dict[str, Any]]) -> None:
    by_id: dict[bytes, set[tuple[int, bytes, bytes]]] = {}
    for record in await read_topic(broker, "feature.vector-computed.v1"):
        headers = dict(record.headers)
        if record.value is not None:
            seen = by_id.setdefault(headers["ce_id"], set())
            seen.add((record.partition, headers["ce_sequence"], record.value))
    # A kill between publishing and forgetting repeats records, under the same id and sequence, on the same partition.
    assert {len(copies) for copies in by_id.values()} == {1}
    found: dict[str, dict[str, Any]] = {model: {} for model in expected}
    for event in await read_events(broker, VectorComputed):
        found[event.data.model][event.data.event_id] = event.data.values
    assert found == expected
    assert len(by_id) == sum(len(vectors) for vectors in expected.values())


async def check_datasets(
    broker: str, data_dir: Path, quiet: Feature, expected: dict[str, dict[str, Any]], rows: dict[str, Any]
) -> None:
    announced = {event.id: event.data for event in await read_events(broker, DatasetCommitted)}
    for model, commits in rows.items():
        mine = sorted((one for one in announced.values() if one.model == model), key=lambda one: one.version)
        assert [one.label_cut for one in mine] == [format_us(cut) for cut, _ in commits]
        assert [one.added for one in mine] == [len(commit) for _, commit in commits]
        assert [one.rows for one in mine] == [sum(len(c) for _, c in commits[: n + 1]) for n in range(len(commits))]
        names = quiet.context.views[model].plan.names
        for one in mine:
            table = DeltaTable(data_dir / one.uri, version=one.version).to_pyarrow_table()
            assert len(table) == one.rows
        found = {row["event_id"]: [row[name] for name in names] for row in table.to_pylist()}
        assert len(found) == len(table)
        assert found == {row.event_id: expected[model][row.event_id] for _, commit in commits for row in commit}


async def check_api(url: str, token: str, expected: dict[str, dict[str, Any]], rows: dict[str, Any]) -> None:
    async with httpx2.AsyncClient(base_url=url) as client:
        assert (await client.get("/v1/views/delay")).status_code == 401
        client.headers["Authorization"] = f"Bearer {token}"
        view = (await client.get("/v1/views/delay")).json()
        assert view["names"][0] == "load"
        assert view["vectors"] == len(expected["delay"])
        assert view["labelled"] == sum(len(commit) for _, commit in rows["delay"])
        found = (await client.get("/v1/datasets/delay")).json()
        assert found["uri"] == "tables/delay"
        assert [one["added"] for one in reversed(found["versions"])] == [len(commit) for _, commit in rows["delay"]]
        assert len((await client.get("/v1/datasets/delay?limit=1")).json()["versions"]) == 1
        missing = await client.get("/v1/views/unknown")
        assert (missing.status_code, missing.json()["field"]) == (404, "model")
