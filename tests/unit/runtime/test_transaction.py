"""Steps 2 to 8 over a list of records, on both kinds of stores: what a transaction leaves, skips, parks and refuses."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from evenkeel.contracts.feature import VectorComputed
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.errors import Fenced, NotYet, Refused, Storm
from evenkeel.libs.runtime.attempt import Attempt, HandlerFailed
from evenkeel.libs.runtime.originals import KEPT_BYTES
from evenkeel.libs.service import Reply, Seal
from tests.harness import Harness
from tests.records import ReadRecord
from tests.unit.runtime.orders import EVENTS, INPUTS, STREAMS, OrderContext, Orders, kept, orders_service

PARTITIONS = BY_NAME[EVENTS].partitions


@pytest.fixture(params=["sqlite", "lmdb"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def broken() -> set[str]:
    """What the handlers cannot take."""
    return set()


@pytest.fixture
def harness(engine: str, broken: set[str], tmp_path: Path) -> Iterator[Harness[OrderContext]]:
    with structlog.testing.capture_logs():  # failing handlers log their tracebacks
        one = Harness(orders_service(engine, broken), tmp_path)
        yield one
        one.close()


def folded(harness: Harness[OrderContext]) -> list[str]:
    """What the store says; the cache says the same."""
    found = harness.query(kept)
    assert found == harness.context.folded
    return found


def letters(harness: Harness[OrderContext]) -> list[RecordDeadLettered]:
    return harness.payloads(RecordDeadLettered)


def repeated(harness: Harness[OrderContext], records: list[ReadRecord]) -> int:
    return harness.consume(records).repeated.total()


# -- atomic ------------------------------------------------------------------------------------------------------------


def test_a_transaction_that_fails_leaves_nothing(harness: Harness[OrderContext], broken: set[str]) -> None:
    topics = Orders()
    harness.consume([*topics.declare(), *topics.order("before", 1), *topics.advance(2)])
    state, said = harness.store.read_state(), len(harness.said)
    broken.add("bad")
    batch = [*topics.order("good", 3), *topics.order("bad", 4), *topics.order("held", 9), *topics.advance(5)]
    with pytest.raises(KeyError, match="bad"):
        harness.consume(batch)
    assert harness.store.read_state() == state
    assert len(harness.said) == said
    assert folded(harness) == ["orders", "before"]
    broken.clear()
    harness.consume(batch)
    assert folded(harness) == ["orders", "before", "good", "bad"], "nothing of the first try counts as a repeat"
    assert len({event.id for event in harness.events(VectorComputed)}) == 3


def test_what_waits_right_behind_a_transaction_that_failed_sees_no_cache_of_it(
    harness: Harness[OrderContext], broken: set[str]
) -> None:
    topics = Orders()
    broken.add("orders")
    with pytest.raises(KeyError):
        harness.transactions.consume(Attempt(topics.declare()))
    _, seen = harness.transactions.run(lambda ctx: Reply(list(ctx.folded)), "http")
    assert seen == []


def test_a_refused_command_says_nothing_and_loads_nothing_anew(harness: Harness[OrderContext]) -> None:
    def refuse(ctx: OrderContext) -> Reply[None]:
        raise Refused(409, "No", "not now")

    state, cache = harness.store.read_state(), harness.context.folded
    with pytest.raises(Refused):
        harness.transactions.run(refuse, "http")
    assert harness.store.read_state() == state
    harness.transactions.run(lambda ctx: Reply(None), "http")
    assert harness.context.folded is cache


def test_positions_marks_sequences_and_outbox_move_together(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    harness.consume([*topics.declare(), *topics.order("a", 1, partition=0), *topics.advance(2)])
    state = harness.store.read_state()
    assert state.positions[STREAMS, 0] == 1
    assert state.positions[EVENTS, 0] == 2, "the order and the watermark"
    assert state.marks[b"/evenkeel/ingest/log", b"test", EVENTS, 0] == 1
    assert state.marks[b"/evenkeel/ingest/log", b"clock", EVENTS, 0] == 1
    assert len(state.outbox) == 1
    assert state.sequences == {"merge:EventAccepted/orders,LabelAccepted/orders": 1}
    assert set(state.watermarks.values()) == {2 * SECOND_US}


def test_rows_that_are_published_leave_with_the_next_transaction(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    harness.consume([*topics.declare(), *topics.order("a", 1), *topics.advance(2)])
    ((row, _),) = harness.store.read_state().outbox
    harness.acknowledged.add(row)
    assert len(harness.store.read_state().outbox) == 1
    harness.consume([*topics.order("b", 3), *topics.advance(4)])
    ((left, _),) = harness.store.read_state().outbox
    assert left > row
    harness.acknowledged.add(left)
    harness.transactions.housekeep()
    assert harness.store.read_state().outbox == []


# -- fencing -----------------------------------------------------------------------------------------------------------


def test_a_position_that_somebody_else_moved_undoes_the_whole_batch(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    harness.consume(topics.declare())
    first, second = topics.declare("taken"), topics.declare("free")
    with harness.store.begin() as tx:
        tx.move_positions({(STREAMS, 0): (1, 2)})
    with pytest.raises(Fenced, match=f"{STREAMS}/0"):
        harness.consume([*first, *second])
    assert folded(harness) == ["orders"]
    harness.consume([*first, *second])
    assert folded(harness) == ["orders", "free"], "what the other one took is behind the position that was read again"


def test_whoever_lost_the_lease_writes_nothing(harness: Harness[OrderContext], engine: str, broken: set[str]) -> None:
    topics = Orders()
    harness.clock.us += 7 * SECOND_US
    epoch = harness.store.take_lease("another-host-1", harness.clock.us, 3600 * SECOND_US, lambda owner: False)
    assert epoch is not None
    for attempt in (
        lambda: harness.consume(topics.declare()),
        lambda: harness.command(lambda ctx: Reply(ctx.keep("x"))),
        harness.transactions.housekeep,
    ):
        with pytest.raises(Fenced, match="lease"):
            attempt()
    assert folded(harness) == []
    assert harness.store.read_state().positions == {}


# -- repeats and seals -------------------------------------------------------------------------------------------------


def test_a_repeat_of_one_origin_is_known_at_another_offset_in_the_batch_and_after_a_restart(
    harness: Harness[OrderContext],
) -> None:
    topics = Orders()
    declared = topics.declare()
    again = topics.write(declared)
    assert repeated(harness, [*declared, *again]) == 1
    harness.restart()
    assert repeated(harness, topics.write(declared)) == 1
    assert folded(harness) == ["orders"]


def test_a_batch_that_is_read_again_is_passed_over_by_its_offsets(harness: Harness[OrderContext]) -> None:
    declared = Orders().declare()
    harness.consume(declared)
    committed = harness.consume(declared)
    assert (committed.consumed.total(), committed.repeated.total()) == (0, 0)


def by_another_store(records: list[ReadRecord], store: str) -> list[ReadRecord]:
    """The same, said by another store of registry."""
    source = f"/evenkeel/registry/{store}".encode()
    return [
        replace(one, headers=[(name, source if name == "ce_source" else text) for name, text in one.headers])
        for one in records
    ]


def test_the_same_sequence_of_another_store_is_no_repeat(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    (declared,) = topics.declare()
    (same,) = by_another_store([declared], "other")
    harness.consume([declared, replace(same, offset=1)])
    assert folded(harness) == ["orders", "orders"]


def test_a_sealed_source_is_ignored_behind_its_seal_and_heard_before_it(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    before = topics.declare("before")
    seals = [one for one in topics.say("registry", [Seal(["log"])], store="new") if one.topic == STREAMS]
    behind = topics.declare("behind")
    newer = topics.say("registry", [], store="new")
    assert repeated(harness, [*before, *seals, *behind, *newer]) == 1
    harness.restart()
    assert repeated(harness, topics.declare("later")) == 1
    assert folded(harness) == ["before"]


def test_a_seal_of_a_transaction_that_failed_seals_nothing(harness: Harness[OrderContext], broken: set[str]) -> None:
    topics = Orders()
    seals = [one for one in topics.say("registry", [Seal(["log"])], store="new") if one.topic == STREAMS]
    bad = topics.declare("bad")
    broken.add("bad")
    newer = by_another_store(bad, "third")
    with pytest.raises(KeyError):
        harness.consume([*seals, *newer])
    broken.clear()
    harness.consume([replace(bad[0], offset=0)])
    assert folded(harness) == ["bad"], "the seal was not committed, so its source is heard"


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_used_is_a_dead_letter_with_its_bytes_and_the_reason(
    harness: Harness[OrderContext],
) -> None:
    topics = Orders()
    (good,) = topics.declare()
    bad = [
        replace(good, offset=1, headers=[("x", b"\x00")], key=b"k", value=b"\xffnot ours"),
        replace(good, offset=2, value=b'{"name": 1}', headers=renumbered(good, 2)),
        replace(good, offset=3, value=b'{"name": "\\u0000"}', headers=renumbered(good, 3)),
        replace(good, offset=4, headers=[(n, b"x" if n == "ce_type" else v) for n, v in renumbered(good, 4)]),
    ]
    last = replace(good, offset=5, headers=renumbered(good, 5))
    committed = harness.consume([good, *bad, last])
    assert committed.dead_lettered == {STREAMS: 4}
    found = letters(harness)
    assert [(one.topic, one.offset) for one in found] == [(STREAMS, offset) for offset in (1, 2, 3, 4)]
    assert base64.b64decode(found[0].value or "") == b"\xffnot ours"
    assert base64.b64decode(found[0].key or "") == b"k"
    assert found[0].headers == [("x", "AA==")]
    assert [one.reason.split(":")[0] for one in found] == ["envelope", "payload", "envelope", found[3].reason]
    assert "ce_id is missing" in found[0].reason
    assert "name" in found[1].reason
    assert "U+0000" in found[2].reason
    assert found[3].reason == "ce_type is b'x', this topic carries b'io.evenkeel.registry.stream-declared.v1'"
    assert folded(harness) == ["orders", "orders"], "the others go on"


def test_a_record_too_large_to_be_kept_is_named(harness: Harness[OrderContext]) -> None:
    (good,) = Orders().declare()
    harness.consume([replace(good, value=b"x" * (KEPT_BYTES + 1))])
    (letter,) = letters(harness)
    assert (letter.key, letter.value, letter.headers) == (None, None, [])
    assert f"they stay at {STREAMS}/0/0" in letter.reason


def test_the_id_of_a_dead_letter_follows_from_the_record(harness: Harness[OrderContext]) -> None:
    (good,) = Orders().declare()
    bad = replace(good, value=b"{}")
    harness.consume([bad])
    (first,) = harness.events(RecordDeadLettered)
    other = replace(bad, offset=1, headers=renumbered(bad, 2))
    harness.consume([other])
    again = harness.events(RecordDeadLettered)
    assert len({event.id for event in again}) == 2
    assert first.time_us == 0, "the broker's time of the record"


def test_a_storm_stops_before_it_fills_the_dead_letters(harness: Harness[OrderContext]) -> None:
    """More than one in twenty of the last five hundred."""
    (good,) = Orders().declare()
    bad = [replace(good, offset=n, value=b"{}", headers=renumbered(good, n + 1)) for n in range(26)]
    harness.consume(bad[:25])
    with pytest.raises(Storm, match="26 of the last 500"):
        harness.consume(bad[25:])
    assert len(letters(harness)) == 25


def renumbered(record: ReadRecord, sequence: int) -> list[tuple[str, bytes]]:
    return [(name, b"%020d" % sequence if name == "ce_sequence" else text) for name, text in record.headers]


# -- facts and faults, as the loop answers them ------------------------------------------------------------------------


def test_a_record_waits_for_its_fact_and_is_folded_with_it(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    orders = [*topics.order("early", 1), *topics.advance(2)]
    with pytest.raises(NotYet, match="stream orders is not declared"):
        harness.consume(orders)
    harness.process(orders, facts=topics.declare())
    assert folded(harness) == ["orders", "early"]


def test_what_names_a_fact_that_nobody_said_is_a_dead_letter(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    stranger = topics.order("stranger", 1, stream="never")
    harness.process([*stranger, *topics.order("known", 1), *topics.advance(2)], facts=topics.declare())
    assert folded(harness) == ["orders", "known"]
    (letter,) = letters(harness)
    assert letter.reason == "unknown fact: stream never is not declared"
    assert letter.offset == stranger[0].offset


def test_a_fact_may_stand_before_the_one_that_it_names(harness: Harness[OrderContext]) -> None:
    """As clocks of several brokers or one millisecond allow: it takes its turn after that, in the same transaction."""
    topics = Orders()
    harness.consume(
        [*topics.declare("child-of-b"), *topics.declare("a"), *topics.declare("child-of-a"), *topics.declare("b")]
    )
    assert folded(harness) == ["a", "child-of-a", "b", "child-of-b"]


def test_a_fact_that_its_handler_cannot_take_is_a_dead_letter_after_three_tries(
    harness: Harness[OrderContext], broken: set[str]
) -> None:
    topics = Orders()
    broken.add("bad")
    harness.process([*topics.declare("a"), *topics.declare("bad"), *topics.declare("b")])
    assert folded(harness) == ["a", "b"]
    (letter,) = letters(harness)
    assert (letter.topic, letter.offset, letter.reason) == (STREAMS, 1, "KeyError: 'bad'")
    harness.restart()
    assert folded(harness) == ["a", "b"]


def test_an_event_that_cannot_be_asked_for_its_facts_is_a_dead_letter_and_parks_nobody(
    harness: Harness[OrderContext], broken: set[str]
) -> None:
    topics = Orders()
    broken.add("unaskable odd")
    harness.process([*topics.declare(), *topics.order("odd", 1), *topics.order("even", 1), *topics.advance(2)])
    assert folded(harness) == ["orders", "even"]
    assert [one.reason for one in letters(harness)] == ["ValueError: odd"]


# -- held and parked ---------------------------------------------------------------------------------------------------


def test_what_may_not_be_released_yet_is_held_over_a_restart(harness: Harness[OrderContext]) -> None:
    topics = Orders()
    harness.consume([*topics.declare(), *topics.order("b", 5), *topics.order("a", 4)])
    assert (folded(harness), harness.transactions.kept().held) == (["orders"], 2)
    harness.restart()
    assert harness.transactions.kept().held == 2
    harness.consume(topics.advance(5))
    assert (folded(harness), harness.transactions.kept().held) == (["orders", "a"], 1)
    harness.restart()
    harness.consume(topics.advance(6))
    assert (folded(harness), harness.transactions.kept().held) == (["orders", "a", "b"], 0)


def key_of(record: ReadRecord) -> bytes:
    assert record.key is not None
    return record.key


def test_a_key_is_parked_in_order_and_released_in_order(harness: Harness[OrderContext], broken: set[str]) -> None:
    """Two orders of one id share a key; a third of another does not wait for them."""
    topics = Orders()
    broken.add("first")
    first, second = topics.order("first", 1), topics.order("second", 2)
    second = [replace(second[0], key=key_of(first[0]))]
    harness.process([*topics.declare(), *first, *second, *topics.order("other", 2), *topics.advance(3)])
    assert folded(harness) == ["orders", "other"]
    assert harness.transactions.kept().parked == 2
    assert letters(harness) == [], "it is kept for later, not given up"
    ((group, queue),) = harness.transactions.merging.parked()
    assert [(one.event.id, one.reason) for one in queue] == [("first", "KeyError: 'first'"), ("second", "")]
    harness.restart()
    assert harness.transactions.kept().parked == 2
    harness.consume(topics.advance(10))

    with pytest.raises(HandlerFailed, match="first"):
        harness.transactions.release_parked(group, key_of(first[0]), "parked")
    harness.transactions.load()
    assert harness.transactions.kept().parked == 2, "all or nothing"
    broken.clear()
    _, released = harness.transactions.release_parked(group, key_of(first[0]), "parked")
    assert (released, harness.transactions.kept().parked) == (2, 0)
    assert folded(harness) == ["orders", "other", "first", "second"]
    assert group == INPUTS


def test_what_is_released_from_its_parking_comes_as_late_events_at_the_watermark(
    harness: Harness[OrderContext], broken: set[str]
) -> None:
    topics = Orders()
    broken.add("bad")
    (bad,) = topics.order("bad", 1)
    harness.process([*topics.declare(), bad, *topics.advance(3)])
    harness.consume(topics.advance(10))
    broken.clear()
    ((group, _),) = harness.transactions.merging.parked()
    harness.command(lambda ctx: Reply(*harness.transactions.merging.release_parked(group, key_of(bad), ctx.tx)))
    (vector,) = harness.events(VectorComputed)
    assert (vector.time_us, vector.order_us) == (1 * SECOND_US, 10 * SECOND_US)
