"""When going on would do harm the runtime stops and says why; what it has committed is published once the broker is back."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.libs.errors import DataLoss, Stop
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.service import Cause, Context, Derived, Reply, Service
from evenkeel.libs.settings import OwnSettings
from evenkeel.libs.store.sql import SqlStore
from tests.integration.test_runtime import TrainerContext, decided, drift, drifts, effects, found, trainer
from tests.running import Producer, eventually, publish_events, read_events, running

pytestmark = pytest.mark.anyio


def idle(name: str) -> Service[Context]:
    """A service that handles nothing: what its topics bring is decoded, and a dead letter if it cannot be."""
    return Service(
        name=name,
        settings=OwnSettings,
        open_store=lambda s: SqlStore(s.database(name), name, ()),
        context=lambda settings, own: Context(),
        handlers=(),
    )


async def test_a_storm_of_unusable_records_stops_consumption_and_fills_no_dead_letter_topic(
    broker: str, tmp_path: Path
) -> None:
    async def letters() -> int:
        return len(await read_events(broker, RecordDeadLettered, "registry.record-dead-lettered.v1"))

    async with running(idle("registry"), broker, tmp_path) as service, Producer(broker) as producer:
        for _ in range(25):
            await producer.send("serving.activation-failed.v1", b"not ours")

        async def all_kept() -> bool:
            return await letters() == 25

        await eventually(all_kept, "25 dead letters, which is 5 % of the last 500")
        await producer.send("serving.activation-failed.v1", b"one too many")

        async def stopped() -> bool:
            return "26 of the last 500" in (service.runtime.not_ready_reason or "")

        await eventually(stopped, "the service to say that it stopped")
    assert await letters() == 25


async def test_records_that_retention_took_are_missed_and_only_an_operator_goes_on_without_them(
    broker: str, tmp_path: Path
) -> None:
    await publish_events(broker, "monitor", drifts("a", 2))
    async with running(trainer(), broker, tmp_path):
        await eventually(lambda: found(broker, "a", 2), "the first two")
    await publish_events(broker, "monitor", drifts("b", 2))
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.delete_records({TopicPartition("monitor.drift-detected.v1", 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    with pytest.raises(DataLoss, match="monitor.drift-detected.v1/0: records 2–2 .*EVENKEEL_ACCEPT_GAP"):
        async with running(trainer(), broker, tmp_path):
            pass
    async with running(trainer(), broker, tmp_path, accept_gap=True) as service:
        await eventually(lambda: found(broker, "b1", 1), "the one that is left")
        assert await effects(service) == {"a0", "a1", "b1"}


async def test_what_is_committed_outlives_a_dead_broker_and_is_published(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    def command(ctx: TrainerContext) -> Reply[None]:
        event = Event(drift(1), "c0", 0, "", 0, 0, {})
        return Reply(None, [Derived(decided(event), Cause("c0", 0, "c0"))])

    async with running(trainer(), kafka.address, tmp_path) as service:
        kafka.kill()
        asked = asyncio.create_task(service.runtime.command(command))

        async def committed() -> bool:
            rows = await service.runtime.query(lambda c: c.execute(sa.text("SELECT count(*) FROM runtime_outbox")))
            return bool(rows.scalar_one() == 1)

        await eventually(committed, "the outbox to hold it")
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    kafka.start()
    async with running(trainer(), kafka.address, tmp_path):
        await eventually(lambda: found(kafka.address, "c", 1), "the decision that nobody had acknowledged")


async def test_a_locked_database_shows_while_there_is_nothing_to_do(broker: str, tmp_path: Path) -> None:
    async with running(idle("feature"), broker, tmp_path) as service:

        async def says_so() -> bool:
            return "locked" in (service.runtime.not_ready_reason or "")

        async def is_ready() -> bool:
            return service.runtime.not_ready_reason is None

        with contextlib.closing(sqlite3.connect(tmp_path / "feature.db", isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            await eventually(says_so, "the service to say that its database is locked")
        await eventually(is_ready, "it to be ready again")


async def test_a_task_that_loses_its_cancellation_does_not_keep_the_service_from_stopping(
    broker: str, tmp_path: Path
) -> None:
    at_work = asyncio.Event()

    async def deaf(runtime: Runtime[Context]) -> None:
        at_work.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    async with asyncio.timeout(60), running(replace(idle("feature"), background=(deaf,)), broker, tmp_path):
        await at_work.wait()


async def test_a_topic_with_another_number_of_partitions_is_refused(broker: str, tmp_path: Path) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker)
    await admin.start()
    await admin.create_partitions({"serving.replica-seen.v1": NewPartitions(2)})
    await admin.close()
    with pytest.raises(Stop, match=r"topic serving.replica-seen.v1 has 2 partitions, the map says 1"):
        async with running(idle("monitor"), broker, tmp_path):
            pass
