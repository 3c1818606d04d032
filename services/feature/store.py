"""Tables and named queries of the feature service.

The windows are kept as a journal and a snapshot: one row per batch with what was folded, and every so often the changed
entities and waiting vectors in one transaction that also empties the journal. Loading is snapshot, then journal.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
import sqlalchemy as sa

from evenkeel.contracts.registry import ModelDeclared, StreamDeclared
from evenkeel.libs.store.schema import read_migrations
from evenkeel.libs.store.sql import upsert
from evenkeel.services.feature import migrations
from evenkeel.services.feature.domain.rows import (
    Folded,
    TrainingRow,
    Waiting,
    pack_folded,
    pack_rows,
    unpack_folded,
    unpack_rows,
)

tables: Final = sa.MetaData()
_number: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")

streams: Final = sa.Table(
    "streams",
    tables,
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
)
models: Final = sa.Table(
    "models",
    tables,
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
)
views: Final = sa.Table(
    "views",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("declaration", sa.BigInteger, nullable=False),
    sa.Column("cut_us", sa.BigInteger, nullable=False),  # labels before it are staged or committed
    sa.Column("staged", sa.BigInteger, nullable=False),  # sequence of the newest staged commit
    sa.Column("overwrite", sa.Boolean, nullable=False),  # the next commit begins the table anew
)
progress: Final = sa.Table(
    "progress",
    tables,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("row", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
journal: Final = sa.Table(
    "journal",
    tables,
    sa.Column("row", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("records", sa.Integer, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Column("progress", sa.LargeBinary, nullable=False),
)
entities: Final = sa.Table(
    "entities",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("entity", sa.Text, primary_key=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
waiting: Final = sa.Table(
    "waiting",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("event_id", sa.Text, primary_key=True),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
)
chunks: Final = sa.Table(
    "chunks",
    tables,
    sa.Column("chunk", _number, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("sequence", sa.BigInteger),  # of the commit; null while it is open
    sa.Column("rows", sa.Integer, nullable=False),
    sa.Column("first_label_us", sa.BigInteger, nullable=False),
    sa.Column("first_event_us", sa.BigInteger, nullable=False),
    sa.Column("last_event_us", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
commits: Final = sa.Table(
    "commits",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("view_version", sa.Text, nullable=False),
    sa.Column("declaration", sa.BigInteger, nullable=False),
    sa.Column("features", sa.LargeBinary, nullable=False),
    sa.Column("overwrite", sa.Boolean, nullable=False),
    sa.Column("added", sa.BigInteger, nullable=False),
    sa.Column("added_first_us", sa.BigInteger),  # event times of the added rows
    sa.Column("added_last_us", sa.BigInteger),
    sa.Column("first_event_us", sa.BigInteger, nullable=False),
    sa.Column("last_event_us", sa.BigInteger, nullable=False),
    sa.Column("cut_us", sa.BigInteger, nullable=False),
    sa.Column("kept_from_us", sa.BigInteger),  # the cut up to which former rows have left; null while none has
    sa.Column("offsets", sa.LargeBinary, nullable=False),
    sa.Column("cause_id", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger),  # of the Delta table; null until it is announced
    sa.Column("rows", sa.BigInteger),
)
erased: Final = sa.Table(
    "erased",
    tables,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
)

MIGRATIONS: Final = read_migrations(migrations)

Offsets = dict[str, dict[str, int]]


class ViewProgress(msgspec.Struct, array_like=True):
    """What a view has seen, as of a journal row."""

    watermark_us: int
    vectors: int
    late: int
    labelled: int
    expired: int
    unmatched: int
    waiting: int
    entities: int


class Progress(msgspec.Struct, array_like=True):
    """The latest record folded, the offsets below which records were folded, and each view's progress."""

    event_id: str
    offsets: Offsets
    views: dict[str, ViewProgress]


_add_journal: Final = journal.insert()
_read_model: Final = ModelDeclared.model_validate_json
_encode: Final = msgspec.msgpack.Encoder().encode
_decode_progress: Final = msgspec.msgpack.Decoder(Progress).decode
_decode_offsets: Final = msgspec.msgpack.Decoder(Offsets).decode
_decode_names: Final = msgspec.msgpack.Decoder(list[str]).decode
_SNAPSHOT: Final = "snapshot"
_FLUSHED: Final = "flushed"


@dataclass(frozen=True, slots=True)
class ViewRow:
    model: str
    declaration: int
    cut_us: int
    staged: int
    overwrite: bool


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit of a training table: staged, and announced once it has a version.

    `added` rows are its own; the event times and `rows` are those of all rows in its version. `kept_from_us`: rows whose
    label was known before have left the table.
    """

    model: str
    sequence: int
    view_version: str
    declaration: int
    features: tuple[str, ...]
    overwrite: bool
    added: int
    first_event_us: int
    last_event_us: int
    cut_us: int
    offsets: Offsets
    cause_id: str
    kept_from_us: int | None = None
    version: int | None = None
    rows: int | None = None


class FeatureStore:
    """Named queries on the connection of one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    # -- declarations -------------------------------------------------------------------------------------------------

    def put_stream(self, offset: int, payload: StreamDeclared) -> None:
        upsert(self._connection, streams, ("offset",), [{"offset": offset, "payload": payload.model_dump_json()}])

    def put_model(self, offset: int, payload: ModelDeclared) -> None:
        upsert(self._connection, models, ("offset",), [{"offset": offset, "payload": payload.model_dump_json()}])

    def newest_stream(self) -> int:
        """Offset of the newest stream declaration; -1 if there is none."""
        newest = self._connection.execute(sa.select(sa.func.max(streams.c.offset))).scalar()
        return -1 if newest is None else int(newest)

    def model(self, offset: int) -> ModelDeclared:
        text = self._connection.execute(sa.select(models.c.payload).where(models.c.offset == offset)).scalar_one()
        return _read_model(text)

    def models(self) -> list[tuple[int, ModelDeclared]]:
        """Every declaration with its offset, oldest first."""
        found = self._connection.execute(sa.select(models.c.offset, models.c.payload).order_by(models.c.offset))
        return [(row.offset, _read_model(row.payload)) for row in found]

    def put_erased(self, stream: str, subject: str) -> None:
        upsert(self._connection, erased, ("stream", "subject"), [{"stream": stream, "subject": subject}])

    # -- views --------------------------------------------------------------------------------------------------------

    def views(self) -> list[ViewRow]:
        found = self._connection.execute(sa.select(views).order_by(views.c.model))
        return [ViewRow(**row) for row in found.mappings()]

    def view(self, model: str) -> ViewRow | None:
        row = self._connection.execute(sa.select(views).where(views.c.model == model)).mappings().first()
        return None if row is None else ViewRow(**row)

    def put_view(self, view: ViewRow) -> None:
        upsert(self._connection, views, ("model",), [asdict(view)])

    def begin_view(self, view: ViewRow, *, keep_windows: bool) -> None:
        """A view whose features or label changed: nothing of the former one is kept but its announced commits, and its
        windows if asked for."""
        for table in (waiting, chunks) if keep_windows else (entities, waiting, chunks):
            self._connection.execute(table.delete().where(table.c.model == view.model))
        self._connection.execute(commits.delete().where(commits.c.model == view.model, commits.c.version.is_(None)))
        self.put_view(view)

    # -- journal and snapshot -----------------------------------------------------------------------------------------

    def add_journal(self, row: int, records: Sequence[Folded], seen: Progress) -> int:
        """Returns its size in bytes."""
        blob = pack_folded(records)
        values = {"row": row, "records": len(records), "blob": blob, "progress": _encode(seen)}
        self._connection.execute(_add_journal, values)
        return len(blob)

    def read_journal(self) -> Iterator[tuple[int, list[Folded], int]]:
        """(row, records, bytes), oldest first."""
        for row in self._connection.execute(sa.select(journal.c.row, journal.c.blob).order_by(journal.c.row)):
            yield row.row, unpack_folded(row.blob), len(row.blob)

    def progress(self) -> tuple[int, Progress] | None:
        """The newest journal row and what had been seen then; None before the first."""
        newest = sa.select(journal.c.row, journal.c.progress).order_by(journal.c.row.desc()).limit(1)
        found = self._connection.execute(newest).first()
        if found is None:
            found = self._connection.execute(
                sa.select(progress.c.row, progress.c.blob).where(progress.c.key == _SNAPSHOT)
            ).first()
        return None if found is None else (int(found[0]), _decode_progress(found[1]))

    def put_snapshot(self, row: int, seen: Progress) -> None:
        """Everything up to this journal row is in `entities`, `waiting` and `chunks`: the journal is emptied."""
        self._put_progress(_SNAPSHOT, row, _encode(seen))
        self._connection.execute(journal.delete())

    def put_entities(self, model: str, items: Iterable[tuple[str, bytes | None]]) -> None:
        changed, gone = [], []
        for entity, blob in items:
            if blob is None:
                gone.append({"m": model, "e": entity})
            else:
                changed.append({"model": model, "entity": entity, "blob": blob})
        upsert(self._connection, entities, ("model", "entity"), changed)
        if gone:
            c = entities.c
            match = sa.and_(c.model == sa.bindparam("m"), c.entity == sa.bindparam("e"))
            self._connection.execute(entities.delete().where(match), gone)

    def entities(self, model: str) -> Iterator[tuple[str, bytes]]:
        for row in self._connection.execute(
            sa.select(entities.c.entity, entities.c.blob).where(entities.c.model == model)
        ):
            yield row.entity, row.blob

    def change_waiting(self, model: str, gone: Iterable[str], added: Iterable[tuple[str, Waiting]]) -> None:
        ids = [{"m": model, "e": event_id} for event_id in gone]
        if ids:
            c = waiting.c
            match = sa.and_(c.model == sa.bindparam("m"), c.event_id == sa.bindparam("e"))
            self._connection.execute(waiting.delete().where(match), ids)
        rows = [
            {"model": model, "event_id": event_id, "time_us": one.time_us, "vector": one.values.tobytes()}
            for event_id, one in added
        ]
        if rows:
            self._connection.execute(waiting.insert(), rows)

    def waiting(self, model: str) -> Iterator[tuple[str, Waiting]]:
        for row in self._connection.execute(sa.select(waiting).where(waiting.c.model == model)):
            yield row.event_id, Waiting(row.time_us, array("d", row.vector))

    def put_flushed(self, row: int) -> None:
        """View changes up to this journal row are published."""
        self._put_progress(_FLUSHED, row, b"")

    def flushed(self) -> int:
        found = self._connection.execute(sa.select(progress.c.row).where(progress.c.key == _FLUSHED)).scalar()
        return 0 if found is None else int(found)

    def _put_progress(self, key: str, row: int, blob: bytes) -> None:
        upsert(self._connection, progress, ("key",), [{"key": key, "row": row, "blob": blob}])

    # -- training tables ----------------------------------------------------------------------------------------------

    def add_chunk(self, model: str, rows: Sequence[TrainingRow]) -> None:
        """Rows of the open commit."""
        if not rows:
            return
        values = {
            "model": model,
            "rows": len(rows),
            "first_label_us": rows[0].label_time_us,
            "first_event_us": min(row.event_time_us for row in rows),
            "last_event_us": max(row.event_time_us for row in rows),
            "blob": pack_rows(rows),
        }
        self._connection.execute(chunks.insert(), values)

    def open_label_us(self, model: str) -> int | None:
        """Label time of the first stored row of the open commit."""
        c = chunks.c
        first = sa.select(sa.func.min(c.first_label_us)).where(c.model == model, c.sequence.is_(None))
        return self._connection.execute(first).scalar()

    def stage(
        self,
        view: ViewRow,
        view_version: str,
        features: Sequence[str],
        cut_us: int,
        seen: Progress,
        oldest_us: int | None,
    ) -> None:
        """Close the open commit of a view: its chunks wait for the table from here on.

        Commits whose cut is not later than `oldest_us` leave the table with it; None: just those that have left already.
        """
        c, sequence = chunks.c, view.staged + 1
        mine = sa.and_(c.model == view.model, c.sequence.is_(None))
        summary = sa.select(sa.func.sum(c.rows), sa.func.min(c.first_event_us), sa.func.max(c.last_event_us))
        added, added_first_us, added_last_us = self._connection.execute(summary.where(mine)).one()
        first_event_us, last_event_us, kept_from_us = added_first_us, added_last_us, None
        if not view.overwrite:
            kept_from_us = self._kept_from_us(view.model, view.staged, oldest_us)
            whole = sa.select(sa.func.min(commits.c.added_first_us), sa.func.max(commits.c.added_last_us))
            kept = self._in_table(view.model, view.staged, kept_from_us)
            earlier_us, later_us = self._connection.execute(whole.where(kept)).one()
            if earlier_us is not None:
                first_event_us, last_event_us = min(added_first_us, earlier_us), max(added_last_us, later_us)
        self._connection.execute(chunks.update().where(mine).values(sequence=sequence))
        values = {
            "model": view.model,
            "sequence": sequence,
            "view_version": view_version,
            "declaration": view.declaration,
            "features": _encode(features),
            "overwrite": view.overwrite,
            "added": added,
            "added_first_us": added_first_us,
            "added_last_us": added_last_us,
            "first_event_us": first_event_us,
            "last_event_us": last_event_us,
            "cut_us": cut_us,
            "kept_from_us": kept_from_us,
            "offsets": _encode(seen.offsets),
            "cause_id": seen.event_id,
        }
        self._connection.execute(commits.insert(), values)
        moved = views.update().where(views.c.model == view.model)
        self._connection.execute(moved.values(cut_us=cut_us, staged=sequence, overwrite=False))

    def staged(self) -> list[Commit]:
        """Commits that are not announced yet, in the order in which they must be written."""
        query = sa.select(commits).where(commits.c.version.is_(None)).order_by(commits.c.model, commits.c.sequence)
        return [_commit(row) for row in self._connection.execute(query).mappings()]

    def commit(self, model: str, sequence: int) -> Commit | None:
        c = commits.c
        query = sa.select(commits).where(c.model == model, c.sequence == sequence)
        row = self._connection.execute(query).mappings().first()
        return None if row is None else _commit(row)

    def announced(self, model: str, limit: int) -> list[Commit]:
        """The newest announced commits, newest first."""
        c = commits.c
        query = sa.select(commits).where(c.model == model, c.version.is_not(None))
        found = self._connection.execute(query.order_by(c.sequence.desc()).limit(limit))
        return [_commit(row) for row in found.mappings()]

    def rows_of(self, model: str, sequence: int) -> list[TrainingRow]:
        """The rows of a staged commit, in the order in which their labels came."""
        c = chunks.c
        query = sa.select(c.blob).where(c.model == model, c.sequence == sequence).order_by(c.chunk)
        return [row for (blob,) in self._connection.execute(query) for row in unpack_rows(blob)]

    def announce(self, commit: Commit, version: int) -> int:
        """The table has this commit: forget its staging. Returns the rows of the table."""
        c = commits.c
        kept = self._in_table(commit.model, commit.sequence, commit.kept_from_us)
        rows = int(self._connection.execute(sa.select(sa.func.sum(c.added)).where(kept)).scalar_one())
        mine = sa.and_(c.model == commit.model, c.sequence == commit.sequence)
        self._connection.execute(commits.update().where(mine).values(version=version, rows=rows))
        d = chunks.c
        self._connection.execute(chunks.delete().where(d.model == commit.model, d.sequence == commit.sequence))
        return rows

    def _in_table(self, model: str, sequence: int, kept_from_us: int | None = None) -> sa.ColumnElement[bool]:
        """The commits whose rows the table has with this commit: since it was begun, and not left since."""
        c = commits.c
        begun = sa.select(sa.func.max(c.sequence)).where(c.model == model, c.sequence <= sequence, c.overwrite)
        since = sa.and_(c.model == model, c.sequence <= sequence, c.sequence >= begun.scalar_subquery())
        return since if kept_from_us is None else sa.and_(since, c.cut_us > kept_from_us)

    def _kept_from_us(self, model: str, sequence: int, oldest_us: int | None) -> int | None:
        """The cut up to which commits are no longer in the table: what has left it, and what is not later than `oldest_us`."""
        c = commits.c
        left: sa.ColumnElement[int | None] = c.kept_from_us
        if oldest_us is not None:
            left = sa.case((c.cut_us <= oldest_us, c.cut_us), else_=left)
        return self._connection.execute(sa.select(sa.func.max(left)).where(self._in_table(model, sequence))).scalar()


def _commit(row: sa.RowMapping) -> Commit:
    values: dict[str, Any] = dict(row)
    del values["added_first_us"], values["added_last_us"]
    values["features"] = tuple(_decode_names(values["features"]))
    values["offsets"] = _decode_offsets(values["offsets"])
    return Commit(**values)
