"""The watermark's algebra: the smallest mark of all partitions, never back; and whom it stops waiting for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from evenkeel.services.ingest.domain.watermark import STALL_US, Patience, StreamClock

SECOND_US = 1_000_000
marks = st.lists(st.tuples(st.integers(0, 3), st.integers(-1000, 1000)), max_size=60)


def clock_of(count: int) -> StreamClock:
    clock = StreamClock()
    clock.partitions(count)
    return clock


@given(marks)
def test_watermark_is_the_smallest_of_the_largest_and_never_goes_back(spoken: list[tuple[int, int]]) -> None:
    clock = clock_of(4)
    largest: dict[int, int] = {}
    before: int | None = None
    for partition, mark_us in spoken:
        clock.advance(partition, mark_us)
        largest[partition] = max(mark_us, largest.get(partition, mark_us))
        assert clock.watermark_us == (min(largest.values()) if len(largest) == 4 else None)
        assert before is None or (clock.watermark_us is not None and clock.watermark_us >= before)
        before = clock.watermark_us


@given(marks, st.lists(st.tuples(st.integers(0, 59), st.sets(st.integers(0, 3))), max_size=5))
def test_leaving_out_never_takes_it_back_nor_beyond_the_furthest(
    spoken: list[tuple[int, int]], leaving: list[tuple[int, set[int]]]
) -> None:
    clock = clock_of(4)
    before: int | None = None
    for number, (partition, mark_us) in enumerate(spoken):
        clock.advance(partition, mark_us)
        for moment, partitions in leaving:
            if moment == number:
                clock.leave_out(partitions)
        assert before is None or (clock.watermark_us is not None and clock.watermark_us >= before)
        before = clock.watermark_us
        if before is not None:
            assert before <= max(mark for mark in clock.marks.values() if mark is not None)


@given(marks)
def test_the_order_between_partitions_does_not_matter(spoken: list[tuple[int, int]]) -> None:
    clock, shuffled = clock_of(4), clock_of(4)
    for partition, mark_us in spoken:
        clock.advance(partition, mark_us)
    for partition in range(4):
        for other, mark_us in spoken:
            if other == partition:
                shuffled.advance(partition, mark_us)
    assert clock.watermark_us == shuffled.watermark_us


@given(marks)
def test_a_stored_clock_goes_on_as_if_nothing_had_happened(spoken: list[tuple[int, int]]) -> None:
    clock, restarted = clock_of(4), clock_of(4)
    for partition, mark_us in spoken:
        clock.advance(partition, mark_us)
        restarted = StreamClock(restarted.marks, restarted.watermark_us)
        restarted.partitions(4)
        restarted.advance(partition, mark_us)
        assert restarted.watermark_us == clock.watermark_us


def test_no_watermark_before_every_partition_spoke() -> None:
    clock = clock_of(2)
    assert clock.holding() == []
    clock.advance(0, 10)
    assert clock.watermark_us is None
    assert clock.holding() == [1]
    clock.advance(1, 7)
    assert clock.watermark_us == 7
    assert clock.holding() == [1]


def test_partitions_that_are_equally_far_hold_nothing_back() -> None:
    clock = clock_of(2)
    clock.advance(0, 10)
    clock.advance(1, 10)
    assert clock.holding() == []


def test_left_out_until_it_speaks() -> None:
    clock = clock_of(2)
    clock.advance(0, 10)
    assert clock.leave_out([0, 1]) == [1], "the one that is furthest is never left out"
    assert clock.watermark_us == 10
    clock.advance(0, 20)
    assert clock.watermark_us == 20
    clock.advance(1, 15)
    assert clock.watermark_us == 20
    assert clock.holding() == [1]
    clock.advance(0, 30)
    assert clock.watermark_us == 20, "it counts again"
    clock.advance(1, 25)
    assert clock.watermark_us == 25


class Looks:
    """A stream of two partitions of which 0 is ahead, looked at once a second."""

    def __init__(self) -> None:
        self.clock, self.patience = clock_of(2), Patience()
        self.clock.advance(0, 10)
        self.now_us = 0
        self.positions, self.ends = {0: 1}, {1: 0}

    def look(self, seconds: int, step_us: int = SECOND_US) -> list[int]:
        found: list[int] = []
        for _ in range(seconds):
            self.now_us += step_us
            found = self.patience.look(self.clock, self.positions, self.ends, 5 * SECOND_US, self.now_us)
        return found


def test_waits_for_the_declared_time_and_no_longer() -> None:
    looks = Looks()
    assert looks.look(6) == []
    assert looks.look(1) == [1]


def test_a_partition_that_speaks_is_waited_for_anew() -> None:
    looks = Looks()
    looks.look(6)
    looks.clock.advance(1, 3)
    assert looks.look(6) == []
    assert looks.look(1) == [1]


def test_what_lies_unread_is_no_silence() -> None:
    looks = Looks()
    looks.ends = {1: 5}
    for position in range(1, 5):
        looks.positions[1] = position
        assert looks.look(1) == []
    assert looks.look(60) == [], "the end is beyond what was read"


def test_an_end_that_is_never_reached_is_given_up_later() -> None:
    looks = Looks()
    looks.ends = {1: 5}
    assert looks.look(5 + STALL_US // SECOND_US + 1) == []
    assert looks.look(1) == [1]


def test_a_broker_that_does_not_answer_is_no_silence() -> None:
    looks = Looks()
    looks.look(6)
    looks.patience.interrupted()
    looks.now_us += 3600 * SECOND_US
    assert looks.look(1) == []


def test_a_pause_of_our_own_counts_as_two_seconds_at_most() -> None:
    looks = Looks()
    looks.look(3)
    assert looks.look(1, 3600 * SECOND_US) == []


def test_a_stream_that_was_never_heard_waits_for_nobody() -> None:
    looks = Looks()
    looks.clock = clock_of(2)
    assert looks.look(1000) == []
    looks.clock.advance(0, 10)
    assert looks.look(6) == [], "waiting starts when somebody is ahead"
