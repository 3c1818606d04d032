"""Tables and named queries of governance: the facts of the control plane, beside the log's own tables, and the log by id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from evenkeel.contracts.payload import Fact
from evenkeel.contracts.superseded import topics_read_as
from evenkeel.libs.audit import log
from evenkeel.libs.audit.log import AuditLog
from evenkeel.libs.store.schema import read_migrations
from evenkeel.services.governance import migrations
from evenkeel.services.governance.domain.facts import LoggedFact, Opaque, read_fact, read_payload

F = TypeVar("F", bound=Fact)

tables: Final = sa.MetaData()

identity = sa.Table("log_identity", tables, sa.Column("origin", sa.Text, primary_key=True))
facts = sa.Table(
    "facts",
    tables,
    sa.Column("leaf", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("topic", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("number", sa.BigInteger),
    sa.Column("run_id", sa.Text),
    sa.Column("event_id", sa.Text, nullable=False),
    sa.Column("cause_id", sa.Text),
    sa.Column("event_us", sa.BigInteger, nullable=False),
    sa.Column("recorded_us", sa.BigInteger, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.UniqueConstraint("event_id", "topic"),
    sa.Index("facts_by_number", "subject", "topic", "number"),
    sa.Index("facts_by_run", "run_id"),
    sa.Index("facts_by_cause", "cause_id"),
    sa.Index("facts_in_order", "subject", "leaf"),
)

for _table in log.metadata.sorted_tables:
    _table.to_metadata(tables)

MIGRATIONS: Final = read_migrations(migrations)


class GovernanceStore:
    """The named queries, on the connection of the transaction at hand. Facts come in the order of the log."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def origin(self) -> str:
        """The log's name on its checkpoints."""
        return str(self._connection.execute(sa.select(identity.c.origin)).scalar_one())

    def put_origin(self, origin: str) -> None:
        self._connection.execute(identity.update().values(origin=origin))

    def put_facts(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep new facts; of a repeated event the first record counts."""
        if not rows:
            return
        insert = (postgresql if self._connection.dialect.name == "postgresql" else sqlite).insert
        self._connection.execute(insert(facts).on_conflict_do_nothing(), list(rows))

    def history(self, subject: str, after_leaf: int, limit: int) -> list[LoggedFact[Fact]]:
        """Everything about a model or stream behind a leaf."""
        return self._read(facts.c.subject == subject, facts.c.leaf > after_leaf, limit=limit)

    def _read(self, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[LoggedFact[Any]]:
        query = sa.select(facts).where(*where).order_by(facts.c.leaf).limit(limit)
        return [
            LoggedFact(
                row.leaf,
                row.topic,
                row.event_id,
                row.cause_id,
                row.event_us,
                row.recorded_us,
                read_payload(row.topic, row.payload.encode()),
            )
            for row in self._connection.execute(query)
        ]


class StoredGraph(GovernanceStore):
    """The graph that the walks go along (evenkeel.services.governance.domain.graph), with the log beside it."""

    def __init__(self, connection: sa.Connection, audit_log: AuditLog) -> None:
        super().__init__(connection)
        self._log = audit_log

    def facts(self, payload: type[F], subject: str, number: int | None = None) -> list[LoggedFact[F]]:
        where = [facts.c.subject == subject, _says(payload)]
        return self._read(*where, *(() if number is None else (facts.c.number == number,)))

    def of_run(self, payload: type[F], run_id: str) -> list[LoggedFact[F]]:
        return self._read(facts.c.run_id == run_id, _says(payload))

    def part_of_run(self, run_id: str) -> list[LoggedFact[Fact]]:
        return self._read(facts.c.run_id == run_id)

    def caused_by(self, payload: type[F], cause_id: str) -> list[LoggedFact[F]]:
        return self._read(facts.c.cause_id == cause_id, _says(payload))

    def with_id(self, event_id: str) -> LoggedFact[Fact] | None:
        found: list[LoggedFact[Fact]] = self._read(facts.c.event_id == event_id)
        return found[0] if found else None

    def subjects(self, payload: type[Fact]) -> list[str]:
        query = sa.select(facts.c.subject).where(_says(payload)).distinct()
        return sorted(self._connection.execute(query).scalars())

    def event(self, payload: type[F], event_id: str) -> LoggedFact[F] | None:
        for fact in self._logged(event_id):
            if isinstance(fact.data, payload):
                return cast("LoggedFact[F]", fact)
        return None

    def any_event(self, event_id: str) -> LoggedFact[Fact] | None:
        return next(self._logged(event_id), None)

    def _logged(self, event_id: str) -> Iterator[LoggedFact[Fact]]:
        for leaf, record in self._log.find(self._connection, event_id):
            with suppress(Opaque):
                yield read_fact(record, leaf)


def _says(payload: type[Fact]) -> sa.ColumnElement[bool]:
    return facts.c.topic.in_(topics_read_as(payload))
