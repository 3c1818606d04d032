"""Stores that are lost, or restored from an older copy, and made again from the topics while traffic goes on: equal to one
that was never lost, and nothing doubled for whoever listens."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from contracts.envelope import Event, attributes_of, parse_us, sealed_sources
from contracts.feature import VectorComputed, ViewUpdated
from contracts.payload import Payload
from contracts.topics import topics_carrying
from libs.errors import Stop
from libs.features import FeatureState, SlotUpdate
from libs.testing import eventually, read_topic, running
from services.feature.domain import View
from services.feature.service import service as feature
from services.feature.settings import FeatureSettings
from tests.feature_log import Feature
from tests.integration.test_feature import days, write

pytestmark = pytest.mark.anyio

SETTINGS: Final = FeatureSettings(view_flush_ms=20, snapshot_records=60)


async def rebuild(name: str, broker: str, data_dir: Path, expect: int = 0) -> dict[str, Any]:
    """`evenkeel rebuild` as people run it; what it prints."""
    arguments = ["-m", "libs.cli.main", "rebuild", name, "--data-dir", str(data_dir), "--broker", broker, "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == expect, (out, err)
    told: dict[str, Any] = json.loads(out.splitlines()[-1])
    return told


async def heard(broker: str, payload: type[Payload], topic: str | None = None) -> list[Event[Any]]:
    """The events that count for a consumer which knows no more than the envelope: repeats by sequence, and what sealed
    sources say behind their seal, do not."""
    name = topic or topics_carrying(payload)[0].name
    marks: dict[Any, int] = {}
    sealed: set[tuple[str, int]] = set()
    events = []
    for record in await read_topic(broker, name):
        attributes = attributes_of(record.headers)
        source, sequence = attributes["ce_source"].decode(), int(attributes["ce_sequence"])
        key = (source, attributes["ce_shard"], record.partition)
        if (source, record.partition) in sealed or sequence <= marks.get(key, 0):
            continue
        marks[key] = sequence
        if attributes["ce_type"] == b"io.evenkeel.seal":
            sealed |= {(one, record.partition) for one in sealed_sources(record.value)}
        elif attributes["ce_type"] != b"io.evenkeel.watermark":
            event_id, time_us = attributes["ce_id"].decode(), parse_us(attributes["ce_time"].decode())
            data = payload.model_validate_json(record.value)
            events.append(Event(data, event_id, time_us, name, record.partition, record.offset, attributes))
    return events


def dump(path: Path, tables: Iterable[str]) -> dict[str, list[Any]]:
    """The rows of an SQLite store, table by table."""
    with sqlite3.connect(path) as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables}


async def refuses_to_start(service: Any, broker: str, data_dir: Path) -> str:
    with pytest.raises(Stop) as stopped:
        async with running(service, broker, data_dir, accept_new_store=False):
            pass
    return str(stopped.value)


def lose(data_dir: Path, name: str) -> None:
    for path in data_dir.glob(f"{name}.db*"):
        path.unlink()


async def all_read(found: Any, broker: str) -> None:
    """Until the service has read everything that its topics hold now."""
    bus, assigned = found.runtime.bus, found.runtime._assigned
    ends = await bus.end_offsets(assigned)

    async def read() -> bool:
        positions = found.runtime._batch.positions
        return all(positions.get(tp, 0) >= end for tp, end in ends.items()) and not found.runtime._unpublished

    await eventually(read, "all to be read")


def states(data_dir: Path) -> dict[str, Any]:
    """What a feature store holds, whatever its journal and snapshots look like."""
    found = Feature(data_dir)
    try:
        return {
            name: (sorted(view.state.snapshot()), view.watermark_us, view.counts, sorted(view._waiting), view.cut_us)
            for name, view in found.context.views.items()
        }
    finally:
        found.stop()


async def test_feature_comes_back_as_if_never_lost(broker: str, tmp_path: Path) -> None:
    log, parts = days()
    quiet = Feature(tmp_path / "quiet")
    quiet.consume(log.records)
    expected = {model: quiet.vectors(model) for model in ("delay", "load")}
    quiet.stop()
    data_dir = tmp_path / "data"
    await write(broker, parts[0])
    async with running(feature, broker, data_dir, SETTINGS) as found:
        await all_read(found, broker)
    shutil.copytree(data_dir, tmp_path / "older")
    await write(broker, parts[1])
    async with running(feature, broker, data_dir, SETTINGS) as found:
        await all_read(found, broker)

    lose(data_dir, "feature")
    assert "run `evenkeel rebuild feature`" in await refuses_to_start(feature, broker, data_dir)
    before = len(await heard(broker, VectorComputed))
    _, told = await asyncio.gather(write(broker, parts[2]), rebuild("feature", broker, data_dir))
    assert told["rebuilt"]
    async with running(feature, broker, data_dir, SETTINGS, accept_new_store=False) as found:
        await write(broker, parts[3])
        await all_read(found, broker)
    assert len(await heard(broker, VectorComputed)) > before

    lose(data_dir, "feature")
    for path in (tmp_path / "older").glob("feature.db*"):
        shutil.copy(path, data_dir)
    assert "older than what" in await refuses_to_start(feature, broker, data_dir)
    await rebuild("feature", broker, data_dir)
    for part in parts[4:]:
        await write(broker, part)
    async with running(feature, broker, data_dir, SETTINGS, accept_new_store=False) as found:
        await all_read(found, broker)

        async def announced() -> bool:
            return not await found.runtime.query(
                lambda c: __import__("services.feature.store").feature.store.FeatureStore(c).staged()
            )

        await eventually(announced, "the training tables")
        views = dict(found.runtime.context.views)

    vectors = await heard(broker, VectorComputed)
    for model, wanted in expected.items():
        mine = [e for e in vectors if e.data.model == model]
        assert Counter(e.data.event_id for e in mine) == Counter(wanted.keys())
        assert {e.data.event_id: e.data.values for e in mine} == wanted
    assert states(data_dir) == states(tmp_path / "quiet")
    updates = await heard(broker, ViewUpdated)
    for model in expected:
        online = FeatureState(views[model].plan, journal=False)
        newest = {e.data.slot: SlotUpdate(e.data.slot, e.data.tile) for e in updates if e.data.view == model}
        for update in newest.values():
            online.apply(update)
        assert _tiles(online, views[model]) == _tiles(views[model].state, views[model])


def _tiles(state: FeatureState, view: View) -> dict[str, Any]:
    """Every slot that a window can still read."""
    state.change_all()
    return {update.slot: update.tile for update in state.take_changes(view.watermark_us)}
