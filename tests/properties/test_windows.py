"""The feature engine against a naive oracle that keeps every record: the same bits, whatever is done to the state.

The oracle shares the tile rule and the arithmetic with the engine, and none of its code.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel.contracts.declaration import MINUTE_US, SECOND_US
from evenkeel.libs.declaration import load_declaration
from evenkeel.libs.features import FeaturePlan, FeatureState, SlotUpdate, compile_plan
from evenkeel.libs.features.plan import Series, WindowColumn

DECLARATION = """
streams:
  flights:
    topic: flights
    id: id
    time: at
    fields: {origin: {type: string}, carrier: {type: string}, load: {type: number}}
    label:
      topic: arrivals
      id: id
      joins: id
      time: at
      horizon: 1d
      fields: {origin: {type: string}, carrier: {type: string}, delay: {type: number}}
  weather:
    topic: weather
    id: id
    time: at
    fields: {station: {type: string}, wind: {type: number}}
models:
  model:
    task: regression
    stream: flights
    label: delay
    features:
      - fields: [load]
      - {of: flights.load, by: [origin], compute: [count, sum, mean, std, min, max, last, time_since_last], over: [5m]}
      - {of: flights.label.delay, by: [origin], compute: [count, mean], over: [1m, 1h]}
      - {of: flights.label.delay, by: [origin, carrier], compute: [std, last], over: [5m, 1h]}
      - {of: flights.label.delay, compute: [min, max, mean], over: [3m]}
      - {of: flights.label, by: [carrier], compute: [count, time_since_last], over: [2m]}
      - {of: weather.wind, by: {station: origin}, compute: [last, max], over: [30m]}
"""


def _plan() -> FeaturePlan:
    declaration = load_declaration(DECLARATION, "windows.yaml")
    return compile_plan(declaration.models["model"], declaration.streams)


PLAN = _plan()


class Record(NamedTuple):
    """One released record: the order in the list is the release order."""

    order_us: int
    stream: str
    time_us: int
    event_id: str
    fields: dict[str, object]


class Oracle:
    """Keeps all records; every vector is computed from all of them."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def vector(self, fields: dict[str, object], at_us: int) -> list[float]:
        out = []
        for column in PLAN.columns:
            if isinstance(column, WindowColumn):
                out.append(self._aggregate(PLAN.series[column.series], column.aggregation, fields, at_us))
            else:
                value = fields.get("load")
                out.append(float(value) if isinstance(value, (int, float)) else math.nan)
        return out

    def _aggregate(self, series: Series, aggregation: str, fields: dict[str, object], at_us: int) -> float:
        wanted = [fields.get(key) for key in series.event_keys]
        if None in wanted:
            return math.nan
        tile_us = series.window_us // 60
        tiles: dict[int, list[tuple[int, str, float]]] = {}
        for record in self.records:
            if record.stream != series.source or [record.fields.get(key) for key in series.source_keys] != wanted:
                continue
            value = 0.0 if series.field is None else record.fields.get(series.field)
            start_us = record.time_us // tile_us * tile_us
            if isinstance(value, (int, float)) and at_us - series.window_us < start_us:
                tiles.setdefault(start_us, []).append((record.time_us, record.event_id, float(value)))
        everything = [item for items in tiles.values() for item in items]
        if not everything:
            return 0.0 if aggregation in ("count", "sum") else math.nan
        total, mean, m2 = 0, 0.0, 0.0
        for start_us in sorted(tiles):
            n, tile_mean, tile_m2 = 0, 0.0, 0.0
            for _, _, value in tiles[start_us]:
                n += 1
                before = value - tile_mean
                tile_mean += before / n
                tile_m2 += before * (value - tile_mean)
            delta = tile_mean - mean
            m2 += tile_m2 + delta * delta * total * (n / (total + n))
            mean += delta * (n / (total + n))
            total += n
        values = [value for _, _, value in everything]
        assert mean == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=1e-6)
        time_us, _, last = max(everything)
        answers = {
            "count": float(total),
            "sum": mean * total,
            "mean": mean,
            "std": math.sqrt(m2 / (total - 1)) if total > 1 else math.nan,
            "min": min(values),
            "max": max(values),
            "last": last,
            "time_since_last": (at_us - time_us) / 1e6,
        }
        return answers[aggregation]


def bits(vector: Sequence[float]) -> list[bytes | None]:
    return [None if value != value else struct.pack("<d", value) for value in vector]


values = st.none() | st.floats(-1e6, 1e6) | st.integers(-500, 500)
origins = st.sampled_from(["JFK", "JFK", "JFK", "3|J", None])
carriers = st.sampled_from(["B6", "B6", "K|B6"])
paces = st.sampled_from([2 * SECOND_US, 40 * SECOND_US, 3 * MINUTE_US, 25 * MINUTE_US])


@st.composite
def histories(draw: st.DrawFn) -> list[Record]:
    now_us, records = 1_357_020_000 * SECOND_US, []
    pace_us = draw(paces)
    steps = st.integers(0, pace_us) | st.sampled_from([0, MINUTE_US, 59 * MINUTE_US, 60 * MINUTE_US])
    lates = st.sampled_from([0, 0, pace_us // 2, pace_us, 2 * pace_us]) | st.integers(0, 4 * pace_us)
    for number in range(draw(st.integers(1, 10) | st.integers(20, 40))):
        now_us += draw(steps) if number % 3 == 0 else draw(st.sampled_from([0, pace_us // 4, pace_us]))
        stream = draw(st.sampled_from(["flights", "flights#label", "flights#label", "flights#label", "weather"]))
        place = draw(origins)
        fields: dict[str, object]
        if stream == "weather":
            fields = {"station": place, "wind": draw(values)}
        else:
            name = "load" if stream == "flights" else "delay"
            fields = {"origin": place, "carrier": draw(carriers), name: draw(values)}
        records.append(Record(now_us, stream, now_us - draw(lates), f"e{number:03}", fields))
    return records


def replay(records: Sequence[Record], state: FeatureState) -> list[list[float]]:
    vectors = []
    for record in records:
        if record.stream == "flights":
            vectors.append(state.vector(record.fields, record.order_us))
        state.fold(record.stream, record.time_us, record.event_id, record.fields)
    return vectors


def requests(at_us: int) -> list[tuple[dict[str, object], int]]:
    keys: list[dict[str, object]] = [
        {"origin": origin, "carrier": carrier, "load": 1} for origin in ("JFK", "3|J") for carrier in ("B6", "K|B6")
    ]
    return [(key, at_us + later) for key in keys for later in (0, 90 * SECOND_US, 40 * MINUTE_US)]


@settings(max_examples=80, deadline=None)
@given(histories())
def test_vectors_equal_the_oracle(records: list[Record]) -> None:
    oracle, state = Oracle(), FeatureState(PLAN, journal=False)
    for record in records:
        for fields, at_us in [(record.fields, record.order_us), *requests(record.order_us)]:
            assert bits(state.vector(fields, at_us)) == bits(oracle.vector(fields, at_us))
        state.fold(record.stream, record.time_us, record.event_id, record.fields)
        oracle.records.append(record)


@settings(max_examples=80, deadline=None)
@given(histories(), st.data())
def test_view_rebuilt_from_conflated_updates_is_the_live_state(records: list[Record], data: st.DataObject) -> None:
    live, view, topic = FeatureState(PLAN), FeatureState(PLAN, journal=False), dict[str, SlotUpdate]()
    ends = [*(record.order_us for record in records[1:]), records[-1].order_us + 1]
    for record, watermark_us in zip(records, ends, strict=True):
        live.fold(record.stream, record.time_us, record.event_id, record.fields)
        if not data.draw(st.booleans()):
            continue
        if data.draw(st.booleans()):
            live.evict(watermark_us)
        for update in live.take_changes(watermark_us):
            view.apply(update)
            topic.pop(update.slot, None)
            topic[update.slot] = update
        if data.draw(st.booleans()):
            view.evict(watermark_us)
        compacted = FeatureState(PLAN, journal=False)
        for update in topic.values():
            compacted.apply(SlotUpdate(update.slot, list(update.tile)))
        for fields, at_us in requests(watermark_us):
            expected = bits(live.vector(fields, at_us))
            assert bits(view.vector(fields, at_us)) == expected
            assert bits(compacted.vector(fields, at_us)) == expected


@settings(max_examples=80, deadline=None)
@given(histories(), st.data())
def test_snapshots_and_eviction_at_any_point_change_nothing(records: list[Record], data: st.DataObject) -> None:
    oracle, state, rows, vectors, expected = Oracle(), FeatureState(PLAN), dict[str, bytes](), [], []
    for record in records:
        action = data.draw(st.sampled_from(["go on", "evict", "full snapshot", "crash and restore"]))
        if action == "evict":
            state.evict(record.order_us)
        elif action == "full snapshot":
            full = FeatureState(PLAN)
            full.restore(state.snapshot())
            assert dict(full.snapshot()) == dict(state.snapshot())
        elif action == "crash and restore":
            for key, blob in state.take_snapshots():
                rows.pop(key, None) if blob is None else rows.update({key: blob})
            assert rows.keys() == dict(state.snapshot()).keys()
            state = FeatureState(PLAN)
            state.restore(rows.items())
        vectors.append(bits(state.vector(record.fields, record.order_us)))
        expected.append(bits(oracle.vector(record.fields, record.order_us)))
        state.fold(record.stream, record.time_us, record.event_id, record.fields)
        oracle.records.append(record)
    assert vectors == expected


@settings(max_examples=100, deadline=None)
@given(histories(), st.data())
def test_a_labels_future_changes_no_earlier_vector(records: list[Record], data: st.DataObject) -> None:
    changed_at = data.draw(st.integers(0, len(records) - 1))
    other = [
        record._replace(fields={**record.fields, "delay": data.draw(values)})
        if index >= changed_at and record.stream == "flights#label"
        else record
        for index, record in enumerate(records)
    ]
    earlier = sum(record.stream == "flights" for record in records[: changed_at + 1])
    before = [bits(vector) for vector in replay(records, FeatureState(PLAN, journal=False))]
    after = [bits(vector) for vector in replay(other, FeatureState(PLAN, journal=False))]
    assert before[:earlier] == after[:earlier]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.sampled_from(["JFK", "EWR"])), min_size=1, max_size=60))
def test_dead_entities_leave_memory(ages: list[tuple[int, str]]) -> None:
    state = FeatureState(PLAN)
    now_us = 1_357_020_000 * SECOND_US
    for number, (minutes, origin) in enumerate(ages):
        now_us += minutes * MINUTE_US
        state.fold("flights#label", now_us, str(number), {"origin": f"{origin}{number}", "carrier": "B6", "delay": 1})
        state.evict(now_us)
        state.take_changes(now_us)
    horizon_us = 3 * 60 * MINUTE_US
    recent, later_us = 0, now_us
    for minutes, _ in reversed(ages):
        recent += now_us - later_us < horizon_us
        later_us -= minutes * MINUTE_US
    assert state.entities <= 2 * recent + 3
    state.evict(now_us + horizon_us)
    assert state.entities == 0
    assert list(state.snapshot()) == []
