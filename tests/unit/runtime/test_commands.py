"""Commands and the writer thread: when they are taken, what a failure leaves, and who is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.errors import Fenced, Refused, Retry
from evenkeel.libs.runtime.attempt import Attempt
from evenkeel.libs.runtime.commands import Commands
from evenkeel.libs.runtime.publishing import Publisher
from evenkeel.libs.runtime.waiting import Persistence, Readiness, StopSignal
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.service import Reply
from tests.harness import Harness
from tests.unit.runtime.orders import STREAMS, OrderContext, Orders, kept, orders_service

pytestmark = pytest.mark.anyio
LIMIT_BYTES = 1_000


@dataclass
class Side:
    """The event loop's side over a harness' transactions. Nothing is said, so its broker is never spoken to."""

    harness: Harness[OrderContext]
    writer: Writer[OrderContext]
    publisher: Publisher
    commands: Commands[OrderContext]
    stop: StopSignal


@pytest.fixture
def side(tmp_path: Path) -> Iterator[Side]:
    harness = Harness(orders_service("sqlite", set()), tmp_path)
    stop, metrics = StopSignal(), harness.metrics
    persist = Persistence(stop, Readiness(metrics.ready), metrics.retries)
    bus = KafkaBus("127.0.0.1:1", "never-started")
    publisher = Publisher(bus, metrics, LIMIT_BYTES, persist, harness.acknowledged)
    writer = Writer(harness.transactions, publisher.add, metrics, persist)
    yield Side(harness, writer, publisher, Commands(writer, publisher, stop), stop)
    writer.close()
    harness.close()


def keep(what: str) -> Any:
    return lambda ctx: Reply(ctx.keep(what))


async def test_there_are_no_commands_before_the_store_is_loaded_or_while_it_is_rebuilt(side: Side) -> None:
    for phase, reason in (("starting", "is starting"), ("rebuilding", "is being rebuilt")):
        side.commands.phase = phase  # type: ignore[assignment]
        with pytest.raises(Retry, match=reason):
            await side.commands.command(keep("x"), "http")
    side.commands.phase = "open"
    await side.commands.command(keep("y"), "http")
    assert side.harness.query(kept) == ["y"]


async def test_a_command_that_fails_leaves_nothing_and_the_next_one_sees_nothing_of_it(side: Side) -> None:
    side.commands.phase = "open"

    def fail(ctx: OrderContext) -> Reply[None]:
        ctx.keep("x")
        raise KeyError

    with pytest.raises(KeyError):
        await side.commands.command(fail, "http")
    assert await side.commands.command(lambda ctx: Reply(list(ctx.folded)), "http") == []
    assert side.harness.query(kept) == []


async def test_whoever_lost_the_lease_takes_no_more_commands(side: Side) -> None:
    side.commands.phase = "open"
    side.harness.clock.us += 7 * SECOND_US
    store, now_us = side.harness.store, side.harness.clock.us
    assert store.take_lease("another-host-1", now_us, 3600 * SECOND_US, lambda owner: False) is not None
    with pytest.raises(Fenced):
        await side.commands.command(keep("x"), "http")
    assert side.stop.is_set


async def test_a_refusal_reaches_its_caller_and_nothing_stops(side: Side) -> None:
    side.commands.phase = "open"

    def refuse(ctx: OrderContext) -> Reply[None]:
        raise Refused(409, "No", "not now")

    with pytest.raises(Refused, match="not now"):
        await side.commands.command(refuse, "http")
    assert not side.stop.is_set


async def test_while_too_much_waits_for_the_broker_nothing_more_is_taken(side: Side) -> None:
    side.commands.phase = "open"
    side.publisher.add(1, LIMIT_BYTES + 1, [])
    with pytest.raises(Retry, match="EVENKEEL_MAX_OUTBOX_BYTES"):
        await side.commands.command(keep("x"), "http")
    with pytest.raises(Retry, match="EVENKEEL_MAX_OUTBOX_BYTES"):
        await side.commands.record([])


async def test_the_loop_knows_of_positions_what_is_committed(side: Side) -> None:
    topics = Orders()
    await side.writer.consume(Attempt(topics.declare()))
    assert side.writer.positions == {(STREAMS, 0): 1}
    side.harness.context.broken.add("bad")
    with pytest.raises(KeyError):
        await side.writer.consume(Attempt(topics.declare("bad")))
    assert side.writer.positions == {(STREAMS, 0): 1}
    await side.writer.consume(Attempt(topics.order("held", 9)))
    assert side.writer.kept.held == 1
    assert side.harness.metrics.pending._value.get() == 1
    assert side.harness.metrics.consumed.labels(STREAMS)._value.get() == 1
    loaded = await side.writer.load()
    assert dict(loaded.positions) == side.writer.positions
