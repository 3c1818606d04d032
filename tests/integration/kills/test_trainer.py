"""The trainer killed at every step: each trigger one answer, the job one result, and the package digest for digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import write_deltalake

from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.monitor import DriftDetected
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.topics import topic_of
from evenkeel.contracts.trainer import RetrainDecided, RunCompleted, RunStarted
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.features import compile_plan
from evenkeel.services.trainer.service import service
from tests.kills import Copy, same, stories, trial, without_wall_clock
from tests.makers import champion_changed, dataset_committed, drift_detected
from tests.running import eventually, publish_events, read_events
from tests.tiny_packages import FEATURES, START_US, tiny_table
from tests.unit.trainer.test_job import _arrow

pytestmark = pytest.mark.anyio

KILLS = (
    "loop.fetched@2",
    "loop.begun@2",
    "loop.handled@2",
    "loop.outbox@2",
    "loop.positions@2",
    "loop.committed@2",
    "publish.sent@2",
    "publish.deleted@1",
)
SIGNALS_EACH = 8
MODEL, IDLE = "late", "idle"
STREAM = StreamSpec.model_validate(
    {
        "topic": "scheduled",
        "id": "id",
        "time": "at",
        "fields": {name: {"type": "number"} for name in FEATURES},
        "label": {
            "topic": "landed",
            "id": "id",
            "joins": "id",
            "time": "at",
            "horizon": "24h",
            "fields": {"minutes": {"type": "number"}},
        },
    }
)
SPEC = ModelSpec.model_validate(
    {
        "task": "binary",
        "stream": "flights",
        "label": "minutes > 15",
        "features": [{"fields": list(FEATURES)}],
        "candidates": ["logistic"],
        "retraining": {"first_after": {"rows": 1000, "span": "7d"}, "holdout": "4d", "cooldown": "24h"},
    }
)
PLAN = compile_plan(SPEC, {"flights": STREAM})
AT = format_us(START_US)


def declared(name: str) -> ModelDeclared:
    return ModelDeclared.of(name=name, spec=SPEC, streams={"flights": STREAM}, view_version=PLAN.view_version)


def champion() -> ChampionChanged:
    digest = "0" * 64
    return champion_changed(
        model=IDLE, package=f"sha256:{digest}", package_uri=f"artifacts/sha256/{digest}", view_version=PLAN.view_version
    )


def drift(number: int) -> DriftDetected:
    """Every third one is about an epoch that is over."""
    return drift_detected(
        model=IDLE,
        epoch=2 if number % 3 == 0 else 1,
        window_start=AT,
        window_end=AT,
        effect=0.5,
        significance=0.001,
        n=1000,
        detail="moved",
    )


def dataset() -> DatasetCommitted:
    times = tiny_table().event_time_us
    return dataset_committed(
        model=MODEL,
        uri=f"tables/{MODEL}",
        version=0,
        view_version=PLAN.view_version,
        rows=len(times),
        added=len(times),
        first_event_time=format_us(int(times[0])),
        last_event_time=format_us(int(times[-1])),
        label_cut=format_us(int(times[-1]) + DAY_US),
    )


async def test_killed_at_every_step(
    broker: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "3")
    monkeypatch.setenv("EVENKEEL_TRAINER_STANDBY", "false")
    seed = tmp_path / "seed"
    write_deltalake(seed / "tables" / MODEL, _arrow(tiny_table(), np.arange(1200)))
    trainer = trial(service, broker, tmp_path, postgres, seed)
    await publish_events(broker, "registry", [(declared(name), {"time": AT}) for name in (MODEL, IDLE)])
    await publish_events(broker, "registry", [(champion(), {"time": AT})])
    await trainer.settle()
    for number, failpoint in enumerate(KILLS):
        first = number * SIGNALS_EACH
        signals = [drift(first + n) for n in range(SIGNALS_EACH)]
        await publish_events(broker, "monitor", [(one, {"time": AT}) for one in signals])
        await trainer.kill(failpoint)
    await publish_events(broker, "feature", [(dataset(), {"time": format_us(START_US + 30 * DAY_US)})])
    await trainer.kill("job.started@1")
    await trainer.kill("job.finished@1")
    same([await finished(copy) for copy in trainer.copies], "the answers")
    trainer.was_killed_at_every_step()
    runs = [topic_of(payload, "trainer").name for payload in (RunStarted, RunCompleted)]
    told = list((await stories(service, broker, apart=runs)).values())
    assert len(told) == len(trainer.copies)
    same(told, "the decisions")
    assert len(told[0]) == SIGNALS_EACH * len(KILLS) + 1
    reasons = {one.value["reason"] for one in told[0].values() if one.topic == topic_of(RetrainDecided, "trainer").name}
    assert reasons == {"superseded", "no_dataset", "accepted"}
    await check_runs(broker, len(trainer.copies))


async def finished(copy: Copy) -> Any:
    """What a copy answers once its job is done. How many attempts that took is told, and differs."""
    async with copy.undisturbed() as (up, client):

        async def completed() -> bool:
            found = await read_events(copy.broker, RunCompleted)
            return up.runtime.store_ids[0] in {store_of(event) for event in found}

        await eventually(completed, f"{copy.data_dir.name} to finish its job", 120)
        return await answers(client)


def store_of(event: Any) -> str:
    return str(event.attributes["ce_source"].decode().rsplit("/", 1)[1])


async def answers(client: AsyncClient) -> Any:
    runs = [await client.trainer.runs(model) for model in (MODEL, IDLE)]
    cuts = [await client.trainer.cuts(model) for model in (MODEL, IDLE)]
    assert [run.state for run in runs[0].runs] == ["completed"]
    return without_wall_clock([answer.model_dump(mode="json") for answer in (*runs, *cuts)], ["attempt"])


async def check_runs(broker: str, copies: int) -> None:
    """A job whose process died was started again, under the next attempt; it has one result, the same everywhere."""
    started: dict[str, dict[str, int]] = {}
    for event in await read_events(broker, RunStarted):
        started.setdefault(store_of(event), {})[event.id] = event.data.attempt
    attempts = sorted(tuple(sorted(ids.values())) for ids in started.values())
    assert attempts == [(1,)] + [(1, 2)] * (copies - 1)
    completed = {(store_of(event), event.id): event.data for event in await read_events(broker, RunCompleted)}
    assert len(completed) == copies
    results = [without_wall_clock(data.model_dump()) for data in completed.values()]
    same(results, "the results")
    assert results[0]["package"].startswith("sha256:")
