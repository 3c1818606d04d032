"""The order in which a store that is rebuilt reads its inputs again."""

from __future__ import annotations

from evenkeel.libs.runtime.rereading import InOrder, as_written
from tests.records import ReadRecord


def record(topic: str, offset: int, timestamp: int = 0) -> ReadRecord:
    return ReadRecord(topic, 0, offset, None, None, (), timestamp)


def test_records_come_in_the_order_of_the_brokers_clock() -> None:
    written = as_written([record("b", 0, 5), record("b", 1, 7), record("a", 0, 6), record("a", 1, 7)])
    assert [(one.topic, one.offset) for one in written] == [("b", 0), ("a", 0), ("a", 1), ("b", 1)]


def test_a_clock_that_goes_back_does_not_turn_a_partition_around() -> None:
    """A leader whose clock is behind took over: the partition's own order stands, and what it holds is not earlier."""
    written = as_written([record("a", 0, 10), record("a", 1, 3), record("b", 0, 5)])
    assert [(one.topic, one.offset) for one in written] == [("b", 0), ("a", 0), ("a", 1)]


def test_what_was_read_is_handed_out_as_it_is_wanted() -> None:
    read = InOrder()
    read.add({("a", 0): [record("a", 0), record("a", 1)], ("b", 0): [record("b", 0)]})
    assert [one.offset for one in read.take(("a", 0), 1)] == [0]
    assert [one.offset for one in read.take(("a", 0), 5)] == [1]
    assert (read.held(("a", 0)), read.held(("b", 0))) == (0, 1)
