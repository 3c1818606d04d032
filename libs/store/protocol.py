"""What the runtime asks of a store. It knows no SQL engine; `sql.py` and `lmdb.py` implement this.

A store belongs to one service. `store_id` is random and made with the store: with a shard and a sequence it identifies
every event that the service derives, so a store that is lost or restored must get a new one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

TopicPartition = tuple[str, int]
MarkKey = tuple[bytes, bytes, str, int]
"""(producer store, shard, input topic, input partition)."""


HeldEntry = tuple[int, bytes]
"""(row, what evenkeel.libs.runtime.held says in it)."""


@dataclass(frozen=True, slots=True)
class ParkedRecord:
    """A record that is parked behind an event-time merge, as it was read."""

    topic: str
    partition: int
    offset: int
    blob: bytes


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """What the runtime keeps in a store, read at start and after a failed transaction."""

    positions: dict[TopicPartition, int]
    marks: dict[MarkKey, int]
    sequences: dict[str, int]
    watermarks: dict[tuple[str, int, str], int]
    """(topic, partition, stream) → microseconds."""
    held: list[HeldEntry]
    """Lowest first."""
    outbox: list[tuple[int, bytes]]
    """Lowest first."""
    parked: list[ParkedRecord] = field(default_factory=list)
    rebuild: bytes | None = None
    """What evenkeel.libs.runtime.rebuild notes in a store that took another one's place."""


class Transaction(Protocol):
    """One local transaction. `connection` is the engine's own handle, for the service's queries."""

    @property
    def connection(self) -> Any: ...

    def move_positions(self, moves: Mapping[TopicPartition, tuple[int | None, int]]) -> None:
        """Compare-and-set each position from `lo` (None: not there yet) to `hi`; raises Fenced if one has moved."""

    def put_marks(self, marks: Mapping[MarkKey, int]) -> None: ...

    def put_sequences(self, sequences: Mapping[str, int]) -> None: ...

    def put_watermarks(self, watermarks: Mapping[tuple[str, int, str], int]) -> None: ...

    def add_held(self, row: int, blob: bytes) -> None:
        """An entry of what the merge holds. Its row is above all that are there."""

    def remove_held(self, last: int) -> None:
        """All rows up to and with this one."""

    def add_parked(self, records: Iterable[ParkedRecord]) -> None: ...

    def remove_parked(self, records: Iterable[tuple[str, int, int]]) -> None: ...

    def add_outbox(self, blob: bytes) -> int:
        """Returns the row's number; rows are published in this order."""

    def remove_outbox(self, rows: Iterable[int]) -> None: ...

    def put_rebuild(self, note: bytes) -> None: ...

    def hold_lease(self, owner: str, epoch: int, expires_us: int) -> None:
        """Extend the lease; raises Fenced if it is somebody else's now."""


class Store(Protocol):
    """A service's durable state. All calls come from the one writer thread."""

    @property
    def store_id(self) -> str: ...

    def open(self) -> None:
        """Create or migrate what is missing."""

    def read_state(self) -> RuntimeState: ...

    def take_lease(self, owner: str, now_us: int, ttl_us: int, is_gone: Callable[[str], bool]) -> int | None:
        """The new epoch, or None while an owner that is not known to be gone holds an unexpired lease."""

    def release_lease(self, owner: str, epoch: int) -> None: ...

    def begin(self) -> AbstractContextManager[Transaction]:
        """A transaction that commits on leaving and rolls back on any exception; infrastructure faults become Retry."""

    def reading(self) -> AbstractContextManager[Any]:
        """The engine's handle on a snapshot, for queries from another thread than the writer's."""

    def set_aside(self, stamp: str) -> str | None:
        """Move what is stored out of the way, so that `open` makes a new store; says where it is, None if nothing was
        there. The store must be closed."""

    def close(self) -> None: ...
