"""Governance killed at every step: each record one leaf, the same root, and checkpoints that the log keeps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from evenkeel.apps.cli.verify import verify_data_folder
from evenkeel.contracts.governance import CheckpointSigned
from evenkeel.libs.audit.anchor import anchored_notes
from evenkeel.libs.audit.log import Leaves
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import CallRefused
from evenkeel.services.governance.service import service
from tests.integration.test_governance import on_the_topics, publish
from tests.integration.test_runtime import drifts
from tests.kills import Copy, Trial, same, stories, trial, without_wall_clock
from tests.model_life import MODEL, Life
from tests.running import eventually, publish_events, read_events

pytestmark = pytest.mark.anyio

ONE_TOPIC = ("loop.fetched@2", "loop.begun@2", "loop.positions@2", "loop.committed@2", "checkpoint.signed@1")
ALL_TOPICS = ("loop.handled@1", "loop.outbox@1", "publish.sent@1", "publish.deleted@1")


async def test_killed_at_every_step(
    broker: str, tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENKEEL_MAX_BATCH_RECORDS", "20")
    monkeypatch.setenv("EVENKEEL_GOVERNANCE_CHECKPOINT_SECONDS", "0")
    governance = trial(service, broker, tmp_path, postgres)
    for number, failpoint in enumerate(ONE_TOPIC):
        await publish_events(broker, "monitor", drifts(f"d{number}-", 50))
        await governance.kill(failpoint)
    # The records of one partition have one order, so their log has one root.
    roots = await signed(governance, broker, root)
    assert {size for size, _ in roots} == {50 * len(ONE_TOPIC)}
    same(roots, "the root")
    life = Life().tell().records
    each = len(life) // len(ALL_TOPICS)
    for number, failpoint in enumerate(ALL_TOPICS):
        end = None if number == len(ALL_TOPICS) - 1 else each * (number + 1)
        await publish(broker, [*life[each * number : end], life[each * number]])
        await governance.kill(failpoint)
    # Partitions are read as they come: the leaves are the same, their order need not be.
    same(await signed(governance, broker, told), "the leaves and the history")
    governance.was_killed_at_every_step()
    announced = await notes(broker)
    await stories(service, broker)
    for copy in governance.copies:
        report = verify_data_folder(copy.data_dir, database=copy.database_url)
        assert report["ok"], report["problems"]
        assert report["leaves"] == report["signed_leaves"] == await on_the_topics(broker)
        assert report["duplicates"] == len(ALL_TOPICS)
        assert list(anchored_notes(copy.data_dir)) in announced


Ask = Callable[[Any, AsyncClient], Awaitable[Any]]


async def signed(governance: Trial, broker: str, ask: Ask) -> list[Any]:
    """What each copy says once everything on the topics is under a checkpoint."""
    wanted = await on_the_topics(broker)

    async def one(copy: Copy) -> Any:
        async with copy.undisturbed() as (up, client):

            async def is_signed() -> bool:
                try:
                    return (await client.governance.checkpoint()).size == wanted
                except CallRefused:  # nothing is signed yet
                    return False

            await eventually(is_signed, f"a checkpoint over {wanted} records")
            return await ask(up, client)

    return [await one(copy) for copy in governance.copies]


async def root(up: Any, client: AsyncClient) -> tuple[int, str]:
    checkpoint = await client.governance.checkpoint()
    return checkpoint.size, checkpoint.root


async def told(up: Any, client: AsyncClient) -> Any:
    size, _ = await root(up, client)

    def leaves(connection: Any) -> list[bytes]:
        found = Leaves(connection)
        return sorted(found.leaf(number) for number in range(size))

    history = (await client.governance.history(MODEL, limit=1000)).model_dump(mode="json")["steps"]
    steps = sorted(without_wall_clock(history, ["leaf"]), key=str)
    return {"leaves": await up.runtime.query(leaves), "history": steps}


async def notes(broker: str) -> list[list[bytes]]:
    """The checkpoints that each log has announced, in order."""
    found: dict[bytes, dict[str, bytes]] = {}
    for event in await read_events(broker, CheckpointSigned):
        found.setdefault(event.attributes["ce_source"], {})[event.id] = event.data.note.encode()
    return [list(one.values()) for one in found.values()]
