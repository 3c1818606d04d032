"""Tables and named queries of monitor: facts, each model's state as snapshot and log, and what was published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from evenkeel.contracts.monitor import AlertChanged
from evenkeel.libs.store.schema import read_migrations
from evenkeel.libs.store.sql import upsert
from evenkeel.services.monitor import migrations
from evenkeel.services.monitor.domain.joins import LogEntry, decode_entry, encode_entry
from evenkeel.services.monitor.domain.measuring import Measuring, Outcome, State, decode_state, encode_state
from evenkeel.services.monitor.domain.slots import (
    Part,
    Slot,
    decode_part,
    decode_slot,
    encode_part,
    encode_slot,
    restored,
)

tables: Final = sa.MetaData()
_number: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")

declarations = sa.Table(
    "declarations",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
)
champions = sa.Table(
    "champions",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("epoch", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("profile", sa.Text),
)
evidence = sa.Table(
    "evidence",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("package", sa.Text, primary_key=True),
    sa.Column("payload", sa.Text, nullable=False),
)
facts = sa.Table(
    "facts",
    tables,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
)
states = sa.Table(
    "states", tables, sa.Column("model", sa.Text, primary_key=True), sa.Column("blob", sa.LargeBinary, nullable=False)
)
slots = sa.Table(
    "slots",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("start_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
)
parts = sa.Table(
    "parts",
    tables,
    sa.Column("number", _number, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)
joins = sa.Table(
    "joins",
    tables,
    sa.Column("number", _number, primary_key=True, autoincrement=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("until_us", sa.BigInteger, nullable=False),
    sa.Column("open", sa.BigInteger, nullable=False),
    sa.Column("early", sa.BigInteger, nullable=False),
    sa.Column("blob", sa.LargeBinary, nullable=False),
    sa.Index("joins_by_model", "model", "number"),
    sqlite_autoincrement=True,
)
windows = sa.Table(
    "windows",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("length_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("end_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("payload", sa.Text, nullable=False),
)
signals = sa.Table(
    "signals",
    tables,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
)
alerts = sa.Table(
    "alerts",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("alert", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("time_us", sa.BigInteger, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)
rejections = sa.Table(
    "rejections",
    tables,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("day_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("rule", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)
requests = sa.Table(
    "requests",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("day_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("version", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)

MIGRATIONS: Final = read_migrations(migrations)


@dataclass(frozen=True, slots=True)
class Stored:
    """One model's measuring as it was stored."""

    state: State
    slots: Sequence[Slot]
    parts: Sequence[Part]
    entries: Sequence[LogEntry]


class MonitorStore:
    """Named queries on the connection of one transaction."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    # -- facts --------------------------------------------------------------------------------------------------------

    def put_declaration(self, kind: str, offset: int, name: str, payload: str) -> None:
        row = {"kind": kind, "offset": offset, "name": name, "payload": payload}
        upsert(self._connection, declarations, ("kind", "offset"), [row])

    def declarations(self, kind: str) -> list[tuple[int, str]]:
        c = declarations.c
        query = sa.select(c.offset, c.payload).where(c.kind == kind).order_by(c.offset)
        return [(row.offset, row.payload) for row in self._connection.execute(query)]

    def put_champion(self, model: str, epoch: int, payload: str) -> None:
        row = {"model": model, "epoch": epoch, "payload": payload, "profile": None}
        upsert(self._connection, champions, ("model", "epoch"), [row])

    def put_profile(self, model: str, epoch: int, profile: str | None) -> None:
        c = champions.c
        self._connection.execute(
            champions.update().where(c.model == model, c.epoch == epoch).values(profile=profile or "")
        )

    def champion(self, model: str, epoch: int) -> tuple[str, str | None] | None:
        """(payload, profile: None if not looked for yet, empty if it cannot be used)."""
        c = champions.c
        row = self._connection.execute(
            sa.select(c.payload, c.profile).where(c.model == model, c.epoch == epoch)
        ).first()
        return None if row is None else (row.payload, row.profile)

    def epochs(self, model: str, until: int) -> list[int]:
        c = champions.c
        query = sa.select(c.epoch).where(c.model == model, c.epoch <= until).order_by(c.epoch)
        return list(self._connection.execute(query).scalars())

    def put_evidence(self, model: str, package: str, payload: str) -> None:
        row = {"model": model, "package": package, "payload": payload}
        upsert(self._connection, evidence, ("model", "package"), [row])

    def evidence(self, model: str, package: str) -> str | None:
        c = evidence.c
        query = sa.select(c.payload).where(c.model == model, c.package == package)
        return self._connection.execute(query).scalar()

    def put_fact(self, kind: str, key: str, time_us: int, payload: str) -> None:
        row = {"kind": kind, "key": key, "time_us": time_us, "payload": payload}
        upsert(self._connection, facts, ("kind", "key"), [row])

    # -- models -------------------------------------------------------------------------------------------------------

    def read_model(self, model: str) -> Stored | None:
        blob = self._connection.execute(sa.select(states.c.blob).where(states.c.model == model)).scalar()
        if blob is None:
            return None
        by_start = sa.select(slots.c.blob).where(slots.c.model == model).order_by(slots.c.start_us)
        in_slot = sa.select(parts.c.blob).where(parts.c.model == model).order_by(parts.c.number)
        log = sa.select(joins.c.blob).where(joins.c.model == model).order_by(joins.c.number)
        return Stored(
            decode_state(blob),
            [restored(decode_slot(one)) for one in self._connection.execute(by_start).scalars()],
            [decode_part(one) for one in self._connection.execute(in_slot).scalars()],
            [decode_entry(one) for one in self._connection.execute(log).scalars()],
        )

    def keep(self, model: Measuring, outcome: Outcome) -> None:
        """Store what a fold changed."""
        c, name, state = self._connection, model.name, model.state
        if outcome.slot_over:
            oldest_us = min((slot.start_us for slot in model.slots), default=state.forgotten_us)
            c.execute(parts.delete().where(parts.c.model == name))
            c.execute(slots.delete().where(slots.c.model == name, slots.c.start_us < oldest_us))
            c.execute(joins.delete().where(joins.c.model == name, joins.c.until_us < state.forgotten_us))
            closed = [
                {"model": name, "start_us": slot.start_us, "blob": encode_slot(slot.stored())}
                for slot in outcome.closed
            ]
            upsert(c, slots, ("model", "start_us"), closed)
        if outcome.state_changed:
            upsert(c, states, ("model",), [{"model": name, "blob": encode_state(state)}])
        if outcome.part is not None:
            c.execute(parts.insert(), {"model": name, "blob": encode_part(outcome.part)})
        if outcome.entry is not None:
            counts = {"open": len(model.joins.open), "early": len(model.joins.early)}
            values = {"model": name, "until_us": outcome.entry.until_us, "blob": encode_entry(outcome.entry)}
            c.execute(joins.insert(), values | counts)

    # -- what was published -------------------------------------------------------------------------------------------

    def put_window(self, model: str, length_us: int, end_us: int, payload: str) -> None:
        row = {"model": model, "length_us": length_us, "end_us": end_us, "payload": payload}
        upsert(self._connection, windows, ("model", "length_us", "end_us"), [row])

    def put_signal(self, signal_id: str, model: str, kind: str, time_us: int, payload: str) -> None:
        row = {"id": signal_id, "model": model, "kind": kind, "time_us": time_us, "payload": payload}
        upsert(self._connection, signals, ("id",), [row])

    def put_alert(self, alert: AlertChanged, time_us: int) -> None:
        row = alert.model_dump() | {"time_us": time_us}
        upsert(self._connection, alerts, ("model", "alert"), [row])

    def is_raised(self, model: str, alert: str) -> bool:
        c = alerts.c
        return (
            self._connection.execute(sa.select(c.state).where(c.model == model, c.alert == alert)).scalar() == "raised"
        )

    def count_rejections(self, counts: Counter[tuple[str, int, str, str]]) -> None:
        """Add to (stream, day, kind, rule)."""
        self._add(rejections, ("stream", "day_us", "kind", "rule"), counts.items())

    def count_requests(self, counts: Counter[tuple[str, int, int]]) -> None:
        """Add to (model, day, version)."""
        self._add(requests, ("model", "day_us", "version"), counts.items())

    def _add(self, table: sa.Table, keys: tuple[str, ...], counts: Iterable[tuple[tuple[Any, ...], int]]) -> None:
        rows = [dict(zip(keys, key, strict=True)) | {"count": count} for key, count in counts]
        if not rows:
            return
        match = sa.and_(*(table.c[key] == sa.bindparam(f"k_{key}") for key in keys))
        for row in rows:
            bound = {f"k_{key}": row[key] for key in keys}
            added = self._connection.execute(
                table.update().where(match).values(count=table.c.count + row["count"]), bound
            )
            if not added.rowcount:
                self._connection.execute(table.insert(), row)
