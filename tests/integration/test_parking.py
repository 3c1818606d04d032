"""A merge parks the key of what its handler cannot take, keeps the order behind it, and folds it all when released; and it
holds no more than it may."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from alembic.operations import Operations
from typer.testing import CliRunner

from evenkeel.apps.cli.main import app
from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import CallRefused
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.runtime.outputs import OutputBuilder
from evenkeel.libs.service import Cause, Context, Derived, Merge, Output, Released, Service, Watermark
from evenkeel.libs.settings import OwnSettings
from evenkeel.libs.store.sql import SqlStore
from evenkeel.libs.telemetry.tracing import Tracing
from tests.makers import event_accepted, label_accepted, vector_computed
from tests.running import Running, eventually, read_events, running, write_token

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("quiet")]

tables = sa.MetaData()
folded = sa.Table(
    "folded",
    tables,
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("event_id", sa.Text),
    sa.Column("order_us", sa.BigInteger),
)
INPUTS = ((EventAccepted, "orders"), (LabelAccepted, "orders"))


class OrderContext(Context):
    broken: frozenset[str] = frozenset()
    unasked: frozenset[str] = frozenset()

    def require(self, event: Event[Any]) -> None:
        if event.id in OrderContext.unasked:
            raise ValueError(event.id)

    def merge_groups(self) -> Iterable[frozenset[tuple[type[Payload], str]]]:
        return (frozenset(INPUTS),)


def on_released(released: Released, ctx: OrderContext) -> list[Output]:
    outputs: list[Output] = []
    for event in released.events:
        if event.id in OrderContext.broken:
            raise KeyError(event.id)
        ctx.tx.connection.execute(folded.insert(), {"event_id": event.id, "order_us": event.order_us})
        payload = vector_computed(stream="orders", event_id=event.data.event_id, view_version="5" * 64, values=[])
        outputs.append(Derived(payload, event, order_us=event.order_us))
    return outputs


def create(op: Operations) -> None:
    tables.create_all(op.get_bind())


def service() -> Service[OrderContext]:
    return Service(
        name="feature",
        settings=OwnSettings,
        open_store=lambda s: SqlStore(s.database("feature"), "feature", (create,)),
        context=lambda settings, own: OrderContext(),
        handlers=(Merge((EventAccepted, LabelAccepted), on_released),),
    )


@pytest.fixture
def quiet() -> Iterator[None]:
    """Failing handlers log their tracebacks."""
    with structlog.testing.capture_logs():
        yield


def event(order: str, at: int) -> tuple[Payload, str, int]:
    return event_accepted(stream="orders", event_id=order), f"{order}@{at}", at


def label(order: str, at: int) -> tuple[Payload, str, int]:
    made = label_accepted(stream="orders", event_id=order)
    return made, f"label-{order}@{at}", at


async def write(
    broker: str,
    said: Sequence[tuple[Payload, str, int]],
    watermark: int,
    silent: Collection[type[Payload]] = (),
) -> None:
    """As ingest: the events, and then on every partition that nothing before `watermark` (seconds) follows."""
    start = time.time_ns()
    builder = OutputBuilder("ingest", f"test{start}", {}, start // 1000, Tracing("ingest", "test").batch())
    outputs: list[Output] = [
        Derived(payload, Cause(f"raw-{name}", at * SECOND_US, name), id=name, stream="orders")
        for payload, name, at in said
    ]
    marks = [Watermark(payload, name, watermark * SECOND_US) for payload, name in INPUTS if payload not in silent]
    builder.add([*outputs, *marks], "orders")
    bus = KafkaBus(broker, "test-ingest")
    await bus.start()
    await bus.publish(builder.finish())
    await bus.stop()


async def folds(running_service: Running) -> list[str]:
    return await running_service.runtime.query(
        lambda c: list(c.execute(sa.select(folded.c.event_id).order_by(folded.c.number)).scalars())
    )


async def until_folded(running_service: Running, *ids: str) -> None:
    async def are() -> bool:
        return await folds(running_service) == list(ids)

    await eventually(are, f"{ids} to be folded")


async def parked(client: AsyncClient) -> list[tuple[str, list[str]]]:
    shown = (await client.feature.parked()).parked
    return [(queue.key, [record.event_id for record in queue.records]) for queue in shown]


async def evenkeel(running_service: Running, data_dir: Path, *command: str) -> list[dict[str, Any]]:
    """What the command says, as a person with an operator's token would call it."""
    where = ("--service", "feature", "--url", running_service.url, "--data-dir", str(data_dir), "--json")
    result = await asyncio.to_thread(CliRunner().invoke, app, ["parked", *command, *where])
    return [json.loads(line) for line in result.stdout.splitlines()]


async def test_a_key_is_parked_in_order_and_released_in_order(broker: str, tmp_path: Path) -> None:
    token = write_token(tmp_path, "operator")
    (tmp_path / "keys" / "token").write_text(token)
    OrderContext.broken = frozenset({"b@2"})
    try:
        async with (
            running(service(), broker, tmp_path, http=True) as feature,
            feature.client(token) as client,
        ):
            await write(broker, [event("a", 1), event("b", 2), event("c", 3), label("b", 4), event("a", 5)], 10)
            await until_folded(feature, "a@1", "c@3", "a@5")
            assert await parked(client) == [("b", ["b@2", "label-b@4"])]
            (queue,) = (await client.feature.parked()).parked
            assert queue.reason == "KeyError: 'b@2'"
            await write(broker, [label("b", 11), event("d", 12)], 20)
            await until_folded(feature, "a@1", "c@3", "a@5", "d@12")
        async with (
            running(service(), broker, tmp_path, http=True) as feature,
            feature.client(token) as client,
        ):
            everything = [("b", ["b@2", "label-b@4", "label-b@11"])]
            assert await parked(client) == everything
            with pytest.raises(CallRefused, match="KeyError: 'b@2'") as refused:
                await client.feature.release("b")
            assert refused.value.status == 409
            assert await parked(client) == everything
            with pytest.raises(CallRefused) as unknown:
                await client.feature.release("x")
            assert (unknown.value.status, unknown.value.fix) == (404, "Parked keys: b.")
            OrderContext.broken = frozenset()
            (listed,) = await evenkeel(feature, tmp_path, "list")
            assert (listed["service"], listed["key"], len(listed["records"])) == ("feature", "b", 3)
            assert await evenkeel(feature, tmp_path, "release", "b") == [
                {"service": "feature", "key": "b", "released": 3}
            ]
            assert await parked(client) == []
            assert "nothing is parked under b" in (await evenkeel(feature, tmp_path, "release", "b"))[0]["error"]
            await write(broker, [label("b", 21)], 30)
            behind = ("b@2", "label-b@4", "label-b@11")
            await until_folded(feature, "a@1", "c@3", "a@5", "d@12", *behind, "label-b@21")
    finally:
        OrderContext.broken = frozenset()
    assert await read_events(broker, RecordDeadLettered, "feature.record-dead-lettered.v1") == []
    vectors = {v.causation_id: v for v in await read_events(broker, VectorComputed)}
    assert len(vectors) == 8
    for late in behind:  # behind the watermark that was announced when the key was released
        assert vectors[late].attribute("ordertime") == format_us(20 * SECOND_US)
    async with running(service(), broker, tmp_path) as feature:
        assert (await folds(feature))[-4:] == [*behind, "label-b@21"]


async def test_a_handler_that_fails_on_everything_stops_consumption(broker: str, tmp_path: Path) -> None:
    many = [event(f"s{n}", 100 + n) for n in range(40)]
    OrderContext.broken = frozenset(name for _, name, _ in many)
    try:
        async with running(service(), broker, tmp_path) as feature:
            await write(broker, many, 200)

            async def stopped() -> bool:
                return "bad deploy" in (feature.runtime.not_ready_reason or "")

            await eventually(stopped, "the storm to be noticed")
            assert await feature.runtime.parked() == []
    finally:
        OrderContext.broken = frozenset()


async def test_an_event_that_cannot_be_asked_for_its_facts_becomes_a_dead_letter(
    broker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OrderContext, "unasked", frozenset({"u2@2"}))
    known = len(await read_events(broker, RecordDeadLettered, "feature.record-dead-lettered.v1"))
    async with running(service(), broker, tmp_path) as up:
        await write(broker, [event("u1", 1001), event("u2", 2), event("u3", 1003)], 1010)

        async def last() -> bool:
            return "u3@1003" in await folds(up)

        await eventually(last, "the event behind it to be folded")
        assert {"u1@1001", "u2@2", "u3@1003"} - set(await folds(up)) == {"u2@2"}
    letters = (await read_events(broker, RecordDeadLettered, "feature.record-dead-lettered.v1"))[known:]
    assert [letter.data.reason for letter in letters] == ["ValueError: u2@2"]


async def test_a_full_merge_reads_only_what_it_waits_for(broker: str, tmp_path: Path) -> None:
    limits = {"max_pending_records": 50, "max_batch_records": 20}
    start, after = 10_000, 10_400
    orders = [f"w{number}@{number}" for number in range(start, after)]
    async with running(service(), broker, tmp_path, **limits) as up:
        await write(broker, [], start)
        for first in range(start, after, 100):
            some = [event(f"w{number}", number) for number in range(first, first + 100)]
            await write(broker, some, first + 100, silent={LabelAccepted})

        async def is_waiting() -> bool:
            return up.runtime.metrics.lag.labels("ingest.event-accepted.v1")._value.get() > 200

        await eventually(is_waiting, "reading to wait")
        for _ in range(3):  # whatever else is read, no more is held than came before the first watermark
            await write(broker, [label("x", start)], start + 1, silent={EventAccepted})
            assert up.runtime.metrics.pending._value.get() < 200
        await write(broker, [], after, silent={EventAccepted})

        async def whole() -> bool:
            return [one for one in await folds(up) if one.startswith("w")] == orders

        await eventually(whole, "all of it to be folded, in order")
