"""A log on disk with a few hundred records, as governance writes it."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from evenkeel.contracts.envelope import Record, encode
from evenkeel.libs.audit import log
from evenkeel.libs.audit.leaves import LoggedRecord
from evenkeel.libs.keys import SigningKey, signing_key
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.governance.store import MIGRATIONS
from tests.model_life import Consumed

ORIGIN = "evenkeel/governance/test"


@dataclass
class LogOnDisk:
    store: SqlStore
    url: str
    path: Path
    key: SigningKey
    audit: log.AuditLog = field(default_factory=log.AuditLog)
    next_offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    random: random.Random = field(default_factory=lambda: random.Random(7))

    origin: str = ORIGIN

    def record(
        self, topic: str = "feature.vector-computed.v1", partition: int = 0, event_id: str | None = None
    ) -> Consumed:
        """The next record of the partition, with a new id unless one is given."""
        offset = self.next_offsets.get((topic, partition), 0)
        self.next_offsets[topic, partition] = offset + 1
        headers = encode(
            id=event_id or str(uuid.UUID(int=self.random.getrandbits(128), version=4)),
            source=b"/evenkeel/feature/0f3c",
            type=b"io.evenkeel." + topic.encode(),
            time_us=offset,
            recorded=b"2026-11-20T12:00:00Z",
            sequence=offset,
            shard=b"flights",
            correlation_id="c",
        )
        value = b'{"values":[%d]}' % self.random.getrandbits(64)
        return Consumed(topic, partition, offset, 1_700_000_000_000 + offset, b"flight-delay", value, headers)

    @staticmethod
    def raw_record(
        topic: str, partition: int, offset: int, headers: Sequence[tuple[str, Any]] = (), value: bytes | None = None
    ) -> Consumed:
        """A record with just these headers."""
        return Consumed(topic, partition, offset, -1, None, value, headers)

    @staticmethod
    def changed(record: LoggedRecord, value: bytes | None) -> Consumed:
        """A logged record with another value."""
        return Consumed(
            record.topic, record.partition, record.offset, record.timestamp, record.key, value, record.headers
        )

    def append(self, records: Iterable[Record]) -> log.Appended:
        with self.store.begin() as tx:
            return self.audit.append(tx.connection, records)

    def fill(self, count: int) -> log.Appended:
        return self.append([self.record(partition=number % 3) for number in range(count)])

    def sign(self, time_us: int = 0) -> bytes | None:
        with self.store.begin() as tx:
            signed = self.audit.sign(tx.connection, self.key, ORIGIN, time_us)
        return None if signed is None else signed[1]

    def execute(self, statement: sa.Executable, *values: Any) -> sa.CursorResult[Any]:
        with self.store.begin() as tx:
            return tx.connection.execute(statement, *values)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[LogOnDisk]:
    path = tmp_path / "governance.db"
    store = SqlStore(f"sqlite:///{path}", "governance", MIGRATIONS)
    store.open()
    yield LogOnDisk(store, f"sqlite:///{path}", path, signing_key(tmp_path / "keys", "governance"))
    store.close()
