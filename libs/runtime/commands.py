"""What comes from people, clients, ticks and jobs: steps 3, 5, 6, 8 and 9 of the consume loop, with a shard of their own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, Literal, TypeVar

import structlog

from evenkeel.libs.errors import EvenkeelError, Fenced, Refused, Retry
from evenkeel.libs.runtime.attempt import HandlerFailed
from evenkeel.libs.runtime.merge import Group, name_of
from evenkeel.libs.runtime.parking import Parked
from evenkeel.libs.runtime.publishing import Publisher
from evenkeel.libs.runtime.transaction import Committed, Transactions
from evenkeel.libs.runtime.waiting import Readiness, StopSignal
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.service import Context, Output, Reply

C = TypeVar("C", bound=Context)
T = TypeVar("T")
log = structlog.get_logger(__name__)

RECORD_GROUP: Final = 512
"""Most answers whose predictions share one transaction."""
Phase = Literal["starting", "rebuilding", "open"]


class Commands(Generic[C]):
    """Belongs to the event loop."""

    def __init__(self, writer: Writer[C], publisher: Publisher, stop: StopSignal) -> None:
        self._writer, self._publisher, self._stop = writer, publisher, stop
        self._recorded: list[tuple[Sequence[Output], asyncio.Future[None]]] = []
        self._record_wanted = asyncio.Event()
        self.phase: Phase = "starting"

    async def command(self, handler: Callable[[C], Reply[T]], shard: str) -> T:
        """See libs/service.py, Host."""
        return await self._transact(lambda transactions: transactions.run(handler, shard))

    async def _transact(self, work: Callable[[Transactions[C]], tuple[Committed, T]]) -> T:
        if self.phase == "rebuilding":
            raise Retry("the store is being rebuilt")
        self._check_loaded()
        self._publisher.check_room()
        try:
            answer = await self._writer.transact(work)
        except Fenced:
            self._stop.set()
            raise
        except Refused:
            raise
        except BaseException:
            await self._writer.load()
            raise
        await self._publisher.publish()
        return answer

    def _check_loaded(self) -> None:
        if self.phase == "starting":
            raise Retry("the service is starting")

    async def parked(self) -> list[tuple[Group | None, list[Parked]]]:
        """What is parked, a queue for each key, the longest parked first (parking.py)."""
        self._check_loaded()
        return await self._writer.ask(lambda transactions: transactions.merging.parked())

    async def release_parked(self, key: bytes) -> int:
        """Fold what is parked under a key, in order; how many records that were. Refused while its handler still fails."""
        groups = [group for group, queue in await self.parked() if queue[0].key == key]
        return sum([await self._release_parked(group, key) for group in groups])

    async def _release_parked(self, group: Group | None, key: bytes) -> int:
        shard = "parked" if group is None else name_of(group)
        try:
            return await self._transact(lambda transactions: transactions.release_parked(group, key, shard))
        except HandlerFailed as error:
            log.error("parked records could not be released", event_id=error.event_id, exc_info=error.__cause__)
            raise Refused(
                409,
                "It fails again",
                f"The handler cannot take event {error.event_id}: {error}. All of its key stays parked.",
                field="key",
                fix="Start a release of the service that can, then release it again.",
            ) from error

    async def tick(self, on_tick: Callable[[C], Iterable[Output]], readiness: Readiness) -> None:
        """Once a second, while the service is ready."""
        while not await self._stop.within(1.0):
            if readiness.reason is None:
                with contextlib.suppress(Retry):
                    await self.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")

    # -- facts of many clients in one transaction -----------------------------------------------------------------------

    async def record(self, outputs: Sequence[Output]) -> None:
        """See libs/service.py, Host."""
        self._publisher.check_room()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._recorded.append((outputs, future))
        self._record_wanted.set()
        await future

    async def record_for_ever(self, publish_soon: Callable[[], None]) -> None:
        """Commit what is asked for together; `publish_soon` sees to it that the outbox goes out."""
        while not self._stop.is_set:
            await self._record_wanted.wait()
            if not self._recorded:
                continue
            group, self._recorded = self._recorded[:RECORD_GROUP], self._recorded[RECORD_GROUP:]
            if not self._recorded:
                self._record_wanted.clear()
            outputs = [output for wanted, _ in group for output in wanted]
            try:
                await self._writer.run(lambda ctx: Reply(None, outputs), "http")
            except (EvenkeelError, ValueError) as error:  # ValueError: too large to be published
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                await self._writer.load()
                continue
            for _, future in group:
                if not future.done():
                    future.set_result(None)
            publish_soon()

    def close(self) -> None:
        """Whoever still waits gets Retry."""
        self._record_wanted.set()
        for _, future in self._recorded:
            if not future.done():
                future.set_exception(Retry("the service stops"))
        self._recorded.clear()
