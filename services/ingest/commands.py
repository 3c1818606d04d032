"""What the watch over silent partitions asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evenkeel.libs.service import Output, Reply
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.handlers import advanced


@dataclass(frozen=True, slots=True)
class StopWaiting:
    """These partitions were silent for longer than their stream waits."""

    silent: Mapping[str, Sequence[int]]
    """Stream → partitions of its raw topic."""


def on_stop_waiting(command: StopWaiting, ctx: IngestContext) -> Reply[dict[str, list[int]]]:
    """They no longer hold their streams' watermarks back; which ones did."""
    outputs: list[Output] = []
    given_up: dict[str, list[int]] = {}
    for route in ctx.routes.values():
        stream = ctx.streams[route.name]
        if route.topic != stream.topic or route.name not in command.silent:
            continue
        before_us = stream.clock.watermark_us
        gone = stream.clock.leave_out(command.silent[route.name])
        if not gone:
            continue
        given_up[route.name] = gone
        stream.counts["wait_expired"] += len(gone)
        ctx.save(route.name, stream)
        outputs += advanced(route, stream, before_us)
    return Reply(given_up, outputs)
