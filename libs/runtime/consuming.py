"""The loop itself: fetch a batch, and process it until it is committed and published, whatever it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog
from prometheus_client import Counter

from evenkeel.contracts.envelope import Record
from evenkeel.libs.bus.protocol import TopicPartition
from evenkeel.libs.errors import Fenced, NotYet, Retry, Stop
from evenkeel.libs.runtime.assignment import Assignment
from evenkeel.libs.runtime.attempt import Attempt, HandlerFailed
from evenkeel.libs.runtime.disk import DiskRoom
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.publishing import Publisher
from evenkeel.libs.runtime.rebuild import Rebuilding
from evenkeel.libs.runtime.rereading import Rereading
from evenkeel.libs.runtime.waiting import Backoff, Readiness, StopSignal
from evenkeel.libs.runtime.writer import Writer

log = structlog.get_logger(__name__)

FactsAdded = Callable[[Sequence[Record]], Awaitable[tuple[Sequence[Record], Mapping[TopicPartition, int]]]]
"""See Assignment.facts_added."""


class Processing:
    """One batch after another, each until it is committed. Belongs to the event loop."""

    def __init__(self, writer: Writer[Any], facts_added: FactsAdded, retries: Counter, readiness: Readiness) -> None:
        self._writer, self._facts_added, self._retries, self._readiness = writer, facts_added, retries, readiness

    async def process(self, records: Sequence[Record]) -> None:
        """Raises Fenced, Stop, and a fault that is about no single event."""
        attempt, backoff = Attempt(records), Backoff(0.05)
        while True:
            try:
                await self._writer.consume(attempt)
                return
            except NotYet as error:
                await self._read_facts(attempt, error)
            except Retry as error:
                await self._wait(backoff, error)
            except Fenced:
                raise  # whoever stands back loads
            except Stop:
                await self._writer.load()
                raise
            except HandlerFailed as error:
                await self._note_failure(attempt, error)
            except Exception as error:  # noqa: BLE001 - a bug, and nothing says which event it is about
                await self._isolate(attempt, error)

    async def _read_facts(self, attempt: Attempt, error: NotYet) -> None:
        """Something names a fact that is not folded: read the facts to their end, and if that was done, find what it is."""
        log.debug("waiting for a fact", error=str(error))
        self._retries.labels("fact").inc()
        await self._writer.load()
        if error.where is None and attempt.has_facts:
            attempt.isolate = True
        else:
            attempt.with_facts(*await self._facts_added(attempt.records))

    async def _wait(self, backoff: Backoff, error: Retry) -> None:
        """The store is away."""
        self._retries.labels("store").inc()
        self._readiness.say(str(error))
        await asyncio.sleep(backoff.seconds())
        await self._writer.load()

    async def _note_failure(self, attempt: Attempt, error: HandlerFailed) -> None:
        """The one event that a handler cannot take, known because the batch ran event by event."""
        tries = attempt.failed_at(error)
        log.error(
            "handler failed", event_id=error.event_id, topic=error.where[0], tries=tries, exc_info=error.__cause__
        )
        await self._writer.load()

    async def _isolate(self, attempt: Attempt, error: Exception) -> None:
        """From here on the batch runs event by event, to find the one that it is about."""
        if not attempt.failed():
            raise error
        log.error("batch failed, going event by event", exc_info=error)
        await self._writer.load()


class Consuming:
    """What a service reads, for as long as it lives. Belongs to the event loop."""

    def __init__(
        self,
        assignment: Assignment,
        processing: Processing,
        writer: Writer[Any],
        publisher: Publisher,
        room: DiskRoom,
        readiness: Readiness,
        stop: StopSignal,
        batch_records: int,
    ) -> None:
        """`batch_records`: most of one batch."""
        self._assignment, self._processing, self._writer, self._publisher = assignment, processing, writer, publisher
        self._room, self._readiness, self._stop, self._batch_records = room, readiness, stop, batch_records

    async def run(self, rebuilding: Rebuilding | None) -> None:
        """Until the service stops; first, if the store is being rebuilt, in the order that this wants."""
        if rebuilding is not None:
            await Rereading(
                rebuilding, self._assignment, self._processing.process, self._batch_records, self._stop
            ).run()
        while not self._stop.is_set:
            if self._room.shortage is not None:
                self._readiness.say(self._room.shortage)
                await self._stop.within(0.2)
                continue
            if not self._assignment.has_caught_up:
                self._assignment.check_caught_up()
            else:
                await self._assignment.make_room(may_wait=rebuilding is None)
            batch = await self._assignment.fetch()
            if self._stop.is_set:
                break
            if rebuilding is not None and await rebuilding.go_on(may_finish=self._assignment.has_caught_up):
                rebuilding = None
            if rebuilding is None:
                self._readiness.say(None if self._assignment.has_caught_up else "reading control topics")
            records = [record for partition in batch.values() for record in partition]
            if records:
                failpoint("loop.fetched")
                await self._process_or_stop(records)
                await self._assignment.assign_if_changed()

    async def _process(self, records: Sequence[Record]) -> None:
        """Until they are committed and what follows from them is published."""
        await self._processing.process(records)
        read = self._assignment.read()
        await self._publisher.publish()
        self._assignment.settle(read)

    async def _process_or_stop(self, records: Sequence[Record]) -> None:
        try:
            await self._process(records)
        except Fenced as error:
            log.warning("fenced", error=str(error))
            await self.stand_back()
        except Stop as error:
            log.error("consumption stopped", error=str(error))
            self._readiness.say(f"stopped: {error}")
            await self._stop.wait()

    async def stand_back(self) -> None:
        """Somebody else moved on: take the lease again, then read everything again and resume from there."""
        await self._writer.take_lease()
        async with self._publisher.anew():
            await self._writer.load_after_another()
        await self._publisher.publish()
        await self._assignment.assign_anew()
