"""The writer thread, and the event loop's one way to it.

Everything that touches the store or the context happens in one thread, one transaction after another. The loop asks for it
here, and gets back values that are its own; nothing else of the runtime holds the `Transactions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

from evenkeel.libs.bus.protocol import OutgoingRecord, TopicPartition
from evenkeel.libs.errors import Retry
from evenkeel.libs.runtime import outputs as outbox
from evenkeel.libs.runtime.attempt import Attempt
from evenkeel.libs.runtime.transaction import Committed, Kept, Loaded, Transactions
from evenkeel.libs.runtime.waiting import Persistence
from evenkeel.libs.service import Context, Reply
from evenkeel.libs.telemetry.metrics import Metrics

C = TypeVar("C", bound=Context)
T = TypeVar("T")


AddRow = Callable[[int, int, list[OutgoingRecord]], None]
"""Takes an outbox row, its bytes and its records; one that it knows already is no news (Publisher.add)."""


class Writer(Generic[C]):
    """Belongs to the event loop. What a transaction committed goes to the publisher and the counters here; after one that
    raised, whoever asked for it calls `load`, and knows how long to wait first."""

    def __init__(self, transactions: Transactions[C], add_row: AddRow, metrics: Metrics, persist: Persistence) -> None:
        self._transactions, self._add_row, self._metrics, self._persist = transactions, add_row, metrics, persist
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self.positions: dict[TopicPartition, int] = {}
        """Up to where each input was read and committed."""
        self.kept = Kept(0, 0, {})

    async def ask(self, work: Callable[[Transactions[C]], T]) -> T:
        """What `work` gives, in the writer thread. It may not keep what it is given."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, self._transactions)

    async def take_lease(self) -> None:
        """Be the instance that writes; wait while it is another one."""
        await self._persist("lease", self._take_lease)

    async def _take_lease(self) -> None:
        if not await self.ask(lambda transactions: transactions.lease.take()):
            raise Retry("another instance is active: standing by")

    async def load(self) -> Loaded:
        """Read positions, marks, what is held and caches again: at start, and after a transaction that did not commit."""
        return await self._load(Transactions.load)

    async def load_after_another(self) -> Loaded:
        """As `load`, after an instance that was active meanwhile."""
        return await self._load(Transactions.load_after_another)

    async def _load(self, load: Callable[[Transactions[C]], Loaded]) -> Loaded:
        loaded = await self._persist("store", lambda: self._ask_and_look(load))
        self.positions = dict(loaded.positions)
        for row, blob in loaded.outbox:
            self._add_row(row, len(blob), outbox.unpack(blob))
        return loaded

    async def _ask_and_look(self, work: Callable[[Transactions[C]], T]) -> T:
        """As `ask`, with what the transactions keep then."""
        answer, kept = await self.ask(lambda transactions: (work(transactions), transactions.kept()))
        self.kept = kept
        self._metrics.pending.set(kept.held)
        self._metrics.parked.set(kept.parked)
        return answer

    async def consume(self, attempt: Attempt) -> None:
        """Steps 2 to 8 over a batch."""
        self._take(await self._ask_and_look(lambda transactions: transactions.consume(attempt)))

    async def run(self, handler: Callable[[C], Reply[T]], shard: str) -> T:
        """One transaction of a command, a tick or a finished job; what it answers."""
        return await self.transact(lambda transactions: transactions.run(handler, shard))

    async def transact(self, work: Callable[[Transactions[C]], tuple[Committed, T]]) -> T:
        """Any other transaction; what it answers."""
        committed, answer = await self._ask_and_look(work)
        self._take(committed)
        return answer

    def _take(self, committed: Committed) -> None:
        self.positions |= committed.positions
        if committed.row is not None:
            self._add_row(committed.row, committed.row_bytes, committed.records)
        metrics = self._metrics
        for counter, counts in (
            (metrics.consumed, committed.consumed),
            (metrics.repeated, committed.repeated),
            (metrics.dead_lettered, committed.dead_lettered),
        ):
            for topic, count in counts.items():
                counter.labels(topic).inc(count)

    def close(self) -> None:
        self._thread.shutdown(wait=False)
