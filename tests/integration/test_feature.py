"""Feature against a real broker, killed at every step: vectors, view and training table as if nothing had happened.

On SQLite and on PostgreSQL (tests.kills); the run that is not disturbed is one without a broker.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.feature import DatasetCommitted, VectorComputed, ViewUpdated
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import CallRefused
from evenkeel.libs.features import FeatureState, SlotUpdate
from evenkeel.services.feature.domain.view import View
from evenkeel.services.feature.service import service
from tests.feature_log import DAY_US, MINUTE_US, START_US, Feature, Log
from tests.kills import Copy, same, stories, trial
from tests.records import ReadRecord
from tests.running import eventually, read_events

pytestmark = pytest.mark.anyio

KILLS = (
    "loop.handled@3",
    "loop.fetched@4",
    "dataset.staged@1",
    "merge.released@2",
    "dataset.left@1",
    "loop.committed@3",
    "dataset.committed@1",
    "loop.begun@3",
    "loop.outbox@3",
    "publish.sent@1",
    "loop.positions@4",
    "publish.deleted@1",
)
"""Each within what its part brings for certain: read partition by partition, its two groups may be released once each, at
the end and in one transaction."""
FLIGHTS = 480
FLIGHTS_EACH = FLIGHTS // len(KILLS)
EVERY_US = 18 * MINUTE_US
END_US = START_US + FLIGHTS * EVERY_US


def days() -> tuple[Log, list[list[ReadRecord]]]:
    """Six days with windows full at the end; the log, and the same cut into half a day for each kill and what is left."""
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
        if number % FLIGHTS_EACH == 35:
            cuts.append(len(log.records))
    log.close(END_US)
    return log, [log.records[first:end] for first, end in pairwise([*cuts, len(log.records)])]


async def write(broker: str, records: Sequence[ReadRecord]) -> None:
    bus = KafkaBus(broker, "log")
    await bus.start()
    await bus.publish([OutgoingRecord(r.topic, r.partition, r.key, r.value, r.headers) for r in records])
    await bus.stop()


async def test_killed_at_every_step_it_publishes_and_stores_what_one_quiet_run_does(
    broker: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "20")
    monkeypatch.setenv("EVENKEEL_FEATURE_SNAPSHOT_RECORDS", "60")
    monkeypatch.setenv("EVENKEEL_FEATURE_VIEW_FLUSH_MS", "20")
    monkeypatch.setenv("EVENKEEL_FEATURE_COMPACT_COMMITS", "2")
    monkeypatch.setenv("EVENKEEL_FEATURE_TABLE_DAYS", "1")
    log, parts = days()
    quiet = Feature(tmp_path / "quiet")
    quiet.consume(log.records)
    expected = {model: quiet.vectors(model) for model in ("delay", "load")}
    rows = {model: quiet.staged_rows(model) for model in expected}
    feature = trial(service, broker, tmp_path, postgres)
    for failpoint, part in zip(KILLS, parts, strict=False):
        await write(broker, part)
        await feature.kill(failpoint)
    await write(broker, parts[-1])
    feature.was_killed_at_every_step()
    await asyncio.gather(*(check(copy, quiet, expected, rows) for copy in feature.killed))
    told = list((await stories(service, broker, apart=["feature.view-updated.v1"])).values())
    assert len(told) == len(feature.killed)
    same(told, "the events")
    quiet.close()


async def check(copy: Copy, quiet: Feature, expected: dict[str, dict[str, Any]], rows: dict[str, Any]) -> None:
    async with copy.undisturbed() as (up, client):
        events = Told(copy.broker, up.runtime.store_ids[0])

        async def consumed() -> bool:
            return all(view.watermark_us == END_US for view in up.runtime.context.views.values())

        async def announced() -> bool:
            ids = {event.id for event in await events.of(DatasetCommitted)}
            return len(ids) == sum(map(len, rows.values()))

        await eventually(consumed, "the end of the log", 60)
        await eventually(announced, "the last dataset", 60)
        for model in expected:
            view, undisturbed = up.runtime.context.views[model], quiet.context.views[model]
            state = windows(undisturbed)
            assert any(state.values())
            assert windows(view) == state
            await eventually(partial(published, events, view, state), f"the view of {model} to be published", 60)
        await check_api(client, expected, rows)
    found: dict[str, dict[str, Any]] = {model: {} for model in expected}
    for event in await events.of(VectorComputed):
        found[event.data.model][event.data.event_id] = event.data.values
    assert found == expected
    await check_datasets(events, copy.data_dir, quiet, expected, rows)


@dataclass(frozen=True)
class Told:
    """What one copy has published; without a store, what all have."""

    broker: str
    store: str | None = None

    async def of(self, payload: type[Any]) -> list[Event[Any]]:
        if self.store is None:
            return await read_events(self.broker, payload)
        source = f"/evenkeel/feature/{self.store}".encode()
        return [event for event in await read_events(self.broker, payload) if event.attributes["ce_source"] == source]


def windows(view: View, state: FeatureState | None = None) -> dict[str, bytes]:
    """Entity → the tiles that a vector can still read at the end. When expired ones go is no promise."""
    copy = FeatureState(view.plan, journal=False)
    copy.restore((state or view.state).snapshot())
    copy.evict(END_US)
    return dict(copy.snapshot())


async def published(events: Told, view: View, expected: dict[str, bytes]) -> bool:
    """Whether the compacted topic gives the same state to whoever reads it."""
    copy = FeatureState(view.plan, journal=False)
    for slot, data in {e.data.slot: e.data for e in await events.of(ViewUpdated) if e.data.view == view.model}.items():
        assert data.view_version == view.plan.view_version
        copy.apply(SlotUpdate(slot, data.tile))
    return windows(view, copy) == expected


async def check_datasets(
    events: Told, data_dir: Path, quiet: Feature, expected: dict[str, dict[str, Any]], rows: dict[str, Any]
) -> None:
    announced = {event.id: event.data for event in await events.of(DatasetCommitted)}
    for model, commits in rows.items():
        mine = sorted((one for one in announced.values() if one.model == model), key=lambda one: one.version)
        assert [one.label_cut for one in mine] == [format_us(cut) for cut, _ in commits]
        assert [one.added for one in mine] == [len(commit) for _, commit in commits]
        kept = [kept_rows(commits[: n + 1]) for n in range(len(commits))]
        assert [one.rows for one in mine] == [len(rows) for rows in kept]
        names = quiet.context.views[model].plan.names
        for one in mine:
            table = DeltaTable(data_dir / one.uri, version=one.version).to_pyarrow_table()
            assert len(table) == one.rows
        found = {row["event_id"]: [row[name] for name in names] for row in table.to_pylist()}
        assert len(found) == len(table)
        assert found == {row.event_id: expected[model][row.event_id] for row in kept[-1]}
        assert len(kept[-1]) < sum(one.added for one in mine)


def kept_rows(commits: Sequence[tuple[int, Sequence[Any]]]) -> list[Any]:
    """What a table has after these commits, if with every second one all leave that were cut a day before or earlier."""
    last_tidied = commits[len(commits) // 2 * 2 - 1][0] if len(commits) > 1 else 0
    return [row for cut, commit in commits if cut > last_tidied - DAY_US for row in commit]


async def check_api(client: AsyncClient, expected: dict[str, dict[str, Any]], rows: dict[str, Any]) -> None:
    async with AsyncClient(client.urls, token="nobody") as nobody:
        with pytest.raises(CallRefused) as stranger:
            await nobody.feature.view("delay")
    assert stranger.value.status == 401
    view = await client.feature.view("delay")
    assert view.names[0] == "load"
    assert view.vectors == len(expected["delay"])
    assert view.labelled == sum(len(commit) for _, commit in rows["delay"])
    found = await client.feature.datasets("delay")
    assert found.uri == "tables/delay"
    assert [one.added for one in reversed(found.versions)] == [len(commit) for _, commit in rows["delay"]]
    assert len((await client.feature.datasets("delay", limit=1)).versions) == 1
    assert re.search(
        r'^evenkeel_training_table_bytes{model="delay",service="feature"} [1-9]',
        await client.feature.metrics(),
        re.MULTILINE,
    )
    with pytest.raises(CallRefused) as missing:
        await client.feature.view("unknown")
    assert (missing.value.status, missing.value.field) == (404, "model")
