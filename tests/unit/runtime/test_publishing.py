"""The outbox on its way out: what the event loop and the writer thread have between them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evenkeel.libs.runtime.publishing import Acknowledged
from evenkeel.libs.settings import Settings
from evenkeel.libs.store.protocol import Store
from evenkeel.libs.store.sql import SqlStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = SqlStore(Settings(data_dir=tmp_path).database("feature"), "feature", ())
    opened.open()
    yield opened
    opened.close()


def rows(store: Store) -> list[int]:
    return [row for row, _ in store.read_state().outbox]


def test_a_row_that_is_acknowledged_meanwhile_waits_for_the_next_transaction(store: Store) -> None:
    with store.begin() as tx:
        first, second = tx.add_outbox(b"1"), tx.add_outbox(b"2")
    acknowledged = Acknowledged()
    acknowledged.add(first)
    with store.begin() as tx:
        acknowledged.delete(tx)
        acknowledged.add(second)  # by the event loop, while the writer thread is in its transaction
    acknowledged.deleted()
    assert rows(store) == [second]
    with store.begin() as tx:
        acknowledged.delete(tx)
    acknowledged.deleted()
    assert rows(store) == []


def test_rows_of_a_transaction_that_failed_go_with_the_next(store: Store) -> None:
    with store.begin() as tx:
        row = tx.add_outbox(b"1")
    acknowledged = Acknowledged()
    acknowledged.add(row)

    def fail() -> None:
        with store.begin() as tx:
            acknowledged.delete(tx)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert rows(store) == [row]
    with store.begin() as tx:
        acknowledged.delete(tx)
    acknowledged.deleted()
    assert rows(store) == []
