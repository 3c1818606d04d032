"""A service's store in SQL: SQLite (WAL) by default, PostgreSQL by URL with one schema per service.

Synchronous SQLAlchemy Core on one connection, used by the one writer thread. The runtime's tables and each service's own
come from alembic migrations, so that an old data folder opens with a new release.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError

from evenkeel.libs.errors import Fenced, Retry, Stop
from evenkeel.libs.store import migrations
from evenkeel.libs.store.format import FORMAT, check_format
from evenkeel.libs.store.protocol import MarkKey, ParkedRecord, RuntimeState, TopicPartition, Transaction
from evenkeel.libs.store.schema import Migration, migrate, read_migrations

R = TypeVar("R")

tables: Final = sa.MetaData()
"""The runtime's own, beside those of the service."""
_PRAGMAS: Final = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "wal_autocheckpoint=2000",
    "journal_size_limit=16777216",  # one large transaction would make the log's file as large for good
    "temp_store=MEMORY",
)
_DAMAGED: Final = ("XX001", "XX002")
"""PostgreSQL's states for data and indexes that are corrupted."""

_meta = sa.Table(
    "runtime_meta", tables, sa.Column("key", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)
_positions = sa.Table(
    "runtime_positions",
    tables,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("next", sa.BigInteger, nullable=False),
)
_marks = sa.Table(
    "runtime_marks",
    tables,
    sa.Column("producer", sa.LargeBinary, primary_key=True),
    sa.Column("shard", sa.LargeBinary, primary_key=True),
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)
_sequences = sa.Table(
    "runtime_sequences",
    tables,
    sa.Column("shard", sa.Text, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)
_watermarks = sa.Table(
    "runtime_watermarks",
    tables,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("watermark_us", sa.BigInteger, nullable=False),
)


_held = sa.Table(
    "runtime_held",
    tables,
    sa.Column("row", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
_parked = sa.Table(
    "runtime_parked",
    tables,
    sa.Column("topic", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
_outbox = sa.Table(
    "runtime_outbox",
    tables,
    sa.Column("row", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
_lease = sa.Table(
    "runtime_lease",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=False),
)

_LEASE: Final = "service"
_REBUILD: Final = "rebuild"
FORMAT_KEY: Final = "format"

RUNTIME_MIGRATIONS: Final = read_migrations(migrations)


def upsert(connection: sa.Connection, table: sa.Table, keys: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Insert the rows, or replace the ones with the same key; both engines have the same syntax for it."""
    if rows:
        connection.execute(_upsert(connection.dialect.name, table, keys), rows)


def read_all(
    connection: sa.Connection, query: sa.Select[Any], kind: type[R], values: Mapping[str, object] | None = None
) -> list[R]:
    """The rows of a query as dataclasses, whose fields are called like its columns."""
    return [kind(**row) for row in connection.execute(query, values).mappings()]


def read_first(
    connection: sa.Connection, query: sa.Select[Any], kind: type[R], values: Mapping[str, object] | None = None
) -> R | None:
    """The first row of a query, as `read_all` gives it; None if there is none."""
    row = connection.execute(query, values).mappings().first()
    return None if row is None else kind(**row)


@lru_cache(maxsize=256)
def _upsert(dialect: str, table: sa.Table, keys: tuple[str, ...]) -> sa.Insert:
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]
    statement = insert(table)
    values = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    if not values:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(index_elements=list(keys), set_=values)


# Statements of every transaction are built once: building one costs more than running it.
_move_position: Final = (
    _positions.update()
    .where(
        _positions.c.topic == sa.bindparam("t"),
        _positions.c.partition == sa.bindparam("p"),
        _positions.c.next == sa.bindparam("lo"),
    )
    .values(next=sa.bindparam("hi"))
)
_remove_held: Final = _held.delete().where(_held.c.row <= sa.bindparam("last"))
_extend_lease: Final = (
    _lease.update()
    .where(
        _lease.c.name == _LEASE,
        _lease.c.owner == sa.bindparam("held_by"),
        _lease.c.epoch == sa.bindparam("held_epoch"),
    )
    .values(expires_us=sa.bindparam("until"))
)


class SqlTransaction:
    """See evenkeel.libs.store.protocol.Transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection

    def move_positions(self, moves: Mapping[TopicPartition, tuple[int | None, int]]) -> None:
        for (topic, partition), (lo, hi) in moves.items():
            if lo is None:
                found = self.connection.execute(
                    sa.select(_positions.c.next).where(_positions.c.topic == topic, _positions.c.partition == partition)
                ).first()
                if found is not None:
                    raise Fenced(
                        f"position of {topic}/{partition} is {found[0]}, expected none: another instance consumes it"
                    )
                self.connection.execute(_positions.insert(), {"topic": topic, "partition": partition, "next": hi})
                continue
            moved = self.connection.execute(_move_position, {"t": topic, "p": partition, "lo": lo, "hi": hi})
            if moved.rowcount != 1:
                raise Fenced(f"position of {topic}/{partition} is no longer {lo}: another instance consumes it")

    def put_marks(self, marks: Mapping[MarkKey, int]) -> None:
        rows = [
            {"producer": producer, "shard": shard, "topic": topic, "partition": partition, "sequence": sequence}
            for (producer, shard, topic, partition), sequence in marks.items()
        ]
        upsert(self.connection, _marks, ("producer", "shard", "topic", "partition"), rows)

    def put_sequences(self, sequences: Mapping[str, int]) -> None:
        upsert(self.connection, _sequences, ("shard",), [{"shard": s, "last": n} for s, n in sequences.items()])

    def put_watermarks(self, watermarks: Mapping[tuple[str, int, str], int]) -> None:
        rows = [
            {"topic": topic, "partition": partition, "stream": stream, "watermark_us": value}
            for (topic, partition, stream), value in watermarks.items()
        ]
        upsert(self.connection, _watermarks, ("topic", "partition", "stream"), rows)

    def add_held(self, row: int, blob: bytes) -> None:
        self.connection.execute(_held.insert(), {"row": row, "blob": blob})

    def remove_held(self, last: int) -> None:
        self.connection.execute(_remove_held, {"last": last})

    def add_parked(self, records: Iterable[ParkedRecord]) -> None:
        rows = [{"topic": r.topic, "partition": r.partition, "offset": r.offset, "blob": r.blob} for r in records]
        if rows:
            self.connection.execute(_parked.insert(), rows)

    def remove_parked(self, records: Iterable[tuple[str, int, int]]) -> None:
        rows = [{"t": topic, "p": partition, "o": offset} for topic, partition, offset in records]
        if rows:
            c = _parked.c
            match = sa.and_(
                c.topic == sa.bindparam("t"), c.partition == sa.bindparam("p"), c.offset == sa.bindparam("o")
            )
            self.connection.execute(_parked.delete().where(match), rows)

    def add_outbox(self, blob: bytes) -> int:
        key = self.connection.execute(_outbox.insert().values(blob=blob)).inserted_primary_key
        assert key is not None
        return int(key[0])

    def remove_outbox(self, rows: Iterable[int]) -> None:
        numbers = [{"r": row} for row in rows]
        if numbers:
            self.connection.execute(_outbox.delete().where(_outbox.c.row == sa.bindparam("r")), numbers)

    def put_rebuild(self, note: bytes) -> None:
        upsert(self.connection, _meta, ("key",), [{"key": _REBUILD, "value": note.decode()}])

    def hold_lease(self, owner: str, epoch: int, expires_us: int) -> None:
        held = self.connection.execute(_extend_lease, {"held_by": owner, "held_epoch": epoch, "until": expires_us})
        if held.rowcount != 1:
            raise Fenced("the lease is another instance's now: this one stands back")


class SqlStore:
    """See evenkeel.libs.store.protocol.Store."""

    def __init__(self, url: str, service: str, migrations: Sequence[Migration]) -> None:
        self._service, self._migrations = service, migrations
        self._engine = _engine(url, service)
        self._connection: sa.Connection | None = None
        self._store_id = ""

    @property
    def store_id(self) -> str:
        return self._store_id

    @property
    def connection(self) -> sa.Connection:
        if self._connection is None or self._connection.closed:
            with self._infrastructure():
                self._connection = self._engine.connect()
        return self._connection

    def open(self) -> None:
        with self._infrastructure():
            self._migrate()
        with self.begin() as tx:
            row = tx.connection.execute(sa.select(_meta.c.value).where(_meta.c.key == "store_id")).first()
            self._store_id = row[0] if row else uuid.uuid4().hex
            if row is None:
                own = {"store_id": self._store_id, FORMAT_KEY: str(FORMAT)}
                tx.connection.execute(_meta.insert(), [{"key": key, "value": value} for key, value in own.items()])

    def _migrate(self) -> None:
        connection = self.connection
        if connection.dialect.name == "postgresql":
            # A role without the right to create schemas may not even say "if not exists".
            if not sa.inspect(connection).has_schema(self._service):
                connection.execute(sa.schema.CreateSchema(self._service, if_not_exists=True))
            connection.commit()
        self._claim(connection)
        migrate(connection, "runtime", RUNTIME_MIGRATIONS)
        migrate(connection, self._service, self._migrations)

    def _claim(self, connection: sa.Connection) -> None:
        """Raises Stop for a store of another format: a database outside the data folder has no number beside it."""
        with connection.begin():
            if not sa.inspect(connection).has_table(_meta.name):
                return
            found = {row.key: row.value for row in connection.execute(sa.select(_meta))}
            if "store_id" in found:  # else its first start did not come that far
                another = "another database (EVENKEEL_DATABASE_URL)"
                check_format(f"the store of {self._service}", found.get(FORMAT_KEY, "1"), another)

    def read_state(self) -> RuntimeState:
        with self.begin() as tx:
            c = tx.connection
            note = c.execute(sa.select(_meta.c.value).where(_meta.c.key == _REBUILD)).scalar()
            return RuntimeState(
                positions={(r.topic, r.partition): r.next for r in c.execute(sa.select(_positions))},
                marks={(r.producer, r.shard, r.topic, r.partition): r.sequence for r in c.execute(sa.select(_marks))},
                sequences={r.shard: r.last for r in c.execute(sa.select(_sequences))},
                watermarks={
                    (r.topic, r.partition, r.stream): r.watermark_us for r in c.execute(sa.select(_watermarks))
                },
                held=[(r.row, r.blob) for r in c.execute(sa.select(_held).order_by(_held.c.row))],
                outbox=[(r.row, r.blob) for r in c.execute(sa.select(_outbox).order_by(_outbox.c.row))],
                parked=[ParkedRecord(r.topic, r.partition, r.offset, r.blob) for r in c.execute(sa.select(_parked))],
                rebuild=None if note is None else note.encode(),
            )

    def take_lease(self, owner: str, now_us: int, ttl_us: int, is_gone: Callable[[str], bool]) -> int | None:
        with self.begin() as tx:
            row = tx.connection.execute(sa.select(_lease).where(_lease.c.name == _LEASE).with_for_update()).first()
            if row is not None and row.owner != owner and row.expires_us > now_us and not is_gone(row.owner):
                return None
            epoch = 1 if row is None else row.epoch + 1
            values = {"name": _LEASE, "owner": owner, "epoch": epoch, "expires_us": now_us + ttl_us}
            upsert(tx.connection, _lease, ("name",), [values])
            return epoch

    def release_lease(self, owner: str, epoch: int) -> None:
        with self.begin() as tx:
            tx.connection.execute(
                _lease.update().where(_lease.c.owner == owner, _lease.c.epoch == epoch).values(expires_us=0)
            )

    @contextmanager
    def begin(self) -> Iterator[SqlTransaction]:
        with self._infrastructure(), self.connection.begin():
            yield SqlTransaction(self.connection)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        with (
            self._infrastructure(),
            self._engine.connect().execution_options(evenkeel_reading=True) as connection,
            connection.begin(),
        ):
            yield connection

    def set_aside(self, stamp: str) -> str | None:
        if self._engine.dialect.name == "sqlite":
            return _set_file_aside(self._engine.url.database, stamp)
        aside = f"{self._service}_before_{stamp}"
        try:
            with self._infrastructure(), self._engine.begin() as connection:
                if not sa.inspect(connection).has_schema(self._service):
                    return None
                connection.execute(sa.text(f'ALTER SCHEMA "{self._service}" RENAME TO "{aside}"'))
        except sa.exc.ProgrammingError as error:
            raise Stop(
                f"the schema {self._service} cannot be renamed ({error.orig}): let the database's administrator rename it "
                f"and make an empty one that this role owns, then run the same command again"
            ) from error
        return f"schema {aside}"

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()

    @contextmanager
    def _infrastructure(self) -> Iterator[None]:
        """A database that is locked, full or away is waited for; a damaged one needs somebody; a wrong statement is a bug."""
        try:
            yield
        except DBAPIError as error:
            if _is_damage(error):
                found, cure = str(error.orig).partition("\n")[0], f"run `evenkeel rebuild {self._service}`"
                raise Stop(f"the store of {self._service} is damaged ({found}): {cure}") from error
            if error.connection_invalidated or isinstance(error, (OperationalError, sa.exc.InterfaceError)):
                raise Retry(f"database: {error.orig}") from error
            raise


def _is_damage(error: DBAPIError) -> bool:
    """Whether a database says that what it has stored cannot be read."""
    if type(error) is DatabaseError:  # SQLite; its subclasses are about a statement, this is about the file
        return True
    return getattr(error.orig, "sqlstate", None) in _DAMAGED


def _set_file_aside(database: str | None, stamp: str) -> str | None:
    if not database or not Path(database).exists():
        return None
    path, aside = Path(database), Path(f"{database}.before-{stamp}")
    for suffix in ("-wal", "-shm"):
        companion = Path(database + suffix)
        if companion.exists():
            companion.rename(f"{aside}{suffix}")
    path.rename(aside)
    return str(aside)


def _engine(url: str, service: str) -> sa.Engine:
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(
            parsed, connect_args={"check_same_thread": False, "timeout": 5.0, "isolation_level": None}
        )

        @sa.event.listens_for(engine, "connect")
        def _configure(connection: Any, _: Any) -> None:
            for pragma in _PRAGMAS:
                connection.execute("PRAGMA " + pragma)

        @sa.event.listens_for(engine, "begin")
        def _begin(connection: sa.Connection) -> None:
            reading = connection.get_execution_options().get("evenkeel_reading", False)
            connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

        return engine
    return sa.create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        pool_pre_ping=True,
        connect_args={"options": f"-csearch_path={service} -cidle_in_transaction_session_timeout=60000"},
    )


_: type[Transaction] = SqlTransaction
