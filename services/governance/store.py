"""Tables and named queries of governance: the facts of the control plane, beside the log's own tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from contracts.payload import Payload
from contracts.topics import BY_NAME, topics_carrying
from libs.audit import log
from libs.store.schema import read_migrations
from services.governance import migrations
from services.governance.facts import Fact

P = TypeVar("P", bound=Payload)

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

    def facts(self, payload: type[P], subject: str, number: int | None = None) -> list[Fact[P]]:
        """The facts of one kind about a model or stream, or the one with a number (NUMBERED says which)."""
        where = [facts.c.subject == subject, facts.c.topic == _topic(payload)]
        return self._read(*where, *(() if number is None else (facts.c.number == number,)))

    def of_run(self, payload: type[P], run_id: str) -> list[Fact[P]]:
        return self._read(facts.c.run_id == run_id, facts.c.topic == _topic(payload))

    def caused_by(self, payload: type[P], cause_id: str) -> list[Fact[P]]:
        return self._read(facts.c.cause_id == cause_id, facts.c.topic == _topic(payload))

    def with_id(self, event_id: str) -> Fact[Payload] | None:
        found: list[Fact[Payload]] = self._read(facts.c.event_id == event_id)
        return found[0] if found else None

    def history(self, subject: str, after_leaf: int, limit: int) -> list[Fact[Payload]]:
        """Everything about a model or stream behind a leaf."""
        return self._read(facts.c.subject == subject, facts.c.leaf > after_leaf, limit=limit)

    def subjects(self, payload: type[Payload]) -> list[str]:
        """The names that facts of one kind are about."""
        query = sa.select(facts.c.subject).where(facts.c.topic == _topic(payload)).distinct()
        return sorted(self._connection.execute(query).scalars())

    def _read(self, *where: sa.ColumnElement[bool], limit: int | None = None) -> list[Fact[Any]]:
        query = sa.select(facts).where(*where).order_by(facts.c.leaf).limit(limit)
        return [
            Fact(
                row.leaf,
                row.topic,
                row.event_id,
                row.cause_id,
                row.event_us,
                row.recorded_us,
                BY_NAME[row.topic].payload.model_validate_json(row.payload),
            )
            for row in self._connection.execute(query)
        ]


def _topic(payload: type[Payload]) -> str:
    (topic,) = topics_carrying(payload)
    return topic.name
