"""What every store must show. A test class inherits `StoreSuite` and gives a `place`: where its stores live."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

from evenkeel.libs.errors import Fenced, Retry
from evenkeel.libs.store.protocol import ParkedRecord, RuntimeState, Store

EMPTY = RuntimeState(positions={}, marks={}, sequences={}, watermarks={}, held=[], outbox=[])
TP = ("ingest.event-accepted.v1", 2)
MARK = (b"/evenkeel/feature/abc", b"merge:EventAccepted/flights", *TP)
LONG = "stream-" + "x" * 120
LONG_MARK = (b"/evenkeel/feature/abc", f"merge:{','.join([LONG] * 9)}".encode(), *TP)
OTHER_LONG_MARK = (*LONG_MARK[:3], 3)
SECOND_US = 1_000_000


def nobody(owner: str) -> bool:
    """No owner is known to be gone."""
    return False


class Place(Protocol):
    """Where one engine keeps one service's store."""

    def store(self) -> Store:
        """A store on what is there, not opened yet."""

    def take_away(self, store: Store) -> None:
        """From here on the store cannot be reached, as in an outage."""

    def bring_back(self, store: Store) -> None:
        """The outage is over."""


class StoreSuite:
    """Behaviour, not implementation: only what evenkeel.libs.store.protocol names."""

    @pytest.fixture
    def store(self, place: Place) -> Iterator[Store]:
        opened = place.store()
        opened.open()
        yield opened
        opened.close()

    def test_a_new_store_is_empty_and_keeps_its_id(self, place: Place, store: Store) -> None:
        assert store.read_state() == EMPTY
        store_id = store.store_id
        assert len(store_id) == 32
        store.open()
        assert store.store_id == store_id
        store.close()
        again = place.store()
        again.open()
        assert again.store_id == store_id
        again.close()

    def test_reopening_keeps_everything(self, place: Place, store: Store) -> None:
        with store.begin() as tx:
            tx.move_positions({TP: (None, 7), ("other", 0): (None, 1)})
            tx.put_marks({MARK: 41, LONG_MARK: 42, OTHER_LONG_MARK: 43})
            tx.put_sequences({"http": 3, LONG: 4})
            tx.put_watermarks({(*TP, "flights"): 2**52, (*TP, LONG): -5})
            tx.add_held(7, b"\x00\xff")
            tx.add_held(8, b"")
            row = tx.add_outbox(b"x" * 100_000)
        before = store.read_state()
        store.close()
        again = place.store()
        again.open()
        assert again.read_state() == before
        again.close()
        assert before == RuntimeState(
            positions={TP: 7, ("other", 0): 1},
            marks={MARK: 41, LONG_MARK: 42, OTHER_LONG_MARK: 43},
            sequences={"http": 3, LONG: 4},
            watermarks={(*TP, "flights"): 2**52, (*TP, LONG): -5},
            held=[(7, b"\x00\xff"), (8, b"")],
            outbox=[(row, b"x" * 100_000)],
        )

    def test_what_is_put_again_replaces_what_was_there(self, store: Store) -> None:
        for value in (1, 2):
            with store.begin() as tx:
                tx.put_marks({MARK: value})
                tx.put_sequences({"http": value})
                tx.put_watermarks({(*TP, "flights"): value})
        state = store.read_state()
        assert (state.marks, state.sequences) == ({MARK: 2}, {"http": 2})
        assert state.watermarks == {(*TP, "flights"): 2}

    def test_a_position_moves_only_from_where_it_is(self, store: Store) -> None:
        with store.begin() as tx:
            tx.move_positions({TP: (None, 5)})
        for lo in (None, 4, 6):
            with pytest.raises(Fenced), store.begin() as tx:  # noqa: PT012
                tx.put_sequences({"http": 1})
                tx.move_positions({("other", 0): (None, 1), TP: (lo, 9)})
        assert store.read_state() == RuntimeState({TP: 5}, {}, {}, {}, [], [])
        with pytest.raises(Fenced), store.begin() as tx:
            tx.move_positions({("never seen", 0): (3, 9)})
        with store.begin() as tx:
            tx.move_positions({TP: (5, 9)})
        assert store.read_state().positions == {TP: 9}

    def test_a_failed_transaction_leaves_nothing(self, store: Store) -> None:
        with store.begin() as tx:
            kept = tx.add_outbox(b"kept")
            tx.add_held(1, b"kept")
        before = store.read_state()
        with pytest.raises(ZeroDivisionError), store.begin() as tx:  # noqa: PT012
            tx.move_positions({TP: (None, 5)})
            tx.put_marks({MARK: 1})
            tx.put_sequences({"http": 1})
            tx.put_watermarks({(*TP, "flights"): 1})
            tx.add_held(2, b"gone")
            tx.remove_held(1)
            tx.add_outbox(b"gone")
            tx.remove_outbox([kept])
            raise ZeroDivisionError
        assert store.read_state() == before
        with store.begin() as tx:
            tx.put_sequences({"http": 1})
        assert store.read_state().sequences == {"http": 1}

    def test_the_outbox_keeps_its_order_and_never_uses_a_number_twice(self, store: Store) -> None:
        rows = []
        for number in range(300):
            with store.begin() as tx:
                rows.append(tx.add_outbox(b"%d" % number))
        assert rows == sorted(set(rows))
        assert store.read_state().outbox == [(row, b"%d" % number) for number, row in enumerate(rows)]
        with store.begin() as tx:
            tx.remove_outbox([*rows[:100], *rows[200:], 10**9])
        assert [row for row, _ in store.read_state().outbox] == rows[100:200]
        with store.begin() as tx:
            tx.remove_outbox(rows[100:200])
            assert tx.add_outbox(b"next") > rows[-1]

    def test_what_a_merge_holds_leaves_from_the_oldest_on(self, store: Store) -> None:
        with store.begin() as tx:
            for row in range(250, 260):
                tx.add_held(row, b"%d" % row)
        with store.begin() as tx:
            tx.remove_held(256)
        assert store.read_state().held == [(row, b"%d" % row) for row in (257, 258, 259)]

    def test_parked_records_leave_one_by_one(self, store: Store) -> None:
        with store.begin() as tx:
            tx.add_parked([ParkedRecord(*TP, 1, b"parked"), ParkedRecord(*TP, 2, b"behind")])
        with store.begin() as tx:
            tx.remove_parked([(*TP, 2), (*TP, 9)])
        assert store.read_state().parked == [ParkedRecord(*TP, 1, b"parked")]

    def test_a_lease_is_taken_over_after_it_expired_and_fences_its_old_owner(self, store: Store) -> None:
        now_us, ttl_us = 1_700_000_000 * SECOND_US, 6 * SECOND_US
        first = store.take_lease("a", now_us, ttl_us, nobody)
        assert first is not None
        assert store.take_lease("b", now_us + ttl_us - 1, ttl_us, nobody) is None
        with store.begin() as tx:
            tx.hold_lease("a", first, now_us + 2 * ttl_us)
        assert store.take_lease("b", now_us + 2 * ttl_us - 1, ttl_us, nobody) is None
        second = store.take_lease("b", now_us + 2 * ttl_us, ttl_us, nobody)
        assert second is not None
        assert second > first
        for owner, epoch in (("a", first), ("b", first), ("a", second)):
            with pytest.raises(Fenced), store.begin() as tx:  # noqa: PT012
                tx.put_sequences({"zombie": 1})
                tx.hold_lease(owner, epoch, now_us + 9 * ttl_us)
        assert store.read_state().sequences == {}
        with store.begin() as tx:
            tx.hold_lease("b", second, now_us + 9 * ttl_us)

    def test_a_released_lease_is_free_at_once(self, store: Store) -> None:
        now_us, ttl_us = 1_700_000_000 * SECOND_US, 6 * SECOND_US
        first = store.take_lease("a", now_us, ttl_us, nobody)
        assert first is not None
        store.release_lease("b", first)
        store.release_lease("a", first + 1)
        assert store.take_lease("b", now_us + 1, ttl_us, nobody) is None
        store.release_lease("a", first)
        assert store.take_lease("b", now_us + 1, ttl_us, nobody) is not None

    def test_the_lease_of_an_owner_that_is_gone_is_free_at_once_and_fences_it(self, store: Store) -> None:
        now_us, ttl_us = 1_700_000_000 * SECOND_US, 6 * SECOND_US
        first = store.take_lease("a", now_us, ttl_us, nobody)
        assert first is not None
        assert store.take_lease("b", now_us, ttl_us, lambda owner: owner == "c") is None
        assert store.take_lease("b", now_us, ttl_us, lambda owner: owner == "a") is not None
        with pytest.raises(Fenced), store.begin() as tx:
            tx.hold_lease("a", first, now_us + ttl_us)

    def test_an_owner_that_restarts_takes_its_lease_again_at_once(self, store: Store) -> None:
        first = store.take_lease("a", 1, 10, nobody)
        second = store.take_lease("a", 2, 10, nobody)
        assert first is not None
        assert second is not None
        assert second > first

    def test_an_outage_is_retry_and_ends(self, place: Place, store: Store) -> None:
        with store.begin() as tx:
            tx.put_sequences({"http": 1})
        place.take_away(store)
        with pytest.raises(Retry), store.begin() as tx:
            tx.put_sequences({"http": 2})
        with pytest.raises(Retry):
            store.read_state()
        with pytest.raises(Retry), store.reading():
            pass
        with pytest.raises(Retry):
            store.take_lease("a", 1, 1, nobody)
        place.bring_back(store)
        with store.begin() as tx:
            tx.put_sequences({"other": 3})
        assert store.read_state().sequences == {"http": 1, "other": 3}

    def test_a_reader_sees_what_is_committed_while_somebody_writes(self, store: Store) -> None:
        with store.begin() as tx:
            tx.put_sequences({"http": 1})
            with store.reading() as connection:
                assert connection is not None
        assert store.read_state().sequences == {"http": 1}
