"""The consume loop against a real broker: effects, positions and outgoing events commit together."""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.operations import Operations

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.envelope import Event
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.monitor import DriftDetected
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.contracts.trainer import RetrainDecided
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.clock import SystemClock
from evenkeel.libs.errors import Fenced, NotYet, Retry
from evenkeel.libs.service import Batch, Cause, Context, Derived, Each, Handler, Reply, Service
from evenkeel.libs.settings import OwnSettings
from evenkeel.libs.store.sql import SqlStore
from tests.makers import drift_detected, retrain_decided, vector_computed
from tests.running import Producer, Running, eventually, publish_events, read_events, read_topic, running

pytestmark = pytest.mark.anyio

tables = sa.MetaData()
seen = sa.Table("seen", tables, sa.Column("event_id", sa.Text, primary_key=True), sa.Column("n", sa.Integer))


def create(op: Operations) -> None:
    op.create_table("seen", sa.Column("event_id", sa.Text, primary_key=True), sa.Column("n", sa.Integer))


class TrainerContext(Context):
    poison: str | None = None
    declared: str | None = None

    def count(self) -> int:
        return self.tx.connection.execute(sa.select(sa.func.count()).select_from(seen)).scalar_one()


def on_drift(event: Event[DriftDetected], ctx: TrainerContext) -> Iterable[RetrainDecided]:
    if event.data.model not in ("m", ctx.declared):
        raise NotYet(f"model {event.data.model} is not declared")
    if event.id == ctx.poison:
        raise KeyError("a bug")
    ctx.tx.connection.execute(seen.insert(), {"event_id": event.id, "n": event.data.n})
    return [decided(event)]


def decided(event: Event[DriftDetected]) -> RetrainDecided:
    return retrain_decided(model=event.data.model, cause_id=event.id, as_of="2013-01-01T00:00:00Z")


def on_vectors(events: Sequence[Event[VectorComputed]], ctx: TrainerContext) -> Iterable[Derived]:
    ctx.tx.connection.execute(seen.insert(), [{"event_id": event.id, "n": 0} for event in events])
    return ()


def service_with(handler: Handler[TrainerContext], name: str = "trainer") -> Service[TrainerContext]:
    return Service(
        name=name,
        settings=OwnSettings,
        open_store=lambda s: SqlStore(s.database(name), name, (create,)),
        context=lambda settings, own: TrainerContext(),
        handlers=(handler,),
    )


def trainer() -> Service[TrainerContext]:
    return service_with(Each(DriftDetected, on_drift))


async def effects(service: Running) -> set[str]:
    return await service.runtime.query(lambda c: set(c.execute(sa.select(seen.c.event_id)).scalars()))


def drift(n: int) -> DriftDetected:
    return drift_detected(window_start="2013-01-01T00:00:00Z", window_end="2013-01-02T00:00:00Z", n=n)


def drifts(prefix: str, count: int) -> Sequence[tuple[DriftDetected, dict[str, Any]]]:
    """Events whose ids begin with a prefix; another for each test, for a new store reads its topics from the start."""
    return [(drift(n), {"time": "2013-01-02T00:00:00Z", "id": f"{prefix}{n}"}) for n in range(count)]


async def decisions(broker: str, prefix: str) -> list[Event[RetrainDecided]]:
    return [e for e in await read_events(broker, RetrainDecided) if e.data.cause_id.startswith(prefix)]


async def test_each_event_has_one_effect_and_one_consequence_over_a_restart(broker: str, tmp_path: Path) -> None:
    await publish_events(broker, "monitor", drifts("a", 20))
    for _ in range(2):
        async with running(trainer(), broker, tmp_path) as service:

            async def consumed() -> bool:
                return (
                    await service.runtime.query(
                        lambda c: c.execute(sa.select(sa.func.count()).select_from(seen)).scalar_one()
                    )
                    == 20
                )

            await eventually(consumed, "20 effects")
    found = await decisions(broker, "a")
    assert [e.data.cause_id for e in found] == [f"a{n}" for n in range(20)]
    assert len({e.id for e in found}) == 20
    assert all(e.causation_id == e.data.cause_id for e in found)
    sequences = [int(e.attributes["ce_sequence"]) for e in found]
    assert sequences == sorted(set(sequences))


async def test_a_record_that_cannot_be_used_becomes_a_dead_letter_with_its_bytes(broker: str, tmp_path: Path) -> None:
    async with Producer(broker) as producer:
        await producer.send("monitor.drift-detected.v1", b"\xffnot ours", key=b"k", headers=[("x", b"\x00")])
    await publish_events(broker, "monitor", drifts("b", 1))
    async with running(trainer(), broker, tmp_path):
        await eventually(lambda: found(broker, "b", 1), "the good one behind the bad one")
        letters = await read_events(broker, RecordDeadLettered, "trainer.record-dead-lettered.v1")
    assert [(letter.data.value, letter.data.headers) for letter in letters] == [("/25vdCBvdXJz", [("x", "AA==")])]
    assert "ce_id is missing" in letters[0].data.reason


async def found(broker: str, prefix: str, count: int) -> bool:
    """Whether so many decisions stand there. One that the broker took and could not acknowledge any more stands there
    twice, with one id and one sequence: consumers pass over it."""
    return len({event.id for event in await decisions(broker, prefix)}) == count


async def test_a_bug_on_one_event_does_not_stop_the_others(broker: str, tmp_path: Path) -> None:
    await publish_events(broker, "monitor", drifts("c", 5))
    service = trainer()
    TrainerContext.poison = "c2"
    try:
        async with running(service, broker, tmp_path):
            await eventually(lambda: found(broker, "c", 4), "the other four")
            letters = await read_events(broker, RecordDeadLettered, "trainer.record-dead-lettered.v1")
    finally:
        TrainerContext.poison = None
    assert [letter.data.reason for letter in letters if "KeyError" in letter.data.reason] == ["KeyError: 'a bug'"]


async def test_a_repeat_with_a_known_sequence_changes_nothing(broker: str, tmp_path: Path) -> None:
    async with running(trainer(), broker, tmp_path) as service:
        await publish_events(broker, "monitor", drifts("d", 1))
        await eventually(lambda: found(broker, "d", 1), "the first")
        (record,) = [
            r for r in await read_topic(broker, "monitor.drift-detected.v1") if dict(r.headers).get("ce_id") == b"d0"
        ]
        async with Producer(broker) as producer:
            await producer.send(record.topic, record.value, key=record.key, headers=record.headers)
        await publish_events(broker, "monitor", drifts("e", 1))
        await eventually(lambda: found(broker, "e", 1), "what came after the repeat")
        assert service.runtime.metrics.repeated.labels(record.topic)._value.get() == 1
    assert await found(broker, "d", 1)


async def test_consuming_stops_before_the_disk_is_full_and_goes_on_when_there_is_room(
    broker: str, tmp_path: Path
) -> None:
    ballast, size = tmp_path / "ballast", 2**31
    least = shutil.disk_usage(tmp_path).free - size // 2
    async with running(trainer(), broker, tmp_path, min_free_bytes=least) as service:
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)

        async def is_paused() -> bool:
            return (service.runtime.not_ready_reason or "").startswith("disk: ")

        await eventually(is_paused, "the service to say that the disk is nearly full")
        await publish_events(broker, "monitor", drifts("k", 1))
        assert not await found(broker, "k", 1)
        ballast.unlink()
        await eventually(lambda: found(broker, "k", 1), "consuming to go on")


async def test_a_command_publishes_what_it_decides(broker: str, tmp_path: Path) -> None:
    async with running(trainer(), broker, tmp_path) as service:

        def command(ctx: TrainerContext) -> Reply[int]:
            event = Event(drift(1), "f0", 0, "", 0, 0, {})
            return Reply(ctx.count(), [Derived(decided(event), Cause("f0", 0, "f0"))])

        await service.runtime.command(command)
        assert await found(broker, "f", 1)


async def test_sequences_are_counted_for_each_partition(broker: str, tmp_path: Path) -> None:
    """One shard's sequences are spread over the partitions, and each partition is read at its own pace."""
    wanted = {f"g{n}" for n in range(60)}
    vectors = [
        (
            vector_computed(event_id=name),
            {"time": "2013-01-02T00:00:00Z", "id": name},
        )
        for name in sorted(wanted)
    ]
    await publish_events(broker, "feature", vectors)
    assert len({r.partition for r in await read_topic(broker, "feature.vector-computed.v1")}) == 3
    async with running(service_with(Batch(VectorComputed, on_vectors), "serving"), broker, tmp_path) as service:

        async def read() -> bool:
            ends = service.runtime.bus.ends()
            return sum(end for (topic, _), end in ends.items() if topic == "feature.vector-computed.v1") == 60

        await eventually(read, "the ends of the partitions")
        metric = service.runtime.metrics.consumed.labels("feature.vector-computed.v1")

        async def consumed() -> bool:
            return bool(metric._value.get() == 60)

        await eventually(consumed, "60 records")
        assert await effects(service) == wanted


async def test_a_position_that_somebody_else_moved_undoes_the_whole_batch(broker: str, tmp_path: Path) -> None:
    async with running(trainer(), broker, tmp_path) as service:
        await publish_events(broker, "monitor", drifts("h", 1))
        await eventually(lambda: found(broker, "h", 1), "the first")
        other = SqlStore(service.runtime.settings.database("trainer"), "trainer", (create,))
        tp = ("monitor.drift-detected.v1", 0)
        position = other.read_state().positions[tp]
        with other.begin() as tx:
            tx.move_positions({tp: (position, position + 1)})
        other.close()
        await publish_events(broker, "monitor", drifts("i", 2))
        await eventually(lambda: found(broker, "i1", 1), "what nobody else has taken")
        assert "i0" not in await effects(service)
        assert await found(broker, "i", 1)


async def test_a_command_behind_a_lost_lease_is_fenced_and_changes_nothing(broker: str, tmp_path: Path) -> None:
    async with running(trainer(), broker, tmp_path) as service:
        other = SqlStore(service.runtime.settings.database("trainer"), "trainer", (create,))
        hour_us = 3_600_000_000
        assert other.take_lease("another-host-1", SystemClock().now_us(), hour_us, lambda owner: True) is not None

        def command(ctx: TrainerContext) -> Reply[None]:
            ctx.tx.connection.execute(seen.insert(), {"event_id": "j", "n": 0})
            event = Event(drift(1), "j", 0, "", 0, 0, {})
            return Reply(None, [Derived(decided(event), Cause("j", 0, "j"))])

        with pytest.raises(Fenced, match="lease"):
            await service.runtime.command(command)
        assert "j" not in await effects(service)
        other.close()
    assert await found(broker, "j", 0)


async def test_a_record_that_names_what_was_never_said_is_a_dead_letter(broker: str, tmp_path: Path) -> None:
    """Facts come before the records that name them: once the control topics are read to their end, waiting is vain."""
    strange = drift(1).model_copy(update={"model": "never-declared"})
    async with running(trainer(), broker, tmp_path):
        at = {"time": "2013-01-02T00:00:00Z"}
        await publish_events(
            broker, "monitor", [*drifts("n", 1), (strange, at | {"id": "stranger"}), (drift(2), at | {"id": "n-after"})]
        )
        await eventually(lambda: found(broker, "n", 2), "the ones before and after")
        letters = await read_events(broker, RecordDeadLettered, "trainer.record-dead-lettered.v1")
    (letter,) = [one.data for one in letters if "never-declared" in one.data.reason]
    assert letter.reason == "unknown fact: model never-declared is not declared"
    assert b"never-declared" in base64.b64decode(letter.value or "")


async def test_a_fact_may_stand_before_the_one_that_it_names(broker: str, tmp_path: Path) -> None:
    """Whatever the order of the control topics' records in one batch: here a drift that names a later one's model."""

    def on_either(event: Event[DriftDetected], ctx: TrainerContext) -> Iterable[RetrainDecided]:
        if event.id == "p-declares":
            ctx.declared = "named"
        return on_drift(event, ctx)

    named, at = drift(1).model_copy(update={"model": "named"}), {"time": "2013-01-02T00:00:00Z"}
    await publish_events(broker, "monitor", [(named, at | {"id": "p-names"}), (drift(2), at | {"id": "p-declares"})])
    async with running(service_with(Each(DriftDetected, on_either)), broker, tmp_path):
        await eventually(lambda: found(broker, "p", 2), "both")
    letters = await read_events(broker, RecordDeadLettered, "trainer.record-dead-lettered.v1")
    assert not [letter for letter in letters if "named" in letter.data.reason]


async def test_what_is_not_published_yet_counts_as_lag(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the commit of what was read and its publishing nobody may take the service for at rest."""
    may_publish, publish = asyncio.Event(), KafkaBus.publish

    async def held(bus: KafkaBus, records: Sequence[OutgoingRecord]) -> None:
        if any(("ce_causationid", b"lagging-1") in record.headers for record in records):
            await may_publish.wait()
        await publish(bus, records)

    monkeypatch.setattr(KafkaBus, "publish", held)
    written = (drift(1), {"time": "2013-01-02T00:00:00Z", "id": "lagging-1"})
    async with running(trainer(), broker, tmp_path) as service:
        await publish_events(broker, "monitor", [written])
        lag = service.runtime.metrics.lag.labels("monitor.drift-detected.v1")
        await eventually(lambda: at(service.runtime.metrics.outbox, 1), "the decision to be committed")
        assert lag._value.get() >= 1
        may_publish.set()
        await eventually(lambda: at(lag, 0), "it to be published")


async def at(gauge: Any, value: float) -> bool:
    return gauge._value.get() == value


async def test_what_is_kept_while_the_broker_is_away_has_a_limit(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    def said(n: int) -> Derived:
        return Derived(decided(Event(drift(n), f"o{n}", 0, "", 0, 0, {})), Cause(f"o{n}", 0, f"o{n}"))

    async with running(trainer(), kafka.address, tmp_path, max_outbox_bytes=20_000) as service:
        await asyncio.to_thread(kafka.stop)
        kept = 0

        async def fill() -> None:
            nonlocal kept
            while kept < 1_000:
                await service.runtime.record([said(kept)])
                kept += 1

        with pytest.raises(Retry, match="outbox: .*EVENKEEL_MAX_OUTBOX_BYTES"):
            await fill()
        assert 10 < kept < 100
    # It has ended in good order without a broker, and what it had taken is in its store.
    await asyncio.to_thread(kafka.start)
    async with running(trainer(), kafka.address, tmp_path, max_outbox_bytes=20_000) as service:
        await eventually(lambda: found(kafka.address, "o", kept), "everything that was taken")
        await service.runtime.record([said(kept)])
        await eventually(lambda: found(kafka.address, "o", kept + 1), "what is taken again")
    gc.collect()  # the client's abandoned calls complain here, and not while something else is being compiled
