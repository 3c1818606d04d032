"""The one consume loop, used by every service. Its steps are the guarantee (exactly once in effect, per store):

1. read bytes with `getmany`, from the position kept in our own store;
2. decode and validate each record; one that cannot be used becomes a dead letter, it never stops the others;
3. begin a transaction; 4. skip what was applied before: sequence ≤ mark of (producer store, shard, input partition);
5. run the handlers on the batch; 6. write what they derived to the outbox, with ids, sequences and partitions fixed;
7. move the positions by compare-and-set: a second instance, or a lost transaction, is noticed here; 8. commit;
9. publish the outbox in order, await every acknowledgement, then delete exactly those rows; 10. commit Kafka's offset,
   for lag tools only.

Commands, ticks and finished jobs go through steps 3, 5, 6, 8 and 9 with a shard of their own. All of 2–8 runs in one
thread (batch.py), 9 is publishing.py; the event loop only does I/O. What a fault does: libs/errors.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec
import structlog

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.topics import consumed_by, published_by
from evenkeel.libs.bus.protocol import Bus, TopicPartition
from evenkeel.libs.clock import SECOND_US, Clock, SystemClock
from evenkeel.libs.errors import DataLoss, EvenkeelError, Fenced, NotYet, Refused, Retry, Stop
from evenkeel.libs.process.instance import instance_name, is_gone
from evenkeel.libs.runtime import outputs as outbox
from evenkeel.libs.runtime.batch import BatchProcessor, Committed, HandlerFailed, no_facts
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.runtime.merge import Group, name_of
from evenkeel.libs.runtime.parking import Parked
from evenkeel.libs.runtime.publishing import Publisher
from evenkeel.libs.runtime.reading import Readers
from evenkeel.libs.runtime.rebuild import InOrder, Note, Rebuilding, as_written, check_whole
from evenkeel.libs.runtime.stateless import run_stateless
from evenkeel.libs.service import Context, Output, Reply, Service, Stateless
from evenkeel.libs.settings import Settings
from evenkeel.libs.telemetry.metrics import Metrics
from evenkeel.libs.telemetry.tracing import Tracing

C = TypeVar("C", bound=Context)
T = TypeVar("T")
log = structlog.get_logger(__name__)

LEASE_US: Final = 6 * SECOND_US
TRIES: Final = 3
FINISH_SECONDS: Final = 3.0
"""How long tasks may take to finish what they are at when the service stops."""
ASK_SECONDS: Final = 3.0
"""How long housekeeping may wait for the broker: it also keeps the lease."""
UNANSWERED: Final = 3
"""Commits of Kafka's offsets in a row without an answer, after which the broker counts as away."""
RECORD_GROUP: Final = 512
"""Most answers whose predictions share one transaction."""


class Runtime(Generic[C]):
    """One running service."""

    def __init__(self, service: Service[C], settings: Settings, own: Any, bus: Bus, clock: Clock | None = None) -> None:
        self.service, self.settings, self.own, self.bus = service, settings, own, bus
        self.clock = clock or SystemClock()
        self.instance = instance_name()
        self.metrics = Metrics(service.name)
        self.tracing = Tracing(service.name, self.instance)
        self.store = service.open_store(settings)
        self.context = service.context(settings, own)
        self.context.service, self.context.settings, self.context.own = service.name, settings, own
        if service.metrics is not None:
            self.metrics.registry.register(service.metrics(self.context))
        self._batch: BatchProcessor[C] = BatchProcessor(self)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._readers = Readers(self.store.reading)
        self.publisher = Publisher(
            bus, self.metrics, settings.max_outbox_bytes, self._persist, self._batch.published.append
        )
        self._no_room: str | None = None
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._background: list[asyncio.Task[None]] = []
        self._recorded: list[tuple[Sequence[Output], asyncio.Future[None]]] = []
        self._record_wanted = asyncio.Event()
        self._is_loaded = self._control_caught_up = False
        self._reason: str | None = "starting"
        self._troubles: dict[str, str] = {}
        """What is waited for now, by which part of the runtime waits: not ready until all of it is over."""
        self._assigned: set[TopicPartition] = set()
        self._settled: dict[TopicPartition, int] = {}
        """Up to where records were read and all that follows from them is published."""
        self._ahead: set[TopicPartition] = set()
        """What is not read now, because the merge is full and waits for others."""
        self._is_full = False
        self._lease_epoch = 0
        self._former_topics: dict[str, int] = {}
        self._rebuilding: Rebuilding | None = None
        self._former_stores: Sequence[str] = ()
        self.rebuilt = asyncio.Event()
        """Set once there is nothing to rebuild, or nothing any more."""
        self.exit_error: BaseException | None = None

    # -- state that the world may see -------------------------------------------------------------------------------

    @property
    def not_ready_reason(self) -> str | None:
        """Why the service is not ready; None when it is."""
        return self._reason

    def _set_reason(self, reason: str | None) -> None:
        if reason is None:
            reason = next(iter(self._troubles.values()), None)
        if reason != self._reason:
            self._reason = reason
            self.metrics.ready.set(reason is None)
            (log.info if reason is None else log.warning)("ready" if reason is None else "not ready", reason=reason)

    @property
    def stopping(self) -> bool:
        return self._stopping.is_set()

    @property
    def has_caught_up(self) -> bool:
        """Whether the store is loaded and every fact is read that there was at the start: what is unknown until then may
        be known in a moment."""
        return self._control_caught_up

    # -- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, consume until `stop`, and leave nothing half done. Raises what made going on impossible."""
        started = False
        try:
            await self._start()
            started = True
            self._tasks = [
                asyncio.create_task(self._guard(step()))
                for step in (
                    self._consume_for_ever,
                    self._tick_for_ever,
                    self._record_for_ever,
                    self._housekeep_for_ever,
                )
            ]
            background: list[Callable[[Runtime[C]], Awaitable[None]]] = [
                *self.service.background,
                *(partial(run_stateless, h) for h in self.service.handlers if isinstance(h, Stateless)),
            ]
            self._background = [asyncio.create_task(self._guard(self._when_ready(task))) for task in background]
            await self._stopping.wait()
        except asyncio.CancelledError:
            if not self._stopping.is_set():
                raise
        finally:
            await self._shut_down(started)
        if self.exit_error is not None:
            raise self.exit_error

    def stop(self) -> None:
        self._stopping.set()

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A Stop says what happened and what to do; anything else is a bug, and the stack says where.
            log.error("service stops", error=str(error), exc_info=None if isinstance(error, Stop) else error)
            self.exit_error = error
            self._stopping.set()

    async def _when_ready(self, task: Callable[[Runtime[C]], Awaitable[None]]) -> None:
        while self._reason is not None:
            await asyncio.sleep(0.05)
        await task(self)

    async def _start(self) -> None:
        await self._persist("store", lambda: self.in_writer(self.store.open))
        await self._persist("broker", self.bus.start)
        await self._persist("topics", self._check_topics)
        await self._persist("lease", self._take_lease)
        note = await self._load()
        if note is not None and not note.done:
            self._set_reason("rebuilding")
            self._rebuilding = Rebuilding(self, note)
            await self.publisher.publish()
            await self._persist("broker", self._rebuilding.begin)
            self._batch.published_before = self._rebuilding.found
            self._former_stores = self._rebuilding.note.former
        else:
            self._former_stores = () if note is None else note.former
            await self._persist("broker", lambda: check_whole(self, self._former_stores))
            self.rebuilt.set()
        self._is_loaded = True
        await self.publisher.publish()
        await self._assign()

    async def _persist(self, what: str, step: Callable[[], Awaitable[T]]) -> T:
        """Infrastructure is waited for, for ever, with backoff and jitter, and the reason is there to be read."""
        wait_seconds = 0.1
        while True:
            try:
                answer = await step()
                self._troubles.pop(what, None)
                return answer
            except Retry as error:
                if self._stopping.is_set():
                    raise asyncio.CancelledError from error
                self.metrics.retries.labels(what).inc()
                self._troubles[what] = f"{what}: {error}"
                self._set_reason(self._troubles[what])
                await self._stopped_within(wait_seconds * random.uniform(0.7, 1.3))
                wait_seconds = min(wait_seconds * 2, 5.0)

    async def _check_topics(self) -> None:
        expected = {t.name: t.partitions for t in (*consumed_by(self.service.name), *published_by(self.service.name))}
        former = {f.name: f.partitions for f in self._batch.former}
        found = await self.bus.partition_counts(expected | former)
        self._former_topics = {name: former[name] for name in former.keys() & found.keys()}
        for name, partitions in (expected | self._former_topics).items():
            if name not in found:
                raise Retry(f"topic {name} does not exist yet: `evenkeel topics` creates the map's topics")
            if found[name] != partitions:
                raise Stop(
                    f"topic {name} has {found[name]} partitions, the map says {partitions}: the count never changes in place"
                )

    async def _stopped_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    async def _take_lease(self) -> None:
        epoch = await self.in_writer(lambda: self.store.take_lease(*self.lease_wanted))
        if epoch is None:
            raise Retry("another instance is active: standing by")
        self._lease_epoch = epoch

    async def _load(self) -> Note | None:
        """Read positions, marks, what is held and caches again: at start and after every transaction that did not commit."""
        state = await self._persist("store", lambda: self.in_writer(self._batch.load))
        for row, blob in state.outbox:
            self.publisher.add(row, len(blob), outbox.unpack(blob))
        return None if state.rebuild is None else msgspec.json.decode(state.rebuild, type=Note)

    async def _shut_down(self, started: bool) -> None:
        self._set_reason("stopping")
        await _cancelled(self._background)
        self._record_wanted.set()
        for _, future in self._recorded:
            if not future.done():
                future.set_exception(Retry("the service stops"))
        self._recorded.clear()
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
                await self.in_writer(self._batch.housekeep)
                await self.in_writer(lambda: self.store.release_lease(self.instance, self._lease_epoch))
        await self.bus.stop()
        await self.in_writer(self.store.close)
        self._writer.shutdown(wait=False)
        self._readers.close()
        await asyncio.get_running_loop().run_in_executor(None, self.tracing.close)

    async def in_writer(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    # -- consuming --------------------------------------------------------------------------------------------------

    async def _assign(self) -> None:
        """Read the topics of the map that are ours and the raw topics that the context names, from our own positions."""
        topics = {
            t.name: t.partitions for t in consumed_by(self.service.name) if t.name not in self._batch.stateless_topics
        } | self._former_topics
        raw = dict(self.context.raw_topics())
        if raw:
            await self._persist("topics", lambda: self._make_raw_topics(raw))
            counts = await self._persist("topics", lambda: self._count_raw_partitions(raw))
            await self.in_writer(lambda: self.context.assigned(counts))
            topics |= counts
        wanted = {(name, partition) for name, count in topics.items() for partition in range(count)}
        begins = await self._persist("broker", lambda: self.bus.beginning_offsets(wanted))
        for tp in wanted:
            position = self._batch.positions.get(tp)
            if position is not None and begins[tp] > position:
                if not self.settings.accept_gap:
                    raise DataLoss(
                        f"{tp[0]}/{tp[1]}: records {position}–{begins[tp] - 1} were deleted by retention before "
                        f"{self.service.name} read them; set EVENKEEL_ACCEPT_GAP=true to go on without them"
                    )
                log.error(
                    "records lost to retention", topic=tp[0], partition=tp[1], first=position, last=begins[tp] - 1
                )
        self.bus.assign({tp: max(begins[tp], self._batch.positions.get(tp, 0)) for tp in wanted})
        self._assigned, self._ahead = wanted, set()
        self._settled = self._positions()
        self._control = {tp for tp in wanted if tp[0] in self._batch.control_topics}
        self._raw_topics = set(raw)
        if not self._control_caught_up:
            self.bus.pause(wanted - self._control)
            ends = await self._persist("broker", lambda: self.bus.end_offsets(self._control))
            self._control_ends = {
                tp: end for tp, end in ends.items() if end > max(begins[tp], self._batch.positions.get(tp, 0))
            }

    def _positions(self) -> dict[TopicPartition, int]:
        """Up to where what is assigned was read and committed."""
        return {tp: position for tp, position in self._batch.positions.items() if tp in self._assigned}

    async def _make_raw_topics(self, raw: dict[str, int]) -> None:
        for name, partitions in raw.items():
            await self.bus.create_raw_topic(name, partitions)

    async def _count_raw_partitions(self, raw: dict[str, int]) -> dict[str, int]:
        counts = await self.bus.partition_counts(raw)
        for name in raw:
            if name not in counts:
                raise Retry(f"topic {name} does not exist yet")
        return counts

    async def _consume_for_ever(self) -> None:
        if self._rebuilding is not None:
            await self._read_again(self._rebuilding)
        while not self._stopping.is_set():
            if self._no_room is not None:
                self._set_reason(self._no_room)
                await self._stopped_within(0.2)
                continue
            if not self._control_caught_up:
                self._check_caught_up()
            else:
                self._wait_for_those_behind()
            batch = await self._fetch()
            if self._stopping.is_set():
                break
            await self._look_at_rebuild()
            if self._rebuilding is None:
                self._set_reason(None if self._control_caught_up else "reading control topics")
            records = [record for partition in batch.values() for record in partition]
            if not records:
                continue
            failpoint("loop.fetched")
            try:
                await self._process(records)
            except Fenced as error:
                log.warning("fenced", error=str(error))
                await self._stand_back()
            except Stop as error:
                log.error("consumption stopped", error=str(error))
                self._set_reason(f"stopped: {error}")
                await self._stopping.wait()
            if set(self.context.raw_topics()) != self._raw_topics:
                await self._assign()

    def _wait_for_those_behind(self) -> None:
        """With a full merge, read only what it waits for: the rest is kept in its topics, not in our store."""
        is_full = self._rebuilding is None and self._batch.merge_held >= self.settings.max_pending_records
        if is_full != self._is_full:
            text = "the merge is full, reading only what it waits for" if is_full else "the merge has room again"
            log.warning(text, held=self._batch.merge_held)
            self._is_full = is_full
        ahead = self._batch.ahead() if is_full else set()
        if ahead:
            self.bus.pause(ahead)
        if self._ahead - ahead:
            self.bus.resume(self._ahead - ahead)
        self._ahead = ahead

    async def _read_again(self, rebuilding: Rebuilding) -> None:
        """What the service wants in a certain order, then the control topics as they were written."""
        batch: list[Record] = []
        read, full, facts = InOrder(), 2 * self.settings.max_batch_records, self._batch.control_topics
        for topic, partition, count in rebuilding.order_left(dict(self._batch.positions)):
            tp, wanted = (topic, partition), count
            while wanted and not self._stopping.is_set():
                taken = read.take(tp, wanted)
                if taken and batch and topic in facts and batch[-1].topic not in facts:
                    await self._process(batch)  # in one batch, what is a fact would go first
                    batch = []
                batch += taken
                wanted -= len(taken)
                if wanted:
                    self.bus.pause([other for other in self._assigned if read.held(other) > full])
                    self.bus.resume([tp])
                    read.add(await self._fetch())
            while len(batch) >= self.settings.max_batch_records:
                await self._process(batch[: self.settings.max_batch_records])
                del batch[: self.settings.max_batch_records]
                await self._look_at_rebuild(may_finish=False)
        if batch and not self._stopping.is_set():
            await self._process(batch)
        await self._assign()
        control: list[Record] = []
        reached: dict[TopicPartition, int] = {}
        while any(reached.get(tp, 0) < end for tp, end in self._control_ends.items()) and not self._stopping.is_set():
            for tp, records in (await self._fetch()).items():
                control += records
                reached[tp] = records[-1].offset + 1
        ordered = as_written(control)
        for first in range(0, len(ordered), self.settings.max_batch_records):
            await self._process(ordered[first : first + self.settings.max_batch_records])
            await self._look_at_rebuild(may_finish=False)

    async def _fetch(self) -> dict[TopicPartition, Sequence[Record]]:
        return await self._persist(
            "broker", lambda: self.bus.getmany(timeout_ms=200, max_records=self.settings.max_batch_records)
        )

    async def _look_at_rebuild(self, *, may_finish: bool = True) -> None:
        """Say how far it is; end it when all that was there is read."""
        rebuilding = self._rebuilding
        if rebuilding is None:
            return
        read, whole = rebuilding.progress(self._batch.positions)
        self._set_reason(f"rebuilding: {read * 100 // max(whole, 1)} % of {whole:,} records read")
        if may_finish and self._control_caught_up and rebuilding.is_read(self._batch.positions):
            await rebuilding.finish()
            self._rebuilding = None
            self.rebuilt.set()

    def rebuild_step(
        self,
        handler: Callable[[C], Sequence[Output] | Iterable[Output]],
        note: Note,
        *,
        shard: str = "rebuild",
        is_last: bool = False,
    ) -> None:
        """In the writer thread: one transaction of a rebuild, with how far it has come then."""
        if is_last:
            self._batch.published_before = None

        def handle(ctx: C) -> Reply[None]:
            outputs = tuple(handler(ctx))
            ctx.tx.put_rebuild(msgspec.json.encode(note))
            return Reply(None, outputs)

        committed, _ = self._batch.run(handle, shard)
        self._after_commit(committed)

    @property
    def former_stores(self) -> Sequence[str]:
        """Ids of the stores whose place this one has taken."""
        return self._former_stores

    @property
    def sequences(self) -> dict[str, int]:
        """The last sequence of each shard in the store."""
        return self._batch.sequences

    @property
    def lease_wanted(self) -> tuple[str, int, int, Callable[[str], bool]]:
        """What to ask the store's lease with."""
        return self.instance, self.clock.now_us(), LEASE_US, is_gone

    def _check_caught_up(self) -> None:
        if all(self._batch.positions.get(tp, 0) >= end for tp, end in self._control_ends.items()):
            self._control_caught_up = True
            self.bus.resume(self._assigned - self._control)

    async def _stand_back(self) -> None:
        """Somebody else moved on: take the lease again, then read everything again and resume from there."""
        await self._persist("lease", self._take_lease)
        async with self.publisher.anew():
            self._batch.published.clear()
            await self._load()
        await self.publisher.publish()
        self._control_caught_up = False
        await self._assign()

    async def _process(self, records: Sequence[Record]) -> None:
        """One batch until it is committed and published, whatever it takes."""
        failures = 0
        wait_seconds = 0.05
        while True:
            try:
                committed = await self.in_writer(lambda: self._batch.consume(records))
                break
            except NotYet as error:
                log.debug("waiting for a fact", error=str(error))
                self.metrics.retries.labels("fact").inc()
                await self._load()
                if error.where is None and self._batch.facts_read is not no_facts:
                    self._batch.isolate = True  # to find the one that names what will not come
                else:
                    records = await self._with_facts(records)
            except Retry as error:
                self.metrics.retries.labels("store").inc()
                self._set_reason(str(error))
                await asyncio.sleep(wait_seconds * random.uniform(0.7, 1.3))
                wait_seconds = min(wait_seconds * 2, 5.0)
                await self._load()
            except Fenced:
                raise
            except Stop:
                await self._load()
                raise
            except HandlerFailed as error:
                # The one event that a handler cannot take, known because the batch ran event by event.
                failures += 1
                log.error(
                    "handler failed",
                    event_id=error.event_id,
                    topic=error.where[0],
                    tries=failures,
                    exc_info=error.__cause__,
                )
                if failures >= TRIES:
                    self._batch.poison[error.where] = str(error)
                    failures = 0
                await self._load()
            except Exception as error:
                # The one broad except: a bug. From here on the batch runs event by event, to find the one it is about.
                if self._batch.isolate:
                    failures += 1
                    if failures >= TRIES:
                        raise
                log.error("batch failed, going event by event", exc_info=error)
                self._batch.isolate = True
                await self._load()
        self._batch.isolate = False
        self._batch.poison.clear()
        self._batch.facts_read = no_facts
        self._after_commit(committed)
        settled = self._positions()
        await self.publisher.publish()
        self._settled = settled

    async def _with_facts(self, records: Sequence[Record]) -> Sequence[Record]:
        """The same records with all that the control topics hold by now. A fact is published before the first record
        that names it, so whatever these name is among them, or was never said; what is read beyond may name later ones.
        """
        ends = await self._persist("broker", lambda: self.bus.end_offsets(self._control))
        found = list(records)
        data = [tp for tp in self._assigned if tp not in self._control]
        self.bus.pause(data)
        try:
            while not self._has_read(ends, found):
                batch = await self._persist("broker", lambda: self.bus.getmany(timeout_ms=200, max_records=1000))
                found += (record for partition in batch.values() for record in partition)
        finally:
            if self._control_caught_up:
                self.bus.resume(data)
        self._batch.facts_read = lambda where: where[2] < ends.get((where[0], where[1]), where[2] + 1)
        return found

    def _has_read(self, ends: Mapping[TopicPartition, int], records: Sequence[Record]) -> bool:
        reached = {tp: self._batch.positions.get(tp, 0) for tp in ends}
        for record in records:
            tp = (record.topic, record.partition)
            if tp in reached:
                reached[tp] = max(reached[tp], record.offset + 1)
        return all(reached[tp] >= end for tp, end in ends.items())

    # -- commands, ticks, jobs --------------------------------------------------------------------------------------

    async def command(self, handler: Callable[[C], Reply[T]], shard: str = "http") -> T:
        """Run a handler in a transaction of its own. What it answers is given back once it is committed and published.

        While the store is rebuilt there are no commands: what they are about is not there yet.

        Raises Refused if the handler does (nothing has changed then), and Retry if the store is away or the outbox full.
        """
        if self._rebuilding is not None:
            raise Retry("the store is being rebuilt")
        self._check_loaded()
        self.publisher.check_room()
        try:
            committed, answer = await self.in_writer(lambda: self._batch.run(handler, shard))
        except Fenced:
            self._stopping.set()
            raise
        except Refused:
            raise
        except BaseException:
            await self._load()
            raise
        self._after_commit(committed)
        await self.publisher.publish()
        return answer

    def _check_loaded(self) -> None:
        if not self._is_loaded:
            raise Retry("the service is starting")

    async def query(self, question: Callable[[Any], T]) -> T:
        """Read the store in another thread than the writer's; `question` gets the engine's handle on a snapshot."""
        return await self._readers.ask(question)

    async def parked(self) -> list[tuple[Group | None, list[Parked]]]:
        """What is parked, a queue for each key, the longest parked first (evenkeel.libs.runtime.parking)."""
        self._check_loaded()
        return await self.in_writer(self._batch.parked)

    async def release_parked(self, key: bytes) -> int:
        """Fold what is parked under a key, in order; how many records that were. Refused while its handler still fails."""
        queues = [(group, queue) for group, queue in await self.parked() if queue[0].key == key]
        released = 0
        for group, _ in queues:
            shard = "parked" if group is None else name_of(group)
            try:
                released += await self.command(self._batch.releasing(group, key), shard)
            except HandlerFailed as error:
                log.error("parked records could not be released", event_id=error.event_id, exc_info=error.__cause__)
                raise Refused(
                    409,
                    "It fails again",
                    f"The handler cannot take event {error.event_id}: {error}. All of its key stays parked.",
                    field="key",
                    fix="Start a release of the service that can, then release it again.",
                ) from error
        return released

    def dead_letter(self, record: Record, reason: str) -> Output:
        return self._batch.dead_letter(record, reason)

    async def record(self, outputs: Sequence[Output]) -> None:
        """Publish facts that change no state of ours (predictions). Returns once they are committed to the outbox;
        whatever is asked for at the same time shares one transaction. Raises Retry if they cannot be kept."""
        self.publisher.check_room()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._recorded.append((outputs, future))
        self._record_wanted.set()
        await future

    async def _record_for_ever(self) -> None:
        while not self._stopping.is_set():
            await self._record_wanted.wait()
            if not self._recorded:
                continue
            group, self._recorded = self._recorded[:RECORD_GROUP], self._recorded[RECORD_GROUP:]
            if not self._recorded:
                self._record_wanted.clear()
            flat = [output for wanted, _ in group for output in wanted]
            try:
                committed, _ = await self.in_writer(lambda: self._batch.run(lambda ctx: Reply(None, flat), "http"))
            except (EvenkeelError, ValueError) as error:  # ValueError: too large to be published
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                await self._load()
                continue
            self._after_commit(committed)
            for _, future in group:
                if not future.done():
                    future.set_result(None)
            self._publish_soon()

    async def _tick_for_ever(self) -> None:
        on_tick = self.service.on_tick
        while on_tick is not None and not await self._stopped_within(1.0):
            if self._reason is not None:
                continue
            with contextlib.suppress(Retry):
                await self.command(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick")

    # -- publishing -------------------------------------------------------------------------------------------------

    def _after_commit(self, committed: Committed) -> None:
        if committed.row is not None:
            self.publisher.add(committed.row, committed.row_bytes, committed.records)
        for topic, count in committed.consumed.items():
            self.metrics.consumed.labels(topic).inc(count)
        for topic, count in committed.repeated.items():
            self.metrics.repeated.labels(topic).inc(count)
        for topic, count in committed.dead_lettered.items():
            self.metrics.dead_lettered.labels(topic).inc(count)

    def _check_room(self) -> None:
        """Stop consuming before the disk is full: what is committed can still be published, and the store closed."""
        try:
            free = shutil.disk_usage(self.settings.data_dir).free
        except OSError:
            return  # a data folder that is away shows in the store
        wanted = self.settings.min_free_bytes
        self.metrics.free.set(free)
        self._no_room = (
            f"disk: {free} bytes are free, consuming goes on with {wanted} (EVENKEEL_MIN_FREE_BYTES): make room"
            if free < wanted
            else None
        )

    def _publish_soon(self) -> None:
        if not self.publisher.is_at_work:
            task = asyncio.create_task(self._guard(self.publisher.publish()))
            self._tasks = [t for t in self._tasks if not t.done()] + [task]

    async def _housekeep_for_ever(self) -> None:
        """Once a second: keep the lease, delete published rows left over, tell lag tools and gauges."""
        unanswered = 0
        while not await self._stopped_within(1.0):
            try:
                try:
                    await self.in_writer(self._batch.housekeep)
                except Fenced:
                    await self._stand_back()
                self._troubles.pop("housekeeping", None)
            except Retry as error:
                self._troubles["housekeeping"] = str(error)
            self._check_room()
            self.publisher.measure()
            self.metrics.pending.set(self._batch.merge_held)
            self.metrics.parked.set(self._batch.parked_records)
            with contextlib.suppress(Retry):
                lag: dict[str, int] = {}
                ends = self.bus.ends()
                if self._ahead:  # what is not fetched does not say where it ends
                    with contextlib.suppress(Retry, TimeoutError):
                        ends |= await asyncio.wait_for(self.bus.end_offsets(self._ahead), ASK_SECONDS)
                for tp, end in ends.items():
                    lag[tp[0]] = lag.get(tp[0], 0) + max(0, end - self._settled.get(tp, 0))
                for topic, behind in lag.items():
                    self.metrics.lag.labels(topic).set(behind)
                # An idle consumer does not notice that its broker is gone; this call does.
                unanswered = 0 if await self.bus.commit(self._settled) else unanswered + 1
                if unanswered < UNANSWERED:
                    self._troubles.pop("commit", None)
                else:
                    self._troubles["commit"] = "broker: it does not answer"

    @property
    def lease(self) -> tuple[str, int, int]:
        """(owner, epoch, new expiry) for the transaction at hand."""
        return self.instance, self._lease_epoch, self.clock.now_us() + LEASE_US


async def _cancelled(tasks: Sequence[asyncio.Task[None]]) -> None:
    """End tasks. asyncio.wait_for, deep in a call, may lose a cancellation (bpo-37658), so it is said until it is heard."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=FINISH_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
