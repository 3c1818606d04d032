"""Ids and time of a stream: repeats, conflicts, late, too late, too far ahead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evenkeel.contracts.declaration import HOUR_US, StreamSpec
from evenkeel.contracts.envelope import parse_us
from evenkeel.libs.fields import Fault
from evenkeel.services.ingest.domain.contract import Checked
from evenkeel.services.ingest.domain.identities import IdBatch, SeenIds
from evenkeel.services.ingest.domain.stream import Stream, routes_of

SPEC = StreamSpec.model_validate(
    {
        "topic": "t",
        "id": "id",
        "time": "at",
        "lateness": "2h",
        "max_ahead": "24h",
        "fields": {"x": {"type": "number"}},
        "label": {
            "topic": "l",
            "id": "label_id",
            "joins": "id",
            "time": "at",
            "horizon": "2d",
            "fields": {"y": {"type": "number"}},
        },
    }
)
NOON_US = parse_us("2013-01-01T12:00:00Z")


(ROUTE, LABELS) = routes_of("orders", SPEC, 0)


def checked(hours: float, record_id: str = "a", content: int = 1) -> Checked:
    return Checked(record_id, record_id, NOON_US + int(hours * HOUR_US), {"x": content})


def judge(stream: Stream, hours: float, record_id: str = "a", content: int = 1, partition: int = 0) -> bool:
    """Whether it is late; remembered if it is taken."""
    record = checked(hours, record_id, content)
    judged = stream.judge(record, ROUTE, partition)
    stream.seen.add(judged.id_digest, judged.content_digest, record.time_us)
    return judged.late


def at_noon() -> Stream:
    stream = Stream("t")
    stream.clock.partitions(1)
    stream.clock.advance(0, NOON_US)
    return stream


def rule_of(stream: Stream, hours: float, record_id: str = "a", content: int = 1) -> str:
    with pytest.raises(Fault) as caught:
        judge(stream, hours, record_id, content)
    assert caught.value.event_id == record_id
    assert caught.value.reason
    assert caught.value.fix
    return caught.value.rule


def test_late_within_the_allowed_lateness() -> None:
    stream = at_noon()
    assert not judge(stream, 0, "on time")
    assert judge(stream, -0.01, "just late")
    assert judge(stream, -2, "at the limit")
    assert rule_of(stream, -2.01, "beyond") == "too_late"


def test_too_far_ahead_of_the_watermark() -> None:
    stream = at_noon()
    assert not judge(stream, 24, "at the limit")
    assert rule_of(stream, 24.01, "beyond") == "too_far_ahead"


def test_a_partition_that_is_read_first_is_not_ahead_of_time() -> None:
    stream = Stream("t")
    stream.clock.partitions(2)
    for partition in (0, 1):
        stream.clock.advance(partition, NOON_US)
    for hours in range(0, 480, 20):
        assert not judge(stream, hours, f"backlog {hours}", partition=1)
        stream.clock.advance(1, NOON_US + hours * HOUR_US)
    assert stream.clock.watermark_us == NOON_US
    assert rule_of(stream, 480, "a jump on the other partition") == "too_far_ahead"


def test_before_there_is_a_watermark_the_first_event_sets_the_limit() -> None:
    stream = Stream("t")
    stream.clock.partitions(2)
    assert not judge(stream, 1_000_000, "first")
    stream.largest_us = NOON_US
    assert rule_of(stream, 25, "beyond") == "too_far_ahead"
    assert not judge(stream, -1_000, "earlier is not late yet")


def test_same_id_with_the_same_content_is_a_duplicate_however_late() -> None:
    stream = at_noon()
    judge(stream, 0)
    assert rule_of(stream, 0) == "duplicate"
    stream.clock.advance(0, NOON_US + 100 * HOUR_US)
    assert rule_of(stream, 0) == "duplicate"


def test_same_id_with_other_content_is_a_conflict() -> None:
    stream = at_noon()
    judge(stream, 0)
    assert rule_of(stream, 0, content=2) == "id_conflict"


def test_a_rejected_record_may_come_again_with_its_id() -> None:
    stream = at_noon()
    assert rule_of(stream, -3) == "too_late"
    assert not judge(stream, 0)


def test_events_and_labels_are_streams_of_their_own() -> None:
    assert [(r.topic, r.kind, r.name, r.declaration) for r in routes_of("flights", SPEC, 7)] == [
        ("t", "event", "flights", 7),
        ("l", "label", "flights#label", 7),
    ]


# -- ids seen ------------------------------------------------------------------------------------------------------------

digests = st.integers(0, 2**64 - 1)


@given(st.lists(st.dictionaries(digests, digests, max_size=5), max_size=10))
def test_ids_survive_storage(batches: list[dict[int, int]]) -> None:
    seen, stored, known = SeenIds(), [], {}
    for number, batch in enumerate(batches):
        for id_digest, content in batch.items():
            if seen.look(id_digest, content) == "new":
                seen.add(id_digest, content, number)
                known[id_digest] = content
        taken = seen.take_batch()
        if taken is not None:
            stored.append(taken)
    restarted = SeenIds(stored)
    assert len(restarted) == len(seen) == len(known)
    for id_digest, content in known.items():
        assert restarted.look(id_digest, content) == "duplicate"
        assert restarted.look(id_digest, content ^ 1) == "id_conflict"


def batch_of(seen: SeenIds, time_us: int, *ids: int) -> IdBatch:
    for found in ids:
        seen.add(found, 0, time_us)
    taken = seen.take_batch()
    assert taken is not None
    return taken


def test_ids_beyond_the_horizon_are_forgotten_by_whole_batches() -> None:
    seen = SeenIds()
    numbers = [batch_of(seen, time_us, time_us, time_us + 1).number for time_us in (10, 20, 30)]
    assert numbers == [1, 2, 3]
    assert seen.prune(20, 100) == 1
    assert (seen.look(10, 0), seen.look(20, 0)) == ("new", "duplicate")
    assert seen.prune(None, 2) == 2
    assert seen.prune(10_000, 0) is None, "the last batch stays"
    assert batch_of(seen, 40, 50).number == 4


def test_nothing_added_is_nothing_stored() -> None:
    assert SeenIds().take_batch() is None
    assert SeenIds().prune(100, 0) is None
