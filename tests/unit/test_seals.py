"""Seals as consumers take them, and what a rebuilt store publishes, without a broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from evenkeel.contracts.envelope import CLOCK_TYPE, Headers
from evenkeel.contracts.feature import VectorComputed, ViewUpdated
from evenkeel.contracts.runtime import ClockAdvanced, SourcesSealed
from evenkeel.contracts.topics import published_by, topic_of
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.runtime.outputs import OutputBuilder, Published
from evenkeel.libs.runtime.published import BeforeSeals, Found
from evenkeel.libs.service import Cause, Derived, Output, Seal, Watermark
from evenkeel.libs.telemetry.tracing import Tracing
from evenkeel.services.__main__ import service_named
from tests.feature_log import HOUR_US, MINUTE_US, START_US, Feature, Log, accepted_id
from tests.makers import vector_computed
from tests.records import ReadRecord, Topics

OLD, NEW = "/evenkeel/ingest/log", "/evenkeel/ingest/new"
FORMER, NEWEST = "0" * 32, "1" * 32


def said(
    outputs: Sequence[Output], store: str = "new", published: Published | None = None, service: str = "ingest"
) -> list[OutgoingRecord]:
    builder = OutputBuilder(service, store, {}, START_US, Tracing(service, "test").batch(), published)
    builder.add(outputs, "test")
    return builder.finish()


def by_another(record: ReadRecord, source: str, sequence: int) -> ReadRecord:
    """The same fact, said by another store."""
    changed = {"ce_source": source.encode(), "ce_sequence": b"%020d" % sequence}
    headers: Headers = [(name, changed.get(name, value)) for name, value in record.headers]
    return replace(record, headers=headers)


def test_behind_a_seal_only_the_new_store_is_heard_also_after_a_restart(tmp_path: Path) -> None:
    log = Log()
    log.declare(["flights", "weather", "sales"], ["load"])
    for number in range(4):
        log.event("flights", f"f{number}", START_US + number * MINUTE_US, {"load": 1.0, "carrier": "x"}, partition=0)
    feature = Feature(tmp_path)
    *before, lost, zombie = log.records
    log.forget(lost.topic, 0, 2)
    feature.consume(before)
    seals = log.write(said([Seal(["log"])]))
    assert {(s.topic, s.partition) for s in seals} == {
        (topic.name, partition) for topic in published_by("ingest") for partition in range(topic.partitions)
    }
    assert all(SourcesSealed.model_validate_json(seal.value or b"").sources == [OLD] for seal in seals)
    heard = [seal for seal in seals if seal.topic in (lost.topic, "ingest.label-accepted.v1")]
    feature.consume(heard)
    feature.consume(log.write([zombie]))
    feature.restart()
    feature.consume(log.write([zombie, by_another(lost, NEW, 100), by_another(zombie, NEW, 101)]))
    feature.consume(log.write([by_another(lost, NEW, 100)]))
    log.records.clear()
    log.close(START_US + HOUR_US)
    feature.consume([by_another(r, NEW, 200 + n) for n, r in enumerate(log.records)])
    assert sorted(feature.vectors("load")) == ["f0", "f1", "f2", "f3"]
    feature.close()


def vector(number: int) -> Derived:
    payload = vector_computed(model="load", stream="flights", event_id=f"f{number}")
    return Derived(payload, Cause(accepted_id("flights", f"f{number}"), START_US + number, "c"), stream="load")


def test_what_stands_before_the_seals_is_not_said_again() -> None:
    """Found by its id, or earlier than the last watermark on its partition; everything else is said."""
    reading, topics = BeforeSeals(service_named("feature"), {NEWEST}, 1), Topics()
    first = [vector(0), vector(1), Watermark(VectorComputed, "load", START_US + 5), vector(7)]
    topics.say("feature", first, store=FORMER)
    topics.say("feature", [Seal([FORMER])], store=NEWEST)
    topics.say("feature", [vector(8)], store=FORMER)
    for record in topics.records:
        reading.take(record)
    found = reading.found
    assert found.stores == {FORMER, NEWEST}
    again = [vector(n) for n in range(10)]
    kept = said([*again, Watermark(VectorComputed, "load", START_US + 5)], "new", found, "feature")
    numbers = [int(dict(r.headers)["ce_time"].decode()[20:26]) for r in kept]
    assert numbers == [5, 6, 8, 9]
    sequences = [int(dict(r.headers)["ce_sequence"]) for r in kept]
    assert sequences == [1, 2, 3, 4], "what is not said takes no number"
    later = said([Watermark(VectorComputed, "load", START_US + 6)], "new", found, "feature")
    assert len(later) == topic_of(VectorComputed, "feature").partitions


def test_compacted_topics_are_silent_until_the_end() -> None:
    slot = ViewUpdated(view="load", view_version="v", slot="0|x|1", tile=[0, 1, 1.0, 0.0, 1.0, 1.0, 0, "a", 1.0])
    update = Derived(slot, Cause("c", START_US, "c"), stream="load")
    assert not said([update], "new", Found(), "feature")
    assert len(said([update], "new", None, "feature")) == 1


def test_a_transaction_says_once_on_each_partition_how_far_its_streams_have_come() -> None:
    """Behind everything else, whatever came between, and never less than before."""
    marks = [
        Watermark(VectorComputed, "load", START_US + 5),
        Watermark(VectorComputed, "delay", START_US),
        Watermark(VectorComputed, "load", START_US + 3),
        Watermark(ViewUpdated, "load", START_US + 9),
    ]
    records = said([marks[0], vector(7), *marks[1:], vector(8)], service="feature")
    clocks = [record for record in records if record.key == CLOCK_TYPE.encode()]
    assert records[2:] == clocks, "all events come first"
    told = [
        (one.topic, one.partition, ClockAdvanced.model_validate_json(one.value or b"").times_us()) for one in clocks
    ]
    vectors, view = topic_of(VectorComputed, "feature"), topic_of(ViewUpdated, "feature")
    assert told == [
        *((vectors.name, n, {"load": START_US + 5, "delay": START_US}) for n in range(vectors.partitions)),
        *((view.name, n, {"load": START_US + 9}) for n in range(view.partitions)),
    ]
    assert [int(dict(one.headers)["ce_sequence"]) for one in clocks] == [1, 2, 3, 4, 5, 6]
    assert len({dict(one.headers)["ce_id"] for one in clocks}) == 6


def test_a_rebuilt_store_says_only_of_the_streams_that_came_further() -> None:
    reading = BeforeSeals(service_named("feature"), {NEWEST}, 1)
    topics = Topics()
    for stream in ("load", "delay"):
        topics.say("feature", [Watermark(VectorComputed, stream, START_US + 5)], store=FORMER)
    for record in topics.records:
        reading.take(record)
    marks = [Watermark(VectorComputed, "load", START_US + 5), Watermark(VectorComputed, "delay", START_US + 6)]
    told = said(marks, "new", reading.found, "feature")
    assert [ClockAdvanced.model_validate_json(one.value or b"").times_us() for one in told] == [
        {"delay": START_US + 6}
    ] * topic_of(VectorComputed, "feature").partitions
    assert not said([Watermark(ViewUpdated, "load", START_US)], "new", reading.found, "feature"), "silent until the end"
