"""Tables of ingest and the queries on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

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


class _State(msgspec.Struct, forbid_unknown_fields=False):
    """A stream as it is stored, but for its ids."""

    topic: str
    watermark_us: int | None = None
    largest_us: int | None = None
    marks: dict[int, int | None] = {}
    positions: dict[int, int] = {}
    counts: dict[str, int] = {}
    rejected: dict[str, int] = {}


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_State).decode

# One statement per batch and stream each: built once, because building costs more than running them.
_save_stream = sa.update(_streams).where(_streams.c.name == sa.bindparam("key")).values(state=sa.bindparam("new"))
_add_ids = sa.insert(_seen)
_forget_ids = sa.delete(_seen).where(_seen.c.stream == sa.bindparam("key"), _seen.c.number <= sa.bindparam("last"))


def add_declaration(connection: sa.Connection, offset: int, stream: str, declared: Declared) -> None:
    row = {"topic_offset": offset, "stream": stream, "spec": orjson.dumps(declared).decode()}
    connection.execute(sa.insert(_declarations), row)


def declarations(connection: sa.Connection) -> Iterator[tuple[int, str, Declared]]:
    """All of them, oldest first."""
    for row in connection.execute(sa.select(_declarations).order_by(_declarations.c.topic_offset)):
        yield row.topic_offset, row.stream, orjson.loads(row.spec)


def add_stream(connection: sa.Connection, name: str, stream: Stream) -> None:
    connection.execute(sa.insert(_streams), {"name": name, "state": _encode(_state(stream)).decode()})


def save_stream(connection: sa.Connection, name: str, stream: Stream) -> None:
    connection.execute(_save_stream, {"key": name, "new": _encode(_state(stream)).decode()})


def add_ids(connection: sa.Connection, name: str, batch: IdBatch) -> None:
    connection.execute(
        _add_ids, {"stream": name, "number": batch.number, "newest_us": batch.newest_us, "blob": batch.blob}
    )


def forget_ids(connection: sa.Connection, name: str, last: int) -> None:
    """Batches up to the number `last` are beyond the horizon."""
    connection.execute(_forget_ids, {"key": name, "last": last})


def streams(connection: sa.Connection) -> dict[str, Stream]:
    """Every stream with its ids, by name."""
    batches: dict[str, list[IdBatch]] = {}
    for row in connection.execute(sa.select(_seen).order_by(_seen.c.stream, _seen.c.number)):
        batches.setdefault(row.stream, []).append(IdBatch(row.number, row.newest_us, row.blob))
    return {name: _stream(state, SeenIds(batches.get(name, ()))) for name, state in _states(connection)}


def stream_states(connection: sa.Connection) -> dict[str, dict[str, Any]]:
    """Every stream as it is stored, for people."""
    return {name: msgspec.to_builtins(state, str_keys=True) for name, state in _states(connection)}


def _states(connection: sa.Connection) -> Iterator[tuple[str, _State]]:
    for row in connection.execute(sa.select(_streams).order_by(_streams.c.name)):
        yield row.name, _decode(row.state)


def _state(stream: Stream) -> _State:
    clock = stream.clock
    return _State(
        stream.topic,
        clock.watermark_us,
        stream.largest_us,
        clock.marks,
        stream.positions,
        stream.counts,
        stream.rejected,
    )


def _stream(state: _State, seen: SeenIds) -> Stream:
    clock = StreamClock(state.marks, state.watermark_us)
    counts, rejected = Counter(state.counts), Counter(state.rejected)
    return Stream(state.topic, clock, seen, state.largest_us, state.positions, counts, rejected)
