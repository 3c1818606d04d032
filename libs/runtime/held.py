"""What an event-time merge holds, as the store keeps it: a log with one entry a transaction.

An entry says which records were added and which of the former ones are gone. Entries go from the oldest on, once all that
they added is gone; when most of the log is of the past, what is held is written anew behind it. So a transaction costs two
statements, however many records it holds back or releases, and the log stays in proportion to what is held.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from evenkeel.contracts.envelope import Record
from evenkeel.libs.store.protocol import HeldEntry, Transaction

Where = tuple[str, int, int]
"""(topic, partition, offset)."""

SLACK: Final = 10_000
"""So many records of the past are no reason to write the log anew."""
ENTRY_RECORDS: Final = 2_000
"""Most records of an entry that is written anew."""


class StoredRecord(msgspec.Struct, array_like=True):
    """A record as it is kept on disk; see evenkeel.contracts.envelope.Record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class _Entry(msgspec.Struct, array_like=True):
    first: int
    """Number of the first record added; the others count on from there."""
    added: list[StoredRecord]
    gone: list[int]


@dataclass(slots=True)
class _Row:
    """One entry of the log, as far as memory needs it."""

    number: int
    size: int
    """Records added and gone."""
    held: int
    """Records added that are still held."""


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(_Entry).decode
_decode_record: Final = msgspec.msgpack.Decoder(StoredRecord).decode


def _fields(record: Record) -> tuple[Any, ...]:
    topic, partition, offset = record.topic, record.partition, record.offset
    return topic, partition, offset, record.timestamp, record.key, record.value, record.headers


def encode_record(record: Record) -> bytes:
    return _encode(_fields(record))


def decode_record(blob: bytes) -> StoredRecord:
    return _decode_record(blob)


class HeldRecords:
    """Made from the log as it is stored; after a transaction that failed, made anew. Not thread-safe."""

    def __init__(self, entries: Iterable[HeldEntry] = ()) -> None:
        self._held: dict[Where, tuple[int, _Row, Record]] = {}
        self._log: deque[_Row] = deque()
        self._log_size = 0
        self._next_number = 0
        self._added: list[Record] = []
        self._gone: list[int] = []
        places: dict[int, Where] = {}
        for number, blob in entries:
            entry = _decode(blob)
            row = self._append(number, len(entry.added) + len(entry.gone))
            for index, record in enumerate(entry.added, entry.first):
                places[index] = place = (record.topic, record.partition, record.offset)
                self._hold(index, row, place, record)
            for index in entry.gone:
                if index in places:  # or its own entry is not there any more
                    self._let_go(places.pop(index))

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Record]:
        """In the order in which they were added."""
        return iter([record for _, _, record in self._held.values()])

    def __getitem__(self, place: Where) -> Record:
        return self._held[place][2]

    def add(self, records: Sequence[Record]) -> None:
        self._added += records

    def discard(self, places: Iterable[Where]) -> None:
        """Of those that are not held, nothing is to be forgotten."""
        for place in places:
            if place in self._held:
                self._gone.append(self._let_go(place))

    def write(self, tx: Transaction) -> None:
        """Store what was added and discarded since."""
        added, gone = self._added, self._gone
        if not added and not gone:
            return
        self._added, self._gone = [], []
        if added or self._held:
            self._write_entry(tx, added, gone)
        if self._log_size > 2 * len(self._held) + SLACK:
            self._write_anew(tx)
        self._forget_oldest(tx)

    def _write_entry(self, tx: Transaction, added: Sequence[Record], gone: list[int]) -> None:
        first, number = self._next_number, self._log[-1].number + 1 if self._log else 1
        tx.add_held(number, _encode((first, [_fields(record) for record in added], gone)))
        row = self._append(number, len(added) + len(gone))
        for index, record in enumerate(added, first):
            self._hold(index, row, (record.topic, record.partition, record.offset), record)

    def _write_anew(self, tx: Transaction) -> None:
        records = list(self)
        for place in list(self._held):
            self._let_go(place)
        for first in range(0, len(records), ENTRY_RECORDS):
            self._write_entry(tx, records[first : first + ENTRY_RECORDS], [])

    def _forget_oldest(self, tx: Transaction) -> None:
        last = None
        while self._log and not self._log[0].held:
            last = self._log.popleft()
            self._log_size -= last.size
        if last is not None:
            tx.remove_held(last.number)

    def _append(self, number: int, size: int) -> _Row:
        row = _Row(number, size, 0)
        self._log.append(row)
        self._log_size += size
        return row

    def _hold(self, index: int, row: _Row, place: Where, record: Record) -> None:
        self._held[place] = (index, row, record)
        self._next_number = index + 1
        row.held += 1

    def _let_go(self, place: Where) -> int:
        index, row, _ = self._held.pop(place)
        row.held -= 1
        return index
