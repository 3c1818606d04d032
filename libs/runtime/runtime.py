"""The one consume loop, used by every service. Its steps are the guarantee (exactly once in effect, per store):

 1. read bytes with `getmany`, from the position kept in our own store                      assignment.py, consuming.py
 2. decode and validate each record; one that cannot be used becomes a dead letter,
    it never stops the others                                                               decoding.py, intake.py
 3. begin a transaction                                                                     transaction.py, consume
 4. skip what was applied before: sequence ≤ mark of (producer store, shard, input
    partition)                                                                              repeats.py
 5. run the handlers on the batch                                                           handling.py, merging.py
 6. write what they derived to the outbox, with ids, sequences and partitions fixed         outputs.py
 7. move the positions by compare-and-set: a second instance, or a lost transaction, is
    noticed here                                                                            transaction.py, consume
 8. commit                                                                                  transaction.py, consume
 9. publish the outbox in order, await every acknowledgement, then delete exactly those
    rows                                                                                    publishing.py
10. commit Kafka's offset, for lag tools only                                               housekeeping.py

Commands, ticks and finished jobs (commands.py) go through steps 3, 5, 6, 8 and 9 with a shard of their own.

Two threads, and who may touch what: 2 to 8 run in the writer thread, on objects that only `Transactions` holds, which only
writer.py can reach; everything else belongs to the event loop, which does nothing but I/O. They share `Acknowledged`
(publishing.py) and, one after the other, the `Attempt` at hand. Each class says in its first lines whose it is. What a
fault does: libs/errors.py for the names, consuming.py for the deeds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog

from evenkeel.libs.bus.protocol import Bus
from evenkeel.libs.clock import Clock, SystemClock
from evenkeel.libs.errors import EvenkeelError, Stop
from evenkeel.libs.process.instance import instance_name
from evenkeel.libs.runtime.assignment import Assignment
from evenkeel.libs.runtime.commands import Commands
from evenkeel.libs.runtime.consuming import Consuming, Processing
from evenkeel.libs.runtime.disk import DiskRoom
from evenkeel.libs.runtime.housekeeping import Housekeeping
from evenkeel.libs.runtime.lease import Lease
from evenkeel.libs.runtime.merge import Group
from evenkeel.libs.runtime.parking import Parked
from evenkeel.libs.runtime.published import OwnTopics
from evenkeel.libs.runtime.publishing import Acknowledged, Publisher
from evenkeel.libs.runtime.reading import Readers
from evenkeel.libs.runtime.rebuild import Note, Rebuilding, prepare
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.runtime.stateless import Scoring
from evenkeel.libs.runtime.transaction import Transactions, context_of
from evenkeel.libs.runtime.waiting import Persistence, Readiness, StopSignal
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.service import Context, Output, Reply, Service
from evenkeel.libs.settings import Settings
from evenkeel.libs.telemetry.metrics import Metrics
from evenkeel.libs.telemetry.tracing import Tracing

C = TypeVar("C", bound=Context)
T = TypeVar("T")
log = structlog.get_logger(__name__)

FINISH_SECONDS: Final = 3.0
"""How long tasks may take to finish what they are at when the service stops."""


class Runtime(Generic[C]):
    """One running service: makes the parts, starts them in order, and ends them. Belongs to the event loop.

    What a service may ask of it is libs/service.py, Host.
    """

    def __init__(self, service: Service[C], settings: Settings, own: Any, bus: Bus, clock: Clock | None = None) -> None:
        self.service, self.settings, self.own, self.bus = service, settings, own, bus
        self.clock: Clock = clock or SystemClock()
        self.instance = instance_name()
        self.metrics, self.tracing = Metrics(service.name), Tracing(service.name, self.instance)
        self.context = context_of(service, settings, own)
        if service.metrics is not None:
            self.metrics.registry.register(service.metrics(self.context))
        self._stop, self._readiness = StopSignal(), Readiness(self.metrics.ready)
        self._persist = Persistence(self._stop, self._readiness, self.metrics.retries)
        store, routes, acknowledged = service.open_store(settings), Routes(service), Acknowledged()
        self._readers = Readers(store.reading)
        self.publisher = Publisher(bus, self.metrics, settings.max_outbox_bytes, self._persist, acknowledged)
        lease, batch_seconds = Lease(store, self.clock, self.instance), self.metrics.batch_seconds
        self._writer = Writer(
            Transactions(routes, self.context, store, lease, acknowledged, self.clock, self.tracing, batch_seconds),
            self.publisher.add,
            self.metrics,
            self._persist,
        )
        self._commands = Commands(self._writer, self.publisher, self._stop)
        self._assignment = Assignment(service.name, settings, routes, bus, self._writer, self._persist)
        room = DiskRoom(settings.data_dir, settings.min_free_bytes, self.metrics.free)
        self._consuming = Consuming(
            self._assignment,
            Processing(self._writer, self._assignment.facts_added, self.metrics.retries, self._readiness),
            self._writer,
            self.publisher,
            room,
            self._readiness,
            self._stop,
            settings.max_batch_records,
        )
        self._housekeeping = Housekeeping(
            self._writer,
            self.publisher,
            self._assignment,
            room,
            self.metrics,
            self._readiness,
            self._consuming.stand_back,
        )
        self._scorings = [Scoring(handler, service.name, self) for handler in routes.stateless]
        self._tasks: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []
        self._store_ids: tuple[str, ...] = ()
        self.rebuilt = asyncio.Event()
        """Set once there is nothing to rebuild, or nothing any more."""
        self.exit_error: BaseException | None = None

    # -- what a service may ask: see libs/service.py, Host ----------------------------------------------------------------

    @property
    def store_ids(self) -> tuple[str, ...]:
        return self._store_ids

    @property
    def not_ready_reason(self) -> str | None:
        return self._readiness.reason

    @property
    def has_caught_up(self) -> bool:
        return self._assignment.has_caught_up

    @property
    def stopping(self) -> bool:
        return self._stop.is_set

    async def command(self, handler: Callable[[C], Reply[T]], shard: str = "http") -> T:
        return await self._commands.command(handler, shard)

    async def query(self, question: Callable[[Any], T]) -> T:
        return await self._readers.ask(question)

    async def in_writer(self, look: Callable[[C], T]) -> T:
        return await self._writer.ask(lambda transactions: look(transactions.context))

    async def record(self, outputs: Sequence[Output]) -> None:
        await self._commands.record(outputs)

    # -- what operators may ask ---------------------------------------------------------------------------------------

    async def parked(self) -> list[tuple[Group | None, list[Parked]]]:
        """What is parked, a queue for each key, the longest parked first (parking.py)."""
        return await self._commands.parked()

    async def release_parked(self, key: bytes) -> int:
        """Fold what is parked under a key, in order; how many records that were. Refused while its handler still fails."""
        return await self._commands.release_parked(key)

    async def has_read_all(self) -> bool:
        """Whether everything is read that the topics hold now, and what follows from it published."""
        return await self._assignment.has_read_all() and not self.publisher.rows

    # -- life ---------------------------------------------------------------------------------------------------------

    async def prepare_rebuild(self) -> Note:
        """Put an empty store into the place of what is there, before `run`, which fills it. Raises NotRebuildable."""
        try:
            return await prepare(self.service, self.bus, self._writer)
        except BaseException:
            await self.bus.stop()
            await self._close()
            raise

    async def run(self) -> None:
        """Start, consume until `stop`, and leave nothing half done. Raises what made going on impossible."""
        started = False
        try:
            rebuilding = await self._start()
            started = True
            work: list[Coroutine[Any, Any, None]] = [
                self._consuming.run(rebuilding),
                self._commands.record_for_ever(self._publish_soon),
                self._housekeeping.run(self._stop),
            ]
            if self.service.on_tick is not None:
                work.append(self._commands.tick(self.service.on_tick, self._readiness))
            self._tasks = [asyncio.create_task(self._guard(one)) for one in work]
            background: list[Callable[[], Awaitable[None]]] = [
                *(partial(task, self) for task in self.service.background),
                *(scoring.run for scoring in self._scorings),
            ]
            self._background = [asyncio.create_task(self._guard(self._when_ready(task))) for task in background]
            await self._stop.wait()
        except asyncio.CancelledError:
            if not self._stop.is_set:
                raise
        finally:
            await self._shut_down(started)
        if self.exit_error is not None:
            raise self.exit_error

    def stop(self) -> None:
        self._stop.set()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A Stop says what happened and what to do; anything else is a bug, and the stack says where.
            log.error("service stops", error=str(error), exc_info=None if isinstance(error, Stop) else error)
            self.exit_error = error
            self._stop.set()

    async def _when_ready(self, task: Callable[[], Awaitable[None]]) -> None:
        while self._readiness.reason is not None:
            await asyncio.sleep(0.05)
        await task()

    async def _start(self) -> Rebuilding | None:
        """Ready to consume; what is to be rebuilt first, if anything."""
        await self._persist("store", lambda: self._writer.ask(lambda transactions: transactions.store.open()))
        await self._persist("broker", self.bus.start)
        await self._persist("topics", self._assignment.check_topics)
        await self._writer.take_lease()
        loaded = await self._writer.load()
        store_id = await self._writer.ask(lambda transactions: transactions.store.store_id)
        note = None if loaded.rebuild is None else msgspec.json.decode(loaded.rebuild, type=Note)
        rebuilding = None
        if note is not None and not note.done:
            self._readiness.say("rebuilding")
            rebuilding = Rebuilding(
                self.service, self.bus, self._writer, self.publisher, self._readiness, note, self._on_rebuilt
            )
            await self.publisher.publish()
            await self._persist("broker", rebuilding.begin)
            note = rebuilding.note
            self._commands.phase = "rebuilding"
        else:
            await self._persist("broker", lambda: self._check_whole(store_id, () if note is None else note.former))
            self._on_rebuilt()
        self._store_ids = (store_id, *(() if note is None else note.former))
        await self.publisher.publish()
        await self._assignment.assign()
        return rebuilding

    async def _check_whole(self, store_id: str, former: Sequence[str]) -> None:
        sequences = await self._writer.ask(lambda transactions: dict(transactions.sequences))
        accept_new_store = self.settings.accept_new_store
        await OwnTopics(self.service, self.bus).check_whole(
            store_id, former, sequences, accept_new_store=accept_new_store
        )

    def _on_rebuilt(self) -> None:
        self._commands.phase = "open"
        self.rebuilt.set()

    def _publish_soon(self) -> None:
        if not self.publisher.is_at_work:
            task = asyncio.create_task(self._guard(self.publisher.publish()))
            self._tasks = [t for t in self._tasks if not t.done()] + [task]

    async def _shut_down(self, started: bool) -> None:
        self._readiness.say("stopping")
        await _cancelled(self._background)
        self._commands.close()
        stuck: set[asyncio.Task[None]] = set()
        if self._tasks:
            _, stuck = await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
        await _cancelled(self._tasks)
        if started and self.exit_error is None:
            # With the broker away the outbox waits for the next start; `_persist` gives up by cancelling.
            with contextlib.suppress(EvenkeelError, TimeoutError, asyncio.CancelledError):
                if not stuck:  # whoever waited for the broker in vain need not do it twice: there are 15 seconds in all
                    await asyncio.wait_for(self.publisher.publish(), FINISH_SECONDS)
            with contextlib.suppress(EvenkeelError):
                await self._writer.ask(lambda transactions: transactions.housekeep())
                await self._writer.ask(lambda transactions: transactions.lease.release())
        await self.bus.stop()
        await self._close()

    async def _close(self) -> None:
        await self._writer.ask(lambda transactions: transactions.store.close())
        self._writer.close()
        self._readers.close()
        await asyncio.get_running_loop().run_in_executor(None, self.tracing.close)


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks. asyncio.wait_for, deep in a call, may lose a cancellation (bpo-37658), so it is said until it is heard."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=FINISH_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
