"""What a service has said before its seals, read from a list of records."""

from __future__ import annotations

from typing import Any

from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.runtime.published import BeforeSeals
from evenkeel.libs.service import Cause, Derived, Seal, Service
from evenkeel.services.__main__ import service_named
from tests.makers import dataset_committed, vector_computed
from tests.records import Topics

FEATURE: Service[Any] = service_named("feature")
LOST, NEWEST = "0" * 32, "1" * 32


def vector(number: int) -> Derived:
    cause = Cause(f"c{number}", number * SECOND_US, "c")
    return Derived(vector_computed(event_id=f"e{number}"), cause, stream="m")


def read(topics: Topics, stores: set[str], first_sequence: int) -> BeforeSeals:
    reading = BeforeSeals(FEATURE, stores, first_sequence)
    for record in topics.records:
        reading.take(record)
    return reading


def test_what_a_lost_store_said_behind_its_seal_does_not_count() -> None:
    topics = Topics()
    topics.say("feature", [vector(1)], store=LOST)
    topics.say("feature", [Seal([LOST])], store=NEWEST)
    topics.say("feature", [vector(2)], store=LOST)
    found = read(topics, {NEWEST}, 1).found
    assert (found.count, found.stores) == (1, {LOST, NEWEST})


def test_seals_of_an_earlier_try_close_nothing() -> None:
    """A crash between two seals: the later one names more stores, so what stands before it counts."""
    topics = Topics()
    topics.say("feature", [Seal([LOST])], store=NEWEST)
    (second,) = {dict(one.headers)["ce_sequence"] for one in topics.records[-1:]}
    topics.say("feature", [vector(1)], store="2" * 32)
    topics.say("feature", [Seal([LOST, "2" * 32])], store=NEWEST)
    topics.say("feature", [vector(2)], store="2" * 32)
    found = read(topics, {NEWEST}, int(second) + 1).found
    assert found.count == 1
    assert read(topics, {NEWEST}, 1).found.count == 0


def test_what_others_wrote_there_is_not_ours() -> None:
    topics = Topics()
    topics.say("feature", [vector(1)], store="not-an-id")
    assert read(topics, set(), 0).found.count == 0


def test_facts_are_told_and_of_the_rest_only_ids_are_kept() -> None:
    topics = Topics()
    topics.fact("feature", dataset_committed(version=7), "2013-01-02T00:00:00Z", store=LOST)
    topics.say("feature", [vector(1)], store=LOST)
    found = read(topics, set(), 0).found
    assert found.count == 2
    assert [event.data.version for event in found.events] == [7]
