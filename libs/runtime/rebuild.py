"""A store that was lost, or restored from an older copy, made again from the topics.

1. A new store gets a new id. A seal for the former ids goes to each partition that the service writes to; what those
   stores say behind it (a process that did not die, a request that was under way) is ignored by every consumer.
2. What stands before the seals is read: it is published, and is not published again. Ids follow from causes, so the same
   is recognised. Of a stream with watermarks, all that is earlier than a partition's last watermark stands there already.
3. The service folds what it said itself (`Rebuild.fold`), then reads its inputs again from their beginnings: control
   topics first, in the order in which they were written, then the rest. It is not ready before all that its inputs held
   after the sealing is read.

A crash at any moment goes on where it was: the new store's note says how far things have come, and 2 is done again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from evenkeel.libs.bus.protocol import Bus, TopicPartition
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.errors import EvenkeelError, Stop
from evenkeel.libs.runtime.lease import LEASE_US
from evenkeel.libs.runtime.published import Found, OwnTopics, inputs_of, partitions_of
from evenkeel.libs.runtime.publishing import Publisher
from evenkeel.libs.runtime.waiting import Readiness
from evenkeel.libs.runtime.writer import Writer
from evenkeel.libs.service import Order, Output, Seal, Service
from evenkeel.libs.store.protocol import Store

log = structlog.get_logger(__name__)


class NotRebuildable(EvenkeelError):
    """The topics do not hold what the store would be made from; nothing was changed."""


class Note(msgspec.Struct):
    """How far a rebuild has come, kept in the new store."""

    former: list[str]
    """Ids of the stores whose place this one takes."""
    aside: str | None = None
    seal: int = 0
    """The first sequence of the latest seals; 0 before the first."""
    folded: bool = False
    ends: list[tuple[str, int, int]] = []
    """(topic, partition, end) of what is to be read before the store is whole."""
    done: bool = False


# -- what the command does before the service goes to work ------------------------------------------------------------


async def prepare(service: Service[Any], bus: Bus, writer: Writer[Any]) -> Note:
    """Put an empty store into the place of what is there, marked to be rebuilt; or go on with one that is so marked.

    Raises NotRebuildable, with nothing changed, if the topics no longer hold what it would be made from.
    """
    if service.rebuild is None:
        raise NotRebuildable(
            f"{service.name} cannot be rebuilt from the topics yet: restore its store from a copy made while it was stopped"
        )
    await bus.start()
    await _check_inputs(service, bus)
    former: list[str] = []
    is_empty = False
    try:
        note, store_id, holds_nothing = await writer.ask(lambda transactions: _look(transactions.store))
        if note is not None and not note.done:
            return note
        await _take_lease(service.name, writer)
        former, is_empty = [store_id], holds_nothing
    except Stop as error:
        log.warning("the store that is there cannot be read", error=str(error))
    return await writer.ask(lambda transactions: _begin_anew(transactions.store, former, is_empty=is_empty))


def _look(store: Store) -> tuple[Note | None, str, bool]:
    """How far a rebuild has come; the store's id; whether nothing happened in it yet."""
    store.open()
    state = store.read_state()
    note = None if state.rebuild is None else msgspec.json.decode(state.rebuild, type=Note)
    return note, store.store_id, not state.positions and not state.sequences


def _begin_anew(store: Store, former: list[str], *, is_empty: bool) -> Note:
    store.close()
    note = Note(former, None if is_empty else store.set_aside(datetime.now(UTC).strftime("%Y%m%dT%H%M%S")))
    store.open()
    with store.begin() as tx:
        tx.put_rebuild(msgspec.json.encode(note))
    return note


async def _check_inputs(service: Service[Any], bus: Bus) -> None:
    wanted = partitions_of(topic for topic in inputs_of(service) if not topic.compacted)
    begins = await bus.beginning_offsets(wanted)
    gone = [f"{topic}/{partition} up to {begin - 1}" for (topic, partition), begin in sorted(begins.items()) if begin]
    if gone:
        raise NotRebuildable(
            f"{service.name} cannot be rebuilt: retention has deleted records that it would be made from "
            f"({', '.join(gone)}). Nothing was changed. Restore its store from a copy that had read these"
        )


async def _take_lease(service: str, writer: Writer[Any]) -> None:
    """The lease of a process that died elsewhere, or came with a copy, runs out; that of one at work does not."""
    deadline = time.monotonic() + 1.2 * LEASE_US / SECOND_US
    while not await writer.ask(lambda transactions: transactions.lease.take()):
        if time.monotonic() > deadline:
            raise NotRebuildable(f"{service} is running: stop it first")
        await asyncio.sleep(0.2)


# -- what the service does at its start -------------------------------------------------------------------------------


class Rebuilding:
    """One store on its way. Belongs to the event loop."""

    def __init__(
        self,
        service: Service[Any],
        bus: Bus,
        writer: Writer[Any],
        publisher: Publisher,
        readiness: Readiness,
        note: Note,
        finished: Callable[[], None],
    ) -> None:
        """`finished` is called when the store is whole."""
        assert service.rebuild is not None
        self._how, self._service, self._bus, self._writer = service.rebuild, service, bus, writer
        self._publisher, self._readiness, self._finished = publisher, readiness, finished
        self._own = OwnTopics(service, bus)
        self._found = Found()
        self.note = note

    async def begin(self) -> None:
        """Seal, read what stands before the seals, fold what was told."""
        store_id = await self._writer.ask(lambda transactions: transactions.store.store_id)
        if not self.note.seal:
            await self._seal(self._replaced(await self._own.before_seals(set(), 0)), store_id)
        while True:
            self._found = await self._own.before_seals({store_id}, self.note.seal)
            unknown = self._replaced(self._found) - set(self.note.former) - {store_id}
            if not unknown:
                break
            await self._seal(unknown, store_id)
        await self._writer.ask(lambda transactions: transactions.begin_rebuild(self._found, self._found.events))
        if not self.note.folded:
            ends = await self._bus.end_offsets(partitions_of(inputs_of(self._service)))
            self.note = msgspec.structs.replace(
                self.note, folded=True, ends=[(*tp, end) for tp, end in sorted(ends.items())]
            )
            await self._step(self._fold, "rebuild")
        log.info("what was published is known", events=self._found.count, stores=len(self.note.former))

    def _replaced(self, found: Found) -> set[str]:
        """The stores that this one takes the place of: never those of other replicas at work."""
        return found.stores if self._service.one_store else set()

    def _fold(self, ctx: Any) -> Sequence[Output]:
        self._how.fold(self._found.events, ctx)
        return ()

    async def _seal(self, stores: Iterable[str], store_id: str) -> None:
        former = sorted({*self.note.former, *stores} - {store_id})
        first = 1 + await self._writer.ask(lambda transactions: transactions.sequences.get("seal", 0))
        self.note = msgspec.structs.replace(self.note, former=former, seal=first)
        await self._step(lambda ctx: [Seal(former)], "seal")
        await self._publisher.publish()

    async def _step(self, handler: Callable[[Any], Sequence[Output]], shard: str) -> None:
        note = self.note
        await self._writer.transact(lambda transactions: (transactions.rebuild_step(handler, note, shard), None))

    # -- reading again ------------------------------------------------------------------------------------------------

    def order_left(self, positions: Mapping[TopicPartition, int]) -> Iterator[tuple[str, int, int]]:
        """What is left of the order in which the service wants to read."""
        return left_of(self._how.order(self._found.events), positions)

    async def go_on(self, *, may_finish: bool) -> bool:
        """Say how far it is; end it, once all that was there is read, if it may end. Whether it has."""
        positions = self._writer.positions
        read = sum(min(positions.get((topic, partition), 0), end) for topic, partition, end in self.note.ends)
        whole = sum(end for _, _, end in self.note.ends)
        self._readiness.say(f"rebuilding: {read * 100 // max(whole, 1)} % of {whole:,} records read")
        if not may_finish or read < whole:
            return False
        await self._finish()
        return True

    async def _finish(self) -> None:
        """The last transaction: from here on the store is whole."""
        note = self.note = msgspec.structs.replace(self.note, done=True)
        handler: Callable[[Any], Sequence[Output]] = lambda ctx: tuple(self._how.finished(ctx))  # noqa: E731
        await self._writer.transact(lambda transactions: (transactions.end_rebuild(handler, note), None))
        await self._publisher.publish()
        self._finished()


def left_of(order: Order, positions: Mapping[TopicPartition, int]) -> Iterator[tuple[str, int, int]]:
    """The runs of an order, without what was read up to these positions."""
    read = dict(positions)
    for topic, partition, count in order:
        before = min(count, read.get((topic, partition), 0))
        if before:
            read[topic, partition] -= before
        if count > before:
            yield topic, partition, count - before
