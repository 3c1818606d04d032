"""Governance's store and context on a SQLite file, fed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.payload import Fact
from evenkeel.libs.audit import log
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.service import Output
from evenkeel.libs.settings import Settings
from evenkeel.libs.store.protocol import Store
from evenkeel.services.governance.context import GovernanceContext
from evenkeel.services.governance.domain.facts import LoggedFact
from evenkeel.services.governance.domain.lineage import explain_prediction
from evenkeel.services.governance.domain.trace import Kind, find_prediction, follow
from evenkeel.services.governance.domain.walk import Walk
from evenkeel.services.governance.handlers import on_records, on_tick
from evenkeel.services.governance.service import service
from evenkeel.services.governance.settings import GovernanceSettings
from evenkeel.services.governance.store import StoredGraph
from tests.model_life import consumed

T = TypeVar("T")


@dataclass
class Governance:
    store: Store
    ctx: GovernanceContext
    data_dir: Path
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)

    def take(self, records: Sequence[OutgoingRecord]) -> None:
        self.log(consumed(records, self.offsets))

    def log(self, records: Sequence[Record]) -> None:
        with self.store.begin() as tx:
            self.ctx.tx = tx
            assert not list(on_records(records, self.ctx))
        self.ctx.committed()

    def tick(self, now_us: int) -> list[Output]:
        with self.store.begin() as tx:
            self.ctx.tx, self.ctx.now_us = tx, now_us
            outputs = list(on_tick(self.ctx))
        self.ctx.committed()
        return outputs

    def sign_and_crash(self) -> None:
        with self.store.begin() as tx:
            self.ctx.tx, self.ctx.now_us = tx, 10_000_000
            assert len(list(on_tick(self.ctx))) == 1
            raise RuntimeError("crash")

    def load(self) -> None:
        with self.store.begin() as tx:
            self.ctx.load(tx)

    def walk(self, identifier: str, model: str | None = None) -> Walk:
        """Why a prediction is as it is."""
        with self.store.reading() as connection:
            walk = Walk(StoredGraph(connection, self.ctx.log))
            explain_prediction(walk, find_prediction(walk.graph, identifier, model))
            return walk

    def trace(self, identifier: str, model: str | None = None) -> tuple[Kind, Walk]:
        """What an id leads to."""
        with self.store.reading() as connection:
            walk = Walk(StoredGraph(connection, self.ctx.log))
            return follow(walk, identifier, model), walk

    def history(self, subject: str) -> list[LoggedFact[Fact]]:
        with self.store.reading() as connection:
            return StoredGraph(connection, self.ctx.log).history(subject, -1, 1000)

    def rows(self, table: sa.Table) -> list[Any]:
        with self.store.reading() as connection:
            return list(connection.execute(sa.select(table)))

    def notes(self) -> list[tuple[int, bytes]]:
        with self.store.reading() as connection:
            return log.checkpoint_notes(connection)


def open_governance(data_dir: Path, database_url: str | None = None) -> Governance:
    settings = Settings(data_dir=data_dir, database_url=database_url)
    store, ctx = service.open_store(settings), GovernanceContext()
    ctx.service, ctx.settings, ctx.own, ctx.now_us = "governance", settings, GovernanceSettings(), 0
    store.open()
    opened = Governance(store, ctx, data_dir)
    opened.load()
    return opened


@pytest.fixture
def governance(tmp_path: Path) -> Iterator[Governance]:
    opened = open_governance(tmp_path)
    yield opened
    opened.store.close()
