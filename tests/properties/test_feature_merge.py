"""Shuffled partitions, any batches, any restarts: the same vectors and training rows as a naive fold in order.

The naive fold sorts all accepted records and goes through them one by one; it shares the window arithmetic with the
service (which tests/properties/test_windows.py holds against an oracle of its own) and none of its merge, journal,
snapshot or table code.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel.contracts.feature import DatasetCommitted, VectorComputed
from evenkeel.contracts.ids import label_stream
from evenkeel.libs.errors import NotYet
from evenkeel.libs.features import FeatureState, compile_plan, parse_label
from tests.feature_log import DAY_US, HOUR_US, MINUTE_US, START_US, Feature, Log, accepted_id
from tests.records import ReadRecord

MODELS = ("delay", "load")


@dataclass(frozen=True)
class Accepted:
    """One accepted record, with the watermark that ingest stamped on it."""

    stream: str
    id: str
    time_us: int
    watermark_us: int
    fields: dict[str, Any]

    @property
    def order(self) -> tuple[int, str, str]:
        return max(self.time_us, self.watermark_us), self.stream, accepted_id(self.stream, self.id)


def history(seed: int, count: int, disorder_us: int) -> list[Accepted]:
    """Records of three streams as ingest accepts them: out of order within `disorder_us`, a few later than that."""
    rng = random.Random(seed)
    raw: list[tuple[int, str, str, dict[str, Any]]] = []
    for number in range(count):
        time_us = START_US + rng.randrange(3 * DAY_US // MINUTE_US) * MINUTE_US // rng.choice((1, 1, 3))
        fields = {"origin": rng.choice("AB"), "carrier": rng.choice("xyz"), "load": rng.choice((None, 0.5, 1.1, 7))}
        raw.append((time_us, "flights", f"f{number}", fields))
        if rng.random() < 0.9:
            label_us = time_us + rng.choice((0, 1, 5 * MINUTE_US, 3 * HOUR_US, 20 * HOUR_US))
            delay = rng.choice((None, -3.5, 0.1, 16.0, 40.25))
            raw.append((label_us, "flights#label", f"f{number}", fields | {"delay": delay}))
        if rng.random() < 0.3:
            wind = {"origin": rng.choice("AB"), "wind": rng.choice((3.0, 4.7, 12.0))}
            raw.append((time_us, "weather", f"w{number}", wind))
    # Arrival: by event time, disturbed by as much as is declared, and a few by more, which ingest flags as late.
    raw.sort(key=lambda one: one[0] + rng.randrange(disorder_us + 1) + (rng.random() < 0.05) * 2 * HOUR_US)
    newest: dict[str, int] = {}
    accepted = []
    for time_us, stream, record_id, fields in raw:
        newest[stream] = max(newest.get(stream, 0), time_us)
        accepted.append(Accepted(stream, record_id, time_us, newest[stream] - disorder_us, fields))
    return accepted


def naive(log: Log, model: str, accepted: Sequence[Accepted]) -> tuple[dict[str, list[float | None]], list[Any]]:
    """Vectors by event id, and (event id, event time, label time, label, values) in the order of their labels."""
    spec = log.declaration.models[model]
    plan, rule = compile_plan(spec, log.declaration.streams), parse_label(spec.label)
    state, vectors, times, rows = FeatureState(plan, journal=False), {}, {}, []
    for one in sorted(accepted, key=lambda one: one.order):
        order_us = one.order[0]
        if one.stream == spec.stream:
            values = [None if value != value else value for value in state.vector(one.fields, order_us)]
            vectors[one.id], times[one.id] = values, one.time_us
        if one.stream == label_stream(spec.stream) and one.id in times:
            label = rule.value(one.fields)
            if label is not None and order_us <= times[one.id] + 12 * HOUR_US:
                rows.append((one.id, times.pop(one.id), order_us, label, vectors[one.id]))
        state.fold(one.stream, one.time_us, one.id, one.fields)
    return vectors, rows


def written(accepted: Sequence[Accepted], rng: random.Random) -> Log:
    """The same records, each on a partition of its own choice, with watermark records in between."""
    log = Log()
    log.declare(["flights", "weather", "sales"], ["delay", "load", "returned"])
    for one in accepted:
        partition = rng.randrange(3)
        if one.stream.endswith("#label"):
            log.label("flights", one.id, one.time_us, one.fields, watermark_us=one.watermark_us, partition=partition)
        else:
            log.event(one.stream, one.id, one.time_us, one.fields, watermark_us=one.watermark_us, partition=partition)
        if rng.random() < 0.1:
            log.watermark(one.stream, one.watermark_us)
    log.close(START_US + 30 * DAY_US)
    return log


def shuffled(records: Sequence[ReadRecord], rng: random.Random) -> list[ReadRecord]:
    """Partitions interleaved at will; each keeps its own order. The control topics come first, as in the runtime."""
    control = [record for record in records if record.topic.startswith("registry.")]
    queues: dict[tuple[str, int], list[ReadRecord]] = {}
    for record in records:
        if not record.topic.startswith("registry."):
            queues.setdefault((record.topic, record.partition), []).append(record)
    weights = {where: rng.choice((1, 3, 30)) for where in queues}
    mixed = []
    while queues:
        where = rng.choices(list(queues), [weights[one] for one in queues])[0]
        mixed.append(queues[where].pop(0))
        if not queues[where]:
            del queues[where]
    return control + mixed


def run(log: Log, rng: random.Random, folder: Path, restarts: float) -> Feature:
    feature = Feature(folder, snapshot_records=rng.choice((5, 40, 10_000)), view_flush_ms=rng.choice((0, 50)))
    records = shuffled(log.records, rng)
    largest = rng.choice((1, 7, 60, 2_000))
    start = 0
    while start < len(records):
        size = rng.randrange(1, largest + 1)
        if rng.random() < restarts:
            refused(feature, records[start : start + size])
        feature.consume(records[start : start + size])
        feature.clock.us += rng.randrange(100_000)
        start += size
        if rng.random() < restarts:
            feature.restart()
    return feature


def refused(feature: Feature, batch: Sequence[ReadRecord]) -> None:
    """A transaction that fails halfway: the batch, with a record that names a declaration which was not read yet."""
    log = Log()
    log.event("flights", "later", START_US, {"load": 1.0}, declaration=99)
    (unknown,) = log.records
    headers = [(name, b"/evenkeel/ingest/other" if name == "ce_source" else value) for name, value in unknown.headers]
    with pytest.raises(NotYet):
        feature.consume([*batch, replace(unknown, offset=10**9, headers=headers)])


def said(feature: Feature) -> dict[str, tuple[Any, ...]]:
    """What was published, by its id; each once."""
    events = [*feature.events(VectorComputed), *feature.events(DatasetCommitted)]
    found = {
        e.id: (e.topic, e.partition, e.time_us, e.stream, e.order_us, e.causation_id, e.data.model_dump_json())
        for e in events
    }
    assert len(found) == len(events)
    return found


def bits(values: Sequence[float | None]) -> list[str | None]:
    return [None if value is None or value != value else float(value).hex() for value in values]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    disorder_us=st.sampled_from([0, MINUTE_US, 2 * HOUR_US]),
    restarts=st.sampled_from([0.0, 0.05]),
)
def test_vectors_and_rows_are_those_of_a_fold_in_order(
    seed: int, count: int, disorder_us: int, restarts: float
) -> None:
    accepted, rng = history(seed, count, disorder_us), random.Random(seed + 1)
    log = written(accepted, rng)
    with tempfile.TemporaryDirectory() as folder:
        feature = run(log, rng, Path(folder), restarts)
        for model in MODELS:
            vectors, rows = naive(log, model, accepted)
            found = feature.vectors(model)
            assert found.keys() == vectors.keys()
            assert {one: bits(found[one]) for one in found} == {one: bits(vectors[one]) for one in vectors}
            commits = feature.staged_rows(model)
            staged = [row for _, commit in commits for row in commit]
            assert [(r.event_id, r.event_time_us, r.label_time_us, r.label) for r in staged] == [r[:4] for r in rows]
            assert [bits(row.values) for row in staged] == [bits(row[4]) for row in rows]
            days = sorted({row[2] // DAY_US for row in rows})
            assert [cut for cut, _ in commits] == [(day + 1) * DAY_US for day in days]
            assert all(row.label_time_us // DAY_US == cut // DAY_US - 1 for cut, commit in commits for row in commit)
        marks = [us for stream, us in feature.watermarks if stream == "delay"]
        assert marks == sorted(set(marks))
        feature.close()


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), count=st.integers(5, 50), disorder_us=st.sampled_from([0, 2 * HOUR_US]))
def test_every_event_has_the_same_id_place_and_envelope_however_it_came_about(
    seed: int, count: int, disorder_us: int
) -> None:
    """Other input partitions, interleavings, batches, failed transactions and restarts; what a rebuild relies on."""
    accepted = history(seed, count, disorder_us)
    runs = []
    for way, restarts in ((1, 0.0), (2, 0.2)):
        rng = random.Random(seed + way)
        with tempfile.TemporaryDirectory() as folder:
            feature = run(written(accepted, rng), rng, Path(folder), restarts)
            runs.append(said(feature))
            feature.close()
    assert runs[0] == runs[1]


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32))
def test_a_label_changes_no_vector_before_it_arrived(seed: int) -> None:
    rng = random.Random(seed)
    accepted = history(seed, 30, 0)
    labels = [number for number, one in enumerate(accepted) if one.stream == "flights#label"]
    changed = list(accepted)
    first = rng.choice(labels) if labels else len(accepted)
    for number in labels:
        if number >= first:
            one = changed[number]
            changed[number] = Accepted(one.stream, one.id, one.time_us, one.watermark_us, one.fields | {"delay": 999.0})
    moment = accepted[first].order if labels else (2**63, "", "")
    results = []
    for each in (accepted, changed):
        with tempfile.TemporaryDirectory() as folder:
            feature = run(written(each, random.Random(seed)), random.Random(seed), Path(folder), 0.0)
            results.append(feature.vectors("delay"))
            feature.close()
    before = [one.id for one in accepted if one.stream == "flights" and one.order < moment]
    assert [results[0][one] for one in before] == [results[1][one] for one in before]
