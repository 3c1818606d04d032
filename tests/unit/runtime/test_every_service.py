"""What holds for each of the seven services, over what the others said in a model's life: batches make no difference, a
repeat has no effect, and a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import sqlalchemy as sa

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.topics import BY_NAME, SERVICES
from evenkeel.libs.runtime.routing import Routes
from evenkeel.libs.store.lmdb import LmdbConnection
from evenkeel.services.__main__ import service_named
from evenkeel.services.serving.store import DATABASES
from tests.harness import Harness
from tests.model_life import Life
from tests.records import ReadRecord, Topics


@pytest.fixture(scope="module")
def life() -> list[ReadRecord]:
    """Everything that stands on the topics of the map after a year, numbered as a broker would; facts first."""
    records = Topics().write(Life().tell().records)
    return [replace(record, timestamp=number) for number, record in enumerate(records)]


BY_BATCH = {"seen_ids", "log_segments", "log_identity"}


def inputs(name: str, life: Sequence[ReadRecord]) -> list[ReadRecord]:
    """What the service folds; ingest reads producers' records too."""
    routes: Routes[Any] = Routes(service_named(name))
    mine = {topic.name for topic in routes.folded}
    records = [record for record in life if record.topic in mine]
    facts = [record for record in records if record.topic in routes.control]
    return [*facts, *(record for record in records if record.topic not in routes.control), *raw(name)]


def raw(name: str) -> list[ReadRecord]:
    if name != "ingest":
        return []
    orders = [{"order_id": f"o-{n}", "ordered_at": f"2013-01-01T0{n}:00:00Z", "amount": 1.5 * n} for n in range(1, 9)]
    return [ReadRecord("shop.orders", 0, n, None, orjson.dumps(one), ()) for n, one in enumerate(orders)]


def opened(name: str, folder: Path) -> Harness[Any]:
    harness: Harness[Any] = Harness(service_named(name), folder)
    harness.context.assigned({"shop.orders": 1, "shop.returns": 1})
    return harness


def contents(harness: Harness[Any]) -> dict[str, list[str]]:
    """The service's own tables, but for those that are kept batch by batch and a store's own name."""

    def read(connection: Any) -> dict[str, list[str]]:
        if isinstance(connection, LmdbConnection):
            return {name: list(map(repr, connection.scan(name))) for name in DATABASES}
        names = [name for name in sa.inspect(connection).get_table_names() if not name.startswith("runtime_")]
        rows = {name: connection.execute(sa.text(f"SELECT * FROM {name}")).all() for name in names}
        return {name: sorted(map(repr, found)) for name, found in rows.items() if name not in BY_BATCH}

    return harness.query(read)


def told(harness: Harness[Any]) -> list[tuple[str, str]]:
    """Topic and id of each event. Watermarks are said once a transaction, and offsets in payloads tell of batches."""
    events = [one for one in harness.said if isinstance(one, Event)]
    return [(one.topic, one.id) for one in events if isinstance(one.data, BY_NAME[one.topic].payload)]


@pytest.mark.parametrize("name", SERVICES)
def test_batches_and_restarts_make_no_difference(name: str, life: list[ReadRecord], tmp_path: Path) -> None:
    records = inputs(name, life)
    at_once, one_by_one = opened(name, tmp_path / "at-once"), opened(name, tmp_path / "one-by-one")
    at_once.process(records)
    for number, record in enumerate(records):
        one_by_one.process([record])
        if number % 7 == 3:
            one_by_one.restart()
            one_by_one.context.assigned({"shop.orders": 1, "shop.returns": 1})
    assert sorted(told(one_by_one)) == sorted(told(at_once))
    assert len(set(told(at_once))) == len(told(at_once))
    assert contents(one_by_one) == contents(at_once)
    states = [harness.store.read_state() for harness in (at_once, one_by_one)]
    assert states[0].positions == states[1].positions
    assert states[0].marks == states[1].marks
    at_once.close()
    one_by_one.close()


@pytest.mark.parametrize("name", sorted({*SERVICES} - {"governance"}))  # its log keeps repeats, too
def test_what_comes_again_has_no_effect(name: str, life: list[ReadRecord], tmp_path: Path) -> None:
    """After a producer's crash: the same facts at new offsets, and its own records read again."""
    records = [record for record in inputs(name, life) if record.topic != "shop.orders"]
    harness = opened(name, tmp_path)
    harness.process(records)
    before = told(harness)
    ends: dict[tuple[str, int], int] = {}
    for record in records:
        ends[record.topic, record.partition] = record.offset + 1
    again = [replace(one, offset=one.offset + ends[one.topic, one.partition]) for one in records]
    committed = harness.consume(again)
    assert committed.repeated.total() == len(again)
    assert told(harness) == before
    harness.close()
