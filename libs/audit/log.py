"""The stored log: tables and named queries, for SQLite and PostgreSQL alike.

Records are appended in segments of packed leaves. A segment's `root` is the Merkle root once it is appended: it commits
to everything before, so the segments form a hash chain, and damage between two checkpoints can be told to the segment.

All appends go through one `AuditLog` inside the caller's transaction. What it holds in memory is compared with the
stored head first and read anew when they differ (a rollback, another writer), so a failed transaction needs no undoing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from evenkeel.contracts.envelope import Record, format_us
from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.checkpoint import Checkpoint, sign_checkpoint
from evenkeel.libs.audit.fingerprints import FingerprintIndex, fingerprint
from evenkeel.libs.audit.leaves import (
    LoggedRecord,
    decode_record,
    encode_record,
    event_id,
    id_fingerprint,
    leaf_event_id,
    pack,
    place_of,
    unpack,
)
from evenkeel.libs.errors import Stop
from evenkeel.libs.keys import SigningKey
from evenkeel.libs.store.sql import upsert

SEGMENT_LEAVES: Final = 1024
SEGMENT_BYTES: Final = 1 << 20
_SEGMENTS_KEPT: Final = 8

metadata: Final = sa.MetaData()
segments: Final = sa.Table(
    "log_segments",
    metadata,
    sa.Column("first", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("root", sa.LargeBinary, nullable=False),
    sa.Column("fingerprints", sa.LargeBinary, nullable=False),  # before `data`: reading it does not touch that
    sa.Column("data", sa.LargeBinary, nullable=False),
)
tiles: Final = sa.Table(
    "log_tiles",
    metadata,
    sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("hashes", sa.LargeBinary, nullable=False),
)
checkpoints: Final = sa.Table(
    "log_checkpoints",
    metadata,
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("note", sa.LargeBinary, nullable=False),
)
duplicates: Final = sa.Table(
    "log_duplicates",
    metadata,
    sa.Column("leaf", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("first", sa.BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Head:
    """The state of a log after its last segment."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Appended:
    """What one append did: leaves `first` … `first + count - 1`, those in `duplicates` with an event id seen before."""

    first: int
    count: int
    root: bytes
    duplicates: tuple[int, ...]


class SqlTiles:
    """The stored tiles of the Merkle tree, for roots and proofs; those read are kept for the object's life."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._seen: dict[merkle.TileName, bytes] = {}

    def tile(self, level: int, number: int) -> bytes:
        name = (level, number)
        if name not in self._seen:
            self._seen.update(stored_tiles(self._connection, [name]))
        return self._seen[name]


def stored_tiles(connection: sa.Connection, names: Iterable[merkle.TileName]) -> dict[merkle.TileName, bytes]:
    """Those of the named tiles that are stored, with one query a level."""
    numbers: dict[int, list[int]] = {}
    for level, number in names:
        numbers.setdefault(level, []).append(number)
    found = {}
    for level, wanted in numbers.items():
        query = sa.select(tiles.c.number, tiles.c.hashes).where(
            tiles.c.level == level, tiles.c.number.between(min(wanted), max(wanted))
        )
        found.update({(level, row.number): row.hashes for row in connection.execute(query)})
    return found


class Leaves:
    """Reads leaves by number and keeps the last few segments that it read, so make one per question."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self._segments: dict[tuple[int, int], list[bytes]] = {}

    def leaf(self, number: int) -> bytes:
        """The bytes of a leaf. Raises LookupError if the log is shorter."""
        for first, count in self._segments:
            if first <= number < first + count:
                return self._segments[first, count][number - first]
        query = (
            sa.select(segments.c.first, segments.c.data)
            .where(segments.c.first <= number)
            .order_by(segments.c.first.desc())
            .limit(1)
        )
        row = self._connection.execute(query).first()
        if row is None:
            raise LookupError(f"the log has no leaf {number}")
        first, leaves = int(row.first), unpack(row.data)
        if number >= first + len(leaves):
            raise LookupError(f"the log has no leaf {number}")
        if len(self._segments) == _SEGMENTS_KEPT:
            del self._segments[next(iter(self._segments))]
        self._segments[first, len(leaves)] = leaves
        return leaves[number - first]

    def record(self, number: int) -> LoggedRecord:
        return decode_record(self.leaf(number))


def head(connection: sa.Connection) -> Head:
    """Size and root of the log."""
    query = sa.select(segments.c.first, segments.c.count, segments.c.root).order_by(segments.c.first.desc()).limit(1)
    row = connection.execute(query).first()
    return Head(0, merkle.EMPTY_ROOT) if row is None else Head(row.first + row.count, row.root)


def latest_checkpoint(connection: sa.Connection) -> bytes | None:
    """The newest signed checkpoint, as a note."""
    query = sa.select(checkpoints.c.note).order_by(checkpoints.c.size.desc()).limit(1)
    note: bytes | None = connection.execute(query).scalar()
    return note


def checkpoint_notes(connection: sa.Connection) -> list[tuple[int, bytes]]:
    """Every checkpoint with the size it is stored under, oldest first."""
    query = sa.select(checkpoints.c.size, checkpoints.c.note).order_by(checkpoints.c.size)
    return [(row.size, row.note) for row in connection.execute(query)]


def put_checkpoint(connection: sa.Connection, size: int, note: bytes) -> None:
    """A checkpoint that was signed before this log was made again."""
    connection.execute(checkpoints.insert(), {"size": size, "note": note})


def duplicate_leaves(connection: sa.Connection) -> dict[int, int]:
    """The leaves whose event id occurs earlier, with the first leaf that has it."""
    return {row.leaf: row.first for row in connection.execute(sa.select(duplicates).order_by(duplicates.c.leaf))}


def duplicate_count(connection: sa.Connection) -> int:
    return int(connection.execute(sa.select(sa.func.count()).select_from(duplicates)).scalar_one())


Run = tuple[str, int, int]
"""(topic, partition, how many leaves one after another)."""


def add_runs(runs: list[Run], places: Iterable[tuple[str, int]]) -> None:
    """Add where further leaves come from.

    >>> runs = [("a", 0, 2)]
    >>> add_runs(runs, [("a", 0), ("b", 1)])
    >>> runs
    [('a', 0, 3), ('b', 1, 1)]
    """
    for topic, partition in places:
        if runs and runs[-1][:2] == (topic, partition):
            runs[-1] = (topic, partition, runs[-1][2] + 1)
        else:
            runs.append((topic, partition, 1))


def runs_between(connection: sa.Connection, first: int, after: int) -> list[Run]:
    """Where the leaves from `first` up to `after` came from, in their order."""
    runs: list[Run] = []
    if first >= after:
        return runs
    query = sa.select(segments.c.first, segments.c.data).where(segments.c.first + segments.c.count > first)
    for row in connection.execute(query.order_by(segments.c.first)):
        add_runs(runs, (place_of(leaf) for leaf in unpack(row.data)[max(0, first - row.first) :]))
    return runs


def first_occurrences(
    index: FingerprintIndex, first: int, fingerprints: bytes, leaf: Callable[[int], bytes]
) -> dict[int, int]:
    """Add the leaves from `first` on to the index; returns those whose event id occurs earlier, with its first leaf."""
    repeated = {}
    for number in index.add(fingerprints, first):
        wanted = leaf_event_id(leaf(number))
        if wanted is None:
            continue
        for earlier in index.find(fingerprint(wanted)):
            if earlier >= number:
                break
            if leaf_event_id(leaf(earlier)) == wanted:
                repeated[number] = earlier
                break
    return repeated


class AuditLog:
    """The log as its one writer sees it, and look-ups by event id for any thread.

    `append` and `sign` belong to one thread at a time and to the caller's transaction; `find` takes any connection.
    """

    def __init__(self) -> None:
        self._frontier = merkle.Frontier()
        self._root = merkle.EMPTY_ROOT
        self._index: FingerprintIndex | None = None

    def open(self, connection: sa.Connection) -> None:
        """Read the log's state, as the first append would. Raises Stop if the stored log is damaged."""
        stored = head(connection)
        if self._index is not None and stored == Head(self._frontier.size, self._root):
            return
        try:
            frontier = merkle.Frontier.load(SqlTiles(connection), stored.size)
        except KeyError as missing:
            raise Stop(f"the audit log lacks the tile {missing}: run `evenkeel verify`, then restore it") from missing
        if frontier.root() != stored.root:
            raise Stop("the audit log's tiles do not fit its last segment: run `evenkeel verify`, then restore it")
        self._frontier, self._root, self._index = frontier, stored.root, _load_index(connection)

    def append(self, connection: sa.Connection, records: Iterable[Record]) -> Appended:
        """Append the records in order. Raises Stop if the stored log is damaged."""
        self.open(connection)
        assert self._index is not None
        leaves, fingerprints = [], []
        for record in records:
            leaves.append(encode_record(record))
            fingerprints.append(id_fingerprint(record.headers))
        first = self._frontier.size
        if not leaves:
            return Appended(first, 0, self._root, ())
        rows = []
        grown: dict[merkle.TileName, bytes] = {}
        for start, end in _cuts(leaves):
            part = leaves[start:end]
            grown.update(self._frontier.append(b"".join([merkle.leaf_hash(leaf) for leaf in part])))
            self._root = self._frontier.root()
            rows.append(
                {
                    "first": first + start,
                    "count": len(part),
                    "root": self._root,
                    "fingerprints": b"".join(fingerprints[start:end]),
                    "data": pack(part),
                }
            )
        connection.execute(segments.insert(), rows)
        tile_rows = [{"level": level, "number": number, "hashes": hashes} for (level, number), hashes in grown.items()]
        upsert(connection, tiles, ("level", "number"), tile_rows)
        stored = Leaves(connection)
        repeated = first_occurrences(
            self._index,
            first,
            b"".join(fingerprints),
            lambda number: leaves[number - first] if number >= first else stored.leaf(number),
        )
        if repeated:
            connection.execute(duplicates.insert(), [{"leaf": leaf, "first": of} for leaf, of in repeated.items()])
        return Appended(first, len(leaves), self._root, tuple(repeated))

    def sign(
        self, connection: sa.Connection, key: SigningKey, origin: str, time_us: int
    ) -> tuple[Checkpoint, bytes] | None:
        """Sign the log as it stands and store the note; None if nothing was appended since the last checkpoint."""
        now = head(connection)
        signed = connection.execute(sa.select(sa.func.max(checkpoints.c.size))).scalar()
        if now.size <= (signed or 0):
            return None
        checkpoint = Checkpoint(origin, now.size, now.root, (f"time {format_us(time_us)}",))
        note = sign_checkpoint(checkpoint, key)
        connection.execute(checkpoints.insert(), {"size": now.size, "note": note})
        return checkpoint, note

    def find(self, connection: sa.Connection, identifier: str) -> list[tuple[int, LoggedRecord]]:
        """Every leaf that carries the event id, the first one first; more than one means logged duplicates."""
        index = self._index or _load_index(connection)
        wanted = identifier.encode()
        leaves = Leaves(connection)
        found = []
        for number in index.find(fingerprint(wanted)):
            try:
                record = leaves.record(number)
            except LookupError:  # appended in a transaction that this connection does not see
                continue
            if event_id(record.headers) == wanted:
                found.append((number, record))
        return found


def _load_index(connection: sa.Connection) -> FingerprintIndex:
    query = sa.select(segments.c.fingerprints).order_by(segments.c.first)
    return FingerprintIndex.load(connection.execute(query).scalars())


def _cuts(leaves: list[bytes]) -> Iterator[tuple[int, int]]:
    """Where segments begin and end: at most SEGMENT_LEAVES leaves and, beyond the first leaf, SEGMENT_BYTES bytes."""
    start = total = 0
    for position, leaf in enumerate(leaves):
        if position > start and (position - start == SEGMENT_LEAVES or total + len(leaf) > SEGMENT_BYTES):
            yield start, position
            start, total = position, 0
        total += len(leaf)
    yield start, len(leaves)
