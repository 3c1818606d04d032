"""What a merge holds is the same after any crash, and its log stays in proportion to it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel.libs.runtime import held
from evenkeel.libs.runtime.held import HeldRecords, StoredRecord
from evenkeel.libs.store.protocol import HeldEntry, Store
from evenkeel.libs.store.sql import SqlStore

SLACK = 20


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = SqlStore(f"sqlite:///{tmp_path_factory.mktemp('held') / 'monitor.db'}", "monitor", ())
    store.open()
    yield store
    store.close()


def record(offset: int) -> StoredRecord:
    headers = [("ce_id", b"%d" % offset), ("ce_type", b"x")]
    return StoredRecord(
        "orders", offset % 3, offset, 1_000 + offset, None if offset % 7 == 0 else b"key", b"v", headers
    )


def place(offset: int) -> held.Where:
    return "orders", offset % 3, offset


def size(entry: HeldEntry) -> int:
    _, added, gone = msgspec.msgpack.decode(entry[1])
    return len(added) + len(gone)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.integers(0, 30), st.lists(st.integers(0, 200), max_size=40), st.sampled_from(["", "crash", "fail"])
        ),
        max_size=25,
    )
)
def test_it_is_what_was_added_and_not_taken(
    store: Store, monkeypatch: pytest.MonkeyPatch, steps: list[tuple[int, list[int], str]]
) -> None:
    monkeypatch.setattr(held, "SLACK", SLACK)
    with store.begin() as tx:
        tx.remove_held(2**62)
    records, expected, offset = HeldRecords(), dict[int, StoredRecord](), 0
    for count, ages, end in steps:
        before = dict(expected)
        gone = [offset - age for age in ages]
        records.discard(map(place, gone))
        for one in gone:
            expected.pop(one, None)
        added = [record(n) for n in range(offset, offset + count)]
        records.add(added)
        expected |= {one.offset: one for one in added}
        try:
            with store.begin() as tx:
                records.write(tx)
                if end == "fail":
                    raise ZeroDivisionError
        except ZeroDivisionError:
            expected = before
        offset += count
        state = store.read_state()
        if end:
            records = HeldRecords(state.held)
        assert list(records) == list(expected.values())
        assert list(HeldRecords(state.held)) == list(expected.values())
        assert sum(map(size, state.held)) <= 2 * len(expected) + SLACK
    for one in expected:
        assert records[place(one)] == expected[one]
    records.discard(map(place, expected))
    with store.begin() as tx:
        records.write(tx)
    assert store.read_state().held == []


def test_one_that_stays_does_not_keep_the_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "SLACK", SLACK)
    records = HeldRecords()
    for offset in range(100):
        records.add([record(offset)])
        if offset > 1:
            records.discard([place(offset - 1)])
        with store.begin() as tx:
            records.write(tx)
    state = store.read_state()
    assert [one.offset for one in HeldRecords(state.held)] == [0, 99]
    assert sum(map(size, state.held)) <= 2 * 2 + SLACK
    with store.begin() as tx:
        tx.remove_held(2**62)
