"""Once a second: keep the lease, delete published rows left over, look at the disk, tell lag tools and gauges."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Final

from evenkeel.libs.errors import Fenced, Retry
from evenkeel.libs.runtime.assignment import Assignment
from evenkeel.libs.runtime.disk import DiskRoom
from evenkeel.libs.runtime.publishing import Publisher
from evenkeel.libs.runtime.waiting import Readiness, StopSignal
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.telemetry.metrics import Metrics

UNANSWERED: Final = 3
"""Commits of Kafka's offsets in a row without an answer, after which the broker counts as away."""


class BrokerWatch:
    """Whether the broker still answers. Belongs to the event loop."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness
        self._unanswered = 0

    def note(self, *, answered: bool) -> None:
        self._unanswered = 0 if answered else self._unanswered + 1
        if self._unanswered < UNANSWERED:
            self._readiness.over("commit")
        else:
            self._readiness.trouble("commit", "broker: it does not answer")


class Housekeeping:
    """Belongs to the event loop."""

    def __init__(
        self,
        writer: Writer[Any],
        publisher: Publisher,
        assignment: Assignment,
        room: DiskRoom,
        metrics: Metrics,
        readiness: Readiness,
        stand_back: Callable[[], Awaitable[None]],
    ) -> None:
        self._writer, self._publisher, self._assignment, self._room = writer, publisher, assignment, room
        self._metrics, self._readiness, self._stand_back = metrics, readiness, stand_back
        self._broker = BrokerWatch(readiness)

    async def run(self, stop: StopSignal) -> None:
        while not await stop.within(1.0):
            await self._keep_lease()
            self._room.look()
            self._publisher.measure()
            with contextlib.suppress(Retry):
                for topic, behind in (await self._assignment.lag()).items():
                    self._metrics.lag.labels(topic).set(behind)
                # An idle consumer does not notice that its broker is gone; this call does.
                self._broker.note(answered=await self._assignment.commit())

    async def _keep_lease(self) -> None:
        try:
            try:
                await self._writer.ask(lambda transactions: transactions.housekeep())
            except Fenced:
                await self._stand_back()
            self._readiness.over("housekeeping")
        except Retry as error:
            self._readiness.trouble("housekeeping", str(error))
