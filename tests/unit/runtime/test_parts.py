"""The small parts of the event loop's side: what each of them decides, by itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prometheus_client import Gauge

from evenkeel.libs.runtime.assignment import reach
from evenkeel.libs.runtime.disk import DiskRoom
from evenkeel.libs.runtime.housekeeping import UNANSWERED, BrokerWatch
from evenkeel.libs.runtime.rebuild import left_of
from evenkeel.libs.runtime.waiting import Readiness
from tests.records import ReadRecord


@pytest.fixture
def gauge() -> Gauge:
    return Gauge("gauge", "", registry=None)


def record(topic: str, offset: int) -> ReadRecord:
    return ReadRecord(topic, 0, offset, None, None, ())


def test_consuming_stops_with_less_room_than_is_wanted(tmp_path: Path, gauge: Gauge) -> None:
    free = shutil.disk_usage(tmp_path).free
    tight, wide = DiskRoom(tmp_path, 2 * free, gauge), DiskRoom(tmp_path, free // 2, gauge)
    tight.look()
    wide.look()
    assert wide.shortage is None
    assert tight.shortage is not None
    assert f"consuming goes on with {2 * free} (EVENKEEL_MIN_FREE_BYTES)" in tight.shortage
    assert gauge._value.get() > 0


def test_a_folder_that_is_away_is_not_a_full_disk(tmp_path: Path, gauge: Gauge) -> None:
    room = DiskRoom(tmp_path / "away", 2**60, gauge)
    room.look()
    assert room.shortage is None


def test_a_broker_counts_as_away_after_three_commits_without_an_answer(gauge: Gauge) -> None:
    readiness = Readiness(gauge)
    watch = BrokerWatch(readiness)

    def says() -> str | None:
        readiness.say(None)
        return readiness.reason

    heard = []
    for answered in (False, False, True, False, False, False, True):
        watch.note(answered=answered)
        heard.append(says())
    away = "broker: it does not answer"
    assert heard == [None, None, None, None, None, away, None]
    assert UNANSWERED == 3


def test_facts_are_read_to_their_end_by_what_was_read_before_and_what_is_at_hand() -> None:
    ends = {("a", 0): 5, ("b", 0): 2}
    assert not reach(ends, {("a", 0): 5}, [])
    assert not reach(ends, {("a", 0): 5}, [record("b", 0)])
    assert reach(ends, {("a", 0): 5}, [record("b", 1), record("c", 9)])
    assert reach(ends, {("a", 0): 7, ("b", 0): 2}, [record("a", 0)]), "a record that comes again takes nothing back"


def test_a_rebuild_goes_on_where_it_was_in_its_order() -> None:
    order = [("a", 0, 3), ("b", 0, 2), ("a", 0, 4)]
    assert list(left_of(order, {})) == order
    assert list(left_of(order, {("a", 0): 5})) == [("b", 0, 2), ("a", 0, 2)]
    assert list(left_of(order, {("a", 0): 2, ("b", 0): 2})) == [("a", 0, 1), ("a", 0, 4)]
    assert list(left_of(order, {("a", 0): 9, ("b", 0): 9})) == []
