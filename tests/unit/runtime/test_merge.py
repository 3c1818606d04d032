"""The event-time merge by itself: what waits, what is released, in which order, and what need not be read meanwhile."""

from __future__ import annotations

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.libs.runtime.merge import EventTimeMerge, Group, name_of

EVENTS, LABELS = "events", "labels"
BOTH: Group = frozenset({(EventAccepted, "a"), (EventAccepted, "b")})
ALONE: Group = frozenset({(EventAccepted, "c")})


def merge_of(*groups: Group, partitions: int = 1) -> EventTimeMerge:
    one = EventTimeMerge({EVENTS: partitions, LABELS: partitions}, {EventAccepted: EVENTS, LabelAccepted: LABELS})
    one.regroup(groups)
    return one


def event(stream: str, event_id: str, time_us: int, partition: int = 0) -> Event[None]:
    return Event(None, event_id, time_us, EVENTS, partition, 0, {"ce_stream": stream.encode()})


def advance(merge: EventTimeMerge, time_us: int, *streams: str, partition: int = 0) -> None:
    for stream in streams:
        merge.observe(EVENTS, partition, stream, time_us)


def released(merge: EventTimeMerge) -> list[str]:
    return [event.id for _, _, events in merge.release() for event in events]


def test_a_record_at_the_watermark_waits_for_its_equals() -> None:
    """Nothing earlier than a watermark follows; something at the same time may."""
    merge = merge_of(BOTH)
    merge.add(event("b", "second", 10))
    advance(merge, 10, "a", "b")
    assert released(merge) == []
    merge.add(event("a", "first", 10))
    advance(merge, 11, "a", "b")
    assert released(merge) == ["first", "second"]


def test_equal_times_leave_by_stream_and_then_by_id() -> None:
    merge = merge_of(BOTH)
    for stream, event_id in (("b", "1"), ("a", "3"), ("b", "0"), ("a", "2")):
        merge.add(event(stream, event_id, 5))
    advance(merge, 6, "a", "b")
    assert released(merge) == ["2", "3", "0", "1"]


def test_the_slowest_input_decides() -> None:
    merge = merge_of(BOTH, partitions=2)
    merge.add(event("a", "early", 1))
    for partition in (0, 1):
        advance(merge, 100, "a", partition=partition)
    advance(merge, 100, "b", partition=0)
    assert released(merge) == [], "of b, partition 1 has said nothing yet"
    advance(merge, 50, "b", partition=1)
    merge.add(event("b", "at the slowest", 50, partition=1))
    merge.add(event("b", "before it", 49, partition=1))
    assert released(merge) == ["early", "before it"]


def test_a_watermark_never_goes_back() -> None:
    merge = merge_of(ALONE)
    advance(merge, 10, "c")
    advance(merge, 5, "c")
    assert merge.watermark_us(ALONE) == 10
    assert merge.changed_watermarks() == {(EVENTS, 0, "c"): 10}
    assert merge.changed_watermarks() == {}, "what was stored is no change any more"


def test_a_record_below_what_was_released_takes_its_turn_at_the_watermark() -> None:
    """Never in the past: what is released after it has a time that is not earlier."""
    merge = merge_of(BOTH)
    advance(merge, 10, "a", "b")
    assert released(merge) == []
    assert merge.add(event("b", "late", 3))
    assert merge.add(event("a", "in time", 10))
    assert merge.late == 1
    advance(merge, 11, "a", "b")
    assert released(merge) == ["in time", "late"], "both at 10, by stream"


def test_only_a_partition_on_which_every_stream_is_ahead_may_wait() -> None:
    merge = merge_of(BOTH, partitions=2)
    for partition in (0, 1):
        advance(merge, 10, "a", partition=partition)
    advance(merge, 12, "b", partition=0)
    assert merge.ahead() == {(EVENTS, 0)}, "of b, partition 1 has not said anything: reading it is what all wait for"
    advance(merge, 5, "b", partition=1)
    assert merge.ahead() == {(EVENTS, 0)}, "partition 1 holds the slowest input, though a is far ahead on it"
    advance(merge, 12, "b", partition=1)
    assert merge.ahead() == set(), "on both, a is the slowest"


def test_a_partition_is_read_while_any_group_waits_for_it() -> None:
    merge = merge_of(BOTH, ALONE)
    advance(merge, 10, "a")
    advance(merge, 20, "b")
    advance(merge, 30, "c")
    assert merge.ahead() == set(), "c and b are ahead there, a is not"


def test_groups_are_released_each_by_its_own_watermark() -> None:
    merge = merge_of(BOTH, ALONE)
    merge.add(event("a", "waits", 1))
    merge.add(event("c", "leaves", 1))
    advance(merge, 5, "a", "c")
    assert [(group, us, [e.id for e in events]) for group, us, events in merge.release()] == [(ALONE, 5, ["leaves"])]
    assert merge.held == 1
    assert (merge.released_us(ALONE), merge.released_us(BOTH)) == (5, None)


def test_a_group_whose_watermark_stands_still_is_not_released_again() -> None:
    merge = merge_of(ALONE)
    advance(merge, 5, "c")
    assert len(list(merge.release())) == 1
    assert list(merge.release()) == []


def test_what_no_group_wants_is_not_held_and_what_no_group_wants_any_more_is_given_back() -> None:
    merge = merge_of(BOTH)
    assert not merge.add(event("c", "nobody's", 1))
    assert merge.add(event("a", "kept", 1))
    assert merge.add(event("b", "given back", 1))
    only_a: Group = frozenset({(EventAccepted, "a")})
    assert [e.id for e in merge.regroup([only_a])] == ["given back"]
    advance(merge, 2, "a")
    assert released(merge) == ["kept"]


def test_after_a_restart_what_lay_below_the_stored_watermarks_counts_as_released() -> None:
    merge = merge_of(BOTH)
    merge.restore({(EVENTS, 0, "a"): 10, (EVENTS, 0, "b"): 20})
    assert merge.released_us(BOTH) == 10
    merge.add(event("a", "late", 3))
    assert merge.late == 1
    assert list(merge.release()) == []


def test_the_name_of_a_group_does_not_depend_on_the_order_of_its_members() -> None:
    assert name_of(BOTH) == "merge:EventAccepted/a,EventAccepted/b"
