"""Governance's store and context on a SQLite file, fed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.payload import Fact
from evenkeel.libs.audit import log
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.service import Output, Reply
from evenkeel.services.governance.context import GovernanceContext
from evenkeel.services.governance.domain.facts import LoggedFact
from evenkeel.services.governance.domain.lineage import explain_prediction
from evenkeel.services.governance.domain.trace import Kind, find_prediction, follow
from evenkeel.services.governance.domain.walk import Walk
from evenkeel.services.governance.handlers import on_tick
from evenkeel.services.governance.service import service
from evenkeel.services.governance.store import StoredGraph
from tests.harness import Harness, ManualClock
from tests.model_life import consumed

T = TypeVar("T")


class Governance(Harness[GovernanceContext]):
    """The service in a data folder, at the beginning of Unix time."""

    def __init__(self, data_dir: Path, database_url: str | None = None) -> None:
        super().__init__(service, data_dir, database_url=database_url, clock=ManualClock(0))
        self.offsets: dict[tuple[str, int], int] = {}

    def take(self, records: Sequence[OutgoingRecord]) -> None:
        self.log(consumed(records, self.offsets))

    def log(self, records: Sequence[Record]) -> None:
        assert not self.consume(records).records

    def tick(self, now_us: int) -> list[Output]:
        self.clock.us = now_us
        return list(self.reply(lambda ctx: Reply(None, tuple(on_tick(ctx))), "tick").outputs)

    def sign_and_crash(self) -> None:
        def crash(ctx: GovernanceContext) -> Reply[None]:
            assert len(list(on_tick(ctx))) == 1
            raise RuntimeError("crash")

        self.clock.us = 10_000_000
        self.transactions.run(crash, "tick")

    def walk(self, identifier: str, model: str | None = None) -> Walk:
        """Why a prediction is as it is."""
        with self.store.reading() as connection:
            walk = Walk(StoredGraph(connection, self.context.log))
            explain_prediction(walk, find_prediction(walk.graph, identifier, model))
            return walk

    def trace(self, identifier: str, model: str | None = None) -> tuple[Kind, Walk]:
        """What an id leads to."""
        with self.store.reading() as connection:
            walk = Walk(StoredGraph(connection, self.context.log))
            return follow(walk, identifier, model), walk

    def history(self, subject: str) -> list[LoggedFact[Fact]]:
        with self.store.reading() as connection:
            return StoredGraph(connection, self.context.log).history(subject, -1, 1000)

    def rows(self, table: sa.Table) -> list[Any]:
        with self.store.reading() as connection:
            return list(connection.execute(sa.select(table)))

    def notes(self) -> list[tuple[int, bytes]]:
        with self.store.reading() as connection:
            return log.checkpoint_notes(connection)


@pytest.fixture
def governance(tmp_path: Path) -> Iterator[Governance]:
    opened = Governance(tmp_path)
    yield opened
    opened.close()
