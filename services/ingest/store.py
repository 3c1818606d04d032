"""Tables of ingest and the queries on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
import orjson
import sqlalchemy as sa

from evenkeel.contracts.registry import Declared
from evenkeel.libs.store.schema import read_migrations
from evenkeel.services.ingest import migrations
from evenkeel.services.ingest.domain.identities import IdBatch, SeenIds
from evenkeel.services.ingest.domain.stream import Stream
from evenkeel.services.ingest.domain.watermark import StreamClock

tables: Final = sa.MetaData()

_declarations = sa.Table(
    "declarations",
    tables,
    sa.Column("topic_offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("stream", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
)
_streams = sa.Table(
    "streams",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
)
_seen = sa.Table(
    "seen_ids",
    tables,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("newest_us", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)

MIGRATIONS: Final = read_migrations(migrations)


class StreamState(msgspec.Struct, frozen=True):
    """A stream as it is stored, but for its ids."""

    topic: str
    watermark_us: int | None = None
    largest_us: int | None = None
    marks: dict[int, int | None] = {}
    positions: dict[int, int] = {}
    counts: dict[str, int] = {}
    rejected: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class DeclaredStream:
    """A declaration, and its offset in `registry.stream-declared`."""

    offset: int
    stream: str
    declared: Declared


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StreamState).decode

# One statement per batch and stream each: built once, because building costs more than running them.
_save_stream = sa.update(_streams).where(_streams.c.name == sa.bindparam("key")).values(state=sa.bindparam("new"))
_add_ids = sa.insert(_seen)
_forget_ids = sa.delete(_seen).where(_seen.c.stream == sa.bindparam("key"), _seen.c.number <= sa.bindparam("last"))


class IngestStore:
    """The named queries, on the connection of the transaction at hand."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def add_declaration(self, offset: int, stream: str, declared: Declared) -> None:
        row = {"topic_offset": offset, "stream": stream, "spec": orjson.dumps(declared).decode()}
        self._connection.execute(sa.insert(_declarations), row)

    def declarations(self) -> Iterator[DeclaredStream]:
        """All of them, oldest first."""
        for row in self._connection.execute(sa.select(_declarations).order_by(_declarations.c.topic_offset)):
            yield DeclaredStream(row.topic_offset, row.stream, orjson.loads(row.spec))

    def add_stream(self, name: str, stream: Stream) -> None:
        self._connection.execute(sa.insert(_streams), {"name": name, "state": _encode(_state(stream)).decode()})

    def save_stream(self, name: str, stream: Stream) -> None:
        self._connection.execute(_save_stream, {"key": name, "new": _encode(_state(stream)).decode()})

    def add_ids(self, name: str, batch: IdBatch) -> None:
        row = {"stream": name, "number": batch.number, "newest_us": batch.newest_us, "blob": batch.blob}
        self._connection.execute(_add_ids, row)

    def forget_ids(self, name: str, last: int) -> None:
        """Batches up to the number `last` are beyond the horizon."""
        self._connection.execute(_forget_ids, {"key": name, "last": last})

    def streams(self) -> dict[str, Stream]:
        """Every stream with its ids, by name."""
        batches: dict[str, list[IdBatch]] = {}
        for row in self._connection.execute(sa.select(_seen).order_by(_seen.c.stream, _seen.c.number)):
            batches.setdefault(row.stream, []).append(IdBatch(row.number, row.newest_us, row.blob))
        states = self.stream_states()
        return {name: _stream(state, SeenIds(batches.get(name, ()))) for name, state in states.items()}

    def stream_states(self) -> dict[str, StreamState]:
        """Every stream as it is stored, by name."""
        found = self._connection.execute(sa.select(_streams).order_by(_streams.c.name))
        return {row.name: _decode(row.state) for row in found}


def _state(stream: Stream) -> StreamState:
    clock = stream.clock
    return StreamState(
        stream.topic,
        clock.watermark_us,
        stream.largest_us,
        clock.marks,
        stream.positions,
        stream.counts,
        stream.rejected,
    )


def _stream(state: StreamState, seen: SeenIds) -> Stream:
    clock = StreamClock(state.marks, state.watermark_us)
    counts, rejected = Counter(state.counts), Counter(state.rejected)
    return Stream(state.topic, clock, seen, state.largest_us, state.positions, counts, rejected)
