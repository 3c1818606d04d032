"""A service's store in LMDB, for serving: no SQL engine is imported, and a read costs a microsecond.

One environment per service, one named database per kind of state, all in one transaction. `sync=True`: a commit is on
the disk when it returns. Keys are packed tuples; one that is too long for LMDB is replaced by its SHA-256, which is why
every value repeats what its key says.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from evenkeel.libs.errors import Fenced, Retry, Stop
from evenkeel.libs.store.protocol import MarkKey, ParkedRecord, RuntimeState, TopicPartition, Transaction

FORMAT: Final = 1
MAP_BYTES: Final = 16 * 2**30
"""Address space, not disk: the file grows with what is in it."""

_META, _POSITIONS, _MARKS, _SEQUENCES = "runtime_meta", "runtime_positions", "runtime_marks", "runtime_sequences"
_WATERMARKS, _HELD, _OUTBOX, _LEASE = "runtime_watermarks", "runtime_held", "runtime_outbox", "runtime_lease"
_PARKED = "runtime_parked"
_RUNTIME: Final = (_META, _POSITIONS, _MARKS, _SEQUENCES, _WATERMARKS, _HELD, _OUTBOX, _LEASE, _PARKED)
_MAX_KEY_BYTES: Final = 511
_LAST_ROW: Final = b"last_outbox_row"
_SERVICE: Final = b"service"
_REBUILD: Final = b"rebuild"

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder(list[Any]).decode

_BUGS: Final = (
    lmdb.BadDbiError,
    lmdb.BadRslotError,
    lmdb.BadTxnError,
    lmdb.BadValsizeError,
    lmdb.DbsFullError,
    lmdb.IncompatibleError,
    lmdb.InvalidParameterError,
    lmdb.KeyExistsError,
    lmdb.NotFoundError,
    lmdb.ReadonlyError,
)
_DAMAGED: Final = (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError)


class LmdbConnection:
    """The engine's handle on one transaction, for a service's queries: databases by name, bytes by key."""

    __slots__ = ("_databases", "_transaction")

    def __init__(self, transaction: Any, databases: Mapping[str, Any]) -> None:
        self._transaction, self._databases = transaction, databases

    def get(self, database: str, key: bytes) -> bytes | None:
        value: bytes | None = self._transaction.get(key, db=self._databases[database])
        return value

    def put(self, database: str, key: bytes, value: bytes) -> None:
        self._transaction.put(key, value, db=self._databases[database])

    def put_many(self, database: str, items: Iterable[tuple[bytes, bytes]]) -> None:
        """One cursor for all; sorted items touch fewer pages."""
        with self._transaction.cursor(self._databases[database]) as cursor:
            cursor.putmulti(items)

    def delete(self, database: str, key: bytes) -> bool:
        """Whether there was such a key."""
        gone: bool = self._transaction.delete(key, db=self._databases[database])
        return gone

    def scan(self, database: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Keys that start with `prefix`, in order. What is found must not be deleted while scanning."""
        with self._transaction.cursor(self._databases[database]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor:
                if not key.startswith(prefix):
                    return
                yield key, value

    def scan_from(self, database: str, start: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Keys from `start` on, in order."""
        with self._transaction.cursor(self._databases[database]) as cursor:
            if cursor.set_range(start):
                yield from cursor


class LmdbTransaction:
    """See evenkeel.libs.store.protocol.Transaction."""

    def __init__(self, connection: LmdbConnection) -> None:
        self.connection = connection

    def move_positions(self, moves: Mapping[TopicPartition, tuple[int | None, int]]) -> None:
        for (topic, partition), (lo, hi) in moves.items():
            key = _key(topic, partition)
            found = self.connection.get(_POSITIONS, key)
            position = None if found is None else _unpack(found)[2]
            if position != lo:
                raise Fenced(f"position of {topic}/{partition} is {position}, not {lo}: another instance consumes it")
            self.connection.put(_POSITIONS, key, _pack((topic, partition, hi)))

    def put_marks(self, marks: Mapping[MarkKey, int]) -> None:
        for key, sequence in marks.items():
            self.connection.put(_MARKS, _key(*key), _pack((*key, sequence)))

    def put_sequences(self, sequences: Mapping[str, int]) -> None:
        for shard, last in sequences.items():
            self.connection.put(_SEQUENCES, _key(shard), _pack((shard, last)))

    def put_watermarks(self, watermarks: Mapping[tuple[str, int, str], int]) -> None:
        for key, value in watermarks.items():
            self.connection.put(_WATERMARKS, _key(*key), _pack((*key, value)))

    def add_held(self, row: int, blob: bytes) -> None:
        self.connection.put(_HELD, row.to_bytes(8), blob)

    def remove_held(self, last: int) -> None:
        for row in [row for row, _ in self.connection.scan(_HELD) if row <= last.to_bytes(8)]:
            self.connection.delete(_HELD, row)

    def add_parked(self, records: Iterable[ParkedRecord]) -> None:
        for record in records:
            key = (record.topic, record.partition, record.offset)
            self.connection.put(_PARKED, _key(*key), _pack((*key, record.blob)))

    def remove_parked(self, records: Iterable[tuple[str, int, int]]) -> None:
        for key in records:
            self.connection.delete(_PARKED, _key(*key))

    def add_outbox(self, blob: bytes) -> int:
        last = self.connection.get(_META, _LAST_ROW)
        row = 1 if last is None else int.from_bytes(last) + 1
        number = row.to_bytes(8)
        self.connection.put(_OUTBOX, number, blob)
        self.connection.put(_META, _LAST_ROW, number)
        return row

    def remove_outbox(self, rows: Iterable[int]) -> None:
        for row in rows:
            self.connection.delete(_OUTBOX, row.to_bytes(8))

    def put_rebuild(self, note: bytes) -> None:
        self.connection.put(_META, _REBUILD, note)

    def hold_lease(self, owner: str, epoch: int, expires_us: int) -> None:
        found = self.connection.get(_LEASE, _SERVICE)
        if found is None or _unpack(found)[:2] != [owner, epoch]:
            raise Fenced("the lease is another instance's now: this one stands back")
        self.connection.put(_LEASE, _SERVICE, _pack((owner, epoch, expires_us)))


class LmdbStore:
    """See evenkeel.libs.store.protocol.Store. A folder may be opened once in a process, and by several processes."""

    def __init__(self, folder: Path, databases: Iterable[str] = (), map_bytes: int = MAP_BYTES) -> None:
        self._folder, self._names, self._map_bytes = folder, (*_RUNTIME, *databases), map_bytes
        self._environment: Any = None
        self._is_open = False
        self._databases: dict[str, Any] = {}
        self._store_id = ""

    @property
    def store_id(self) -> str:
        return self._store_id

    def open(self) -> None:
        self._is_open = True
        with self.begin() as tx:
            meta = tx.connection.get(_META, b"format")
            if meta is not None and int(meta) > FORMAT:
                raise Stop(f"{self._folder.name} was written by a newer release (format {int(meta)}): start that one")
            store_id = tx.connection.get(_META, b"store_id") or uuid.uuid4().hex.encode()
            tx.connection.put(_META, b"format", b"%d" % FORMAT)
            tx.connection.put(_META, b"store_id", store_id)
        self._store_id = store_id.decode()

    def _opened(self) -> Any:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Retry(f"store: the folder cannot be made: {error.strerror}") from error
        environment = lmdb.open(str(self._folder), map_size=self._map_bytes, max_dbs=len(self._names), max_readers=64)
        environment.reader_check()
        self._databases = {name: environment.open_db(name.encode()) for name in self._names}
        return environment

    def read_state(self) -> RuntimeState:
        with self.reading() as c:
            return RuntimeState(
                positions={(topic, partition): at for topic, partition, at in _values(c, _POSITIONS)},
                marks={(store, shard, topic, partition): n for store, shard, topic, partition, n in _values(c, _MARKS)},
                sequences=dict(_values(c, _SEQUENCES)),
                watermarks={(topic, partition, stream): us for topic, partition, stream, us in _values(c, _WATERMARKS)},
                held=[(int.from_bytes(row), blob) for row, blob in c.scan(_HELD)],
                outbox=[(int.from_bytes(row), blob) for row, blob in c.scan(_OUTBOX)],
                parked=[ParkedRecord(*fields) for fields in _values(c, _PARKED)],
                rebuild=c.get(_META, _REBUILD),
            )

    def take_lease(self, owner: str, now_us: int, ttl_us: int, is_gone: Callable[[str], bool]) -> int | None:
        with self.begin() as tx:
            found = tx.connection.get(_LEASE, _SERVICE)
            holder, epoch, expires_us = (owner, 0, 0) if found is None else _unpack(found)
            if holder != owner and expires_us > now_us and not is_gone(holder):
                return None
            tx.connection.put(_LEASE, _SERVICE, _pack((owner, epoch + 1, now_us + ttl_us)))
            taken: int = epoch + 1
            return taken

    def release_lease(self, owner: str, epoch: int) -> None:
        with self.begin() as tx:
            found = tx.connection.get(_LEASE, _SERVICE)
            if found is not None and _unpack(found)[:2] == [owner, epoch]:
                tx.connection.put(_LEASE, _SERVICE, _pack((owner, epoch, 0)))

    @contextmanager
    def begin(self) -> Iterator[LmdbTransaction]:
        try:
            with _infrastructure(), self._live().begin(write=True) as transaction:
                yield LmdbTransaction(LmdbConnection(transaction, self._databases))
        except Retry as error:
            if isinstance(error.__cause__, lmdb.PanicError):
                self._leave()  # LMDB wants the environment opened anew after a failed write of its own pages
            raise

    @contextmanager
    def reading(self) -> Iterator[LmdbConnection]:
        with _infrastructure(), self._live().begin() as transaction:
            yield LmdbConnection(transaction, self._databases)

    def _live(self) -> Any:
        if not self._is_open:
            raise Retry(f"store: {self._folder.name} is closed")
        if self._environment is None:
            self._environment = self._opened()
        return self._environment

    def set_aside(self, stamp: str) -> str | None:
        if not self._folder.exists():
            return None
        aside = self._folder.with_name(f"{self._folder.name}.before-{stamp}")
        self._folder.rename(aside)
        return str(aside)

    def close(self) -> None:
        self._is_open = False
        self._leave()

    def _leave(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            environment.close()


def _key(*parts: Any) -> bytes:
    packed = _pack(parts)
    return packed if len(packed) <= _MAX_KEY_BYTES else hashlib.sha256(packed).digest()


def _values(connection: LmdbConnection, database: str) -> Iterator[list[Any]]:
    return (_unpack(value) for _, value in connection.scan(database))


@contextmanager
def _infrastructure() -> Iterator[None]:
    """A disk or map that is full or away is waited for; a damaged file needs somebody; a wrong call is a bug."""
    try:
        yield
    except _BUGS:
        raise
    except _DAMAGED as error:
        raise Stop(f"the store is damaged ({error}): `evenkeel rebuild serving` makes a new one") from error
    except lmdb.MapFullError as error:
        raise Retry("store: the LMDB map is full: give it more address space, or let the outbox drain") from error
    except lmdb.Error as error:
        raise Retry(f"store: {type(error).__name__} {error}") from error


_: type[Transaction] = LmdbTransaction
