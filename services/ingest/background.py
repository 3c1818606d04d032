"""Watches for raw partitions that hold their stream's watermark back, and gives them up after the declared wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import structlog

from evenkeel.libs.bus.protocol import TopicPartition
from evenkeel.libs.errors import Retry
from evenkeel.libs.service import Host
from evenkeel.services.ingest.commands import StopWaiting, on_stop_waiting
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.domain.stream import Route
from evenkeel.services.ingest.domain.watermark import Patience

log = structlog.get_logger(__name__)
LOOK_SECONDS: Final = 1.0


async def watch_silence(runtime: Host[IngestContext]) -> None:
    """Once a second: ask the broker whether there is anything unread on the partitions that are waited for."""
    while not runtime.stopping:
        await asyncio.sleep(LOOK_SECONDS)
        waited_for = await runtime.in_writer(holding)
        try:
            ends = await runtime.bus.end_offsets(waited_for) if waited_for else {}
            now_us = runtime.clock.now_us()
            silent = await runtime.in_writer(lambda ctx: look(ctx, ends, now_us))
            if silent:
                given_up = await runtime.command(partial(on_stop_waiting, StopWaiting(silent)), "tick")
                log.warning("partitions no longer waited for", partitions=given_up)
        except Retry as error:
            log.debug("broker does not answer", error=str(error))
            await runtime.in_writer(interrupted)


def interrupted(ctx: IngestContext) -> None:
    """Nobody knows whether there is something unread: no wait goes on."""
    for patience in ctx.patience.values():
        patience.interrupted()


def _current(ctx: IngestContext) -> list[Route]:
    return [route for route in ctx.routes.values() if ctx.streams[route.name].topic == route.topic]


def holding(ctx: IngestContext) -> list[TopicPartition]:
    """Every partition that holds its stream's watermark back."""
    return [(route.topic, p) for route in _current(ctx) for p in ctx.streams[route.name].clock.holding()]


def look(ctx: IngestContext, ends: dict[TopicPartition, int], now_us: int) -> dict[str, Sequence[int]]:
    """By stream, the partitions that were waited for long enough."""
    silent: dict[str, Sequence[int]] = {}
    for route in _current(ctx):
        stream = ctx.streams[route.name]
        mine = {partition: end for (topic, partition), end in ends.items() if topic == route.topic}
        patience = ctx.patience.setdefault(route.name, Patience())
        enough = patience.look(stream.clock, stream.positions, mine, route.spec.wait_us, now_us)
        if enough:
            silent[route.name] = enough
    return silent
