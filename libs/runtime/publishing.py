"""Step 9 of the consume loop: what is committed goes out, lowest row first, and each acknowledgement is awaited."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol

from evenkeel.libs.bus.protocol import Bus, OutgoingRecord
from evenkeel.libs.errors import Retry
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.store.protocol import Transaction
from evenkeel.libs.telemetry.metrics import Metrics

PUBLISH_GROUP: Final = 2_000
"""Most records of several outbox rows that are published together."""


class Persist(Protocol):
    """Runs a step until it succeeds, whatever infrastructure is away."""

    async def __call__(self, what: str, step: Callable[[], Awaitable[None]]) -> None: ...


class Acknowledged:
    """Outbox rows whose records are all acknowledged, on their way from the event loop, which adds them, to the writer
    thread, which deletes them: the one object that both change. Each call on the deque is atomic."""

    def __init__(self) -> None:
        self._rows: deque[int] = deque()
        self._deleting: list[int] = []

    def add(self, row: int) -> None:
        """On the event loop."""
        self._rows.append(row)

    def delete(self, tx: Transaction) -> None:
        """In the writer thread, as everything below: exactly the rows seen here go with this transaction."""
        self._deleting = list(self._rows)
        if self._deleting:
            tx.remove_outbox(self._deleting)

    def deleted(self) -> None:
        """The transaction is committed."""
        if self._deleting:
            failpoint("publish.deleted")
        for _ in self._deleting:
            self._rows.popleft()
        self._deleting = []

    def clear(self) -> None:
        """Nobody publishes meanwhile (`Publisher.anew`)."""
        self._rows.clear()


class Publisher:
    """The outbox rows that are committed and not acknowledged yet. Belongs to its runtime's event loop."""

    def __init__(
        self, bus: Bus, metrics: Metrics, limit_bytes: int, persist: Persist, acknowledged: Acknowledged
    ) -> None:
        self._bus, self._metrics, self._persist, self._acknowledged = bus, metrics, persist, acknowledged
        self._limit_bytes = limit_bytes
        self._rows: deque[tuple[int, int, list[OutgoingRecord]]] = deque()
        """(row, its bytes, its records), lowest first."""
        self._bytes = 0
        self._highest_row = 0
        self._at_work = asyncio.Lock()
        self.count = 0
        """Records acknowledged so far."""

    @property
    def rows(self) -> int:
        return len(self._rows)

    @property
    def is_at_work(self) -> bool:
        return self._at_work.locked()

    def add(self, row: int, size: int, records: list[OutgoingRecord]) -> None:
        """Queue a row. Rows only grow: one that is not above all we ever queued is queued, published or being deleted."""
        if row > self._highest_row:
            self._rows.append((row, size, records))
            self._bytes += size
            self._highest_row = row

    def check_room(self) -> None:
        """Raises Retry if too much waits for the broker. What is consumed waits for its publishing anyway; this bounds what
        comes from people and clients."""
        waiting, limit = self._bytes, self._limit_bytes
        if waiting > limit:
            raise Retry(
                f"outbox: {waiting} bytes wait for the broker, the limit is {limit} (EVENKEEL_MAX_OUTBOX_BYTES)"
            )

    def measure(self) -> None:
        """Tell the gauges."""
        self._metrics.outbox.set(len(self._rows))
        self._metrics.outbox_bytes.set(self._bytes)

    async def publish(self) -> None:
        """Until nothing is left; on any error again from the lowest row. Rows that wait go together: a client's answers are
        committed in small groups, and a request to the broker costs as much as many records."""
        async with self._at_work:
            while self._rows:
                rows, records = self._next()
                await self._persist("publish", lambda: self._bus.publish(records))
                failpoint("publish.sent")
                for _ in range(rows):
                    row, size, _ = self._rows.popleft()
                    self._bytes -= size
                    self._acknowledged.add(row)
                self.count += len(records)
                for topic, count in Counter(record.topic for record in records).items():
                    self._metrics.published.labels(topic).inc(count)

    def _next(self) -> tuple[int, list[OutgoingRecord]]:
        """How many of the lowest rows go together, and their records."""
        rows, together = 0, list[OutgoingRecord]()
        for _, _, records in self._rows:
            if rows and len(together) + len(records) > PUBLISH_GROUP:
                break
            together += records
            rows += 1
        return rows, together

    @asynccontextmanager
    async def anew(self) -> AsyncIterator[None]:
        """Nobody publishes meanwhile, and what waited is forgotten: the store says what waits now."""
        async with self._at_work:
            self._rows.clear()
            self._bytes = self._highest_row = 0
            yield
