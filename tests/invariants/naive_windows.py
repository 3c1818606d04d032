"""What every vector must hold, from its declaration and the accepted events alone: no state, no increments, no batches.

A window of length W is made of tiles of W/60, aligned to the epoch; at time `at` it holds the records whose tile starts in
(at − W, at]. An event's vector is taken before the event itself counts, and records take their turn by (order time, stream,
id).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from tests.invariants.reading import Event, duration_us, time_us

TILES: Final = 60
RELATIVE: Final = 1e-9
ABSOLUTE: Final = 1e-6
"""A sum of many large values that cancel is not more exact than this."""
_LARGEST: Final = 1e150
_DAY_US: Final = 86_400_000_000


@dataclass(slots=True)
class _Entity:
    """Everything that ever came for one key, by tile: (time, id, value)."""

    tiles: dict[int, list[tuple[int, str, float]]] = field(default_factory=dict)


@dataclass(slots=True)
class _Window:
    """One window feature with one length, and the places of its aggregates in the vector."""

    source: str
    measured: str | None
    source_keys: tuple[str, ...]
    event_keys: tuple[str, ...]
    length_us: int
    columns: list[tuple[str, int]]
    entities: dict[tuple[str, ...], _Entity] = field(default_factory=dict)

    @property
    def series(self) -> tuple[Any, ...]:
        """Features of one series share their tiles."""
        return self.source, self.source_keys, self.event_keys, self.measured, self.length_us


class Naive:
    """One model as declared: `spec` and `streams` are the JSON of `registry.model-declared`."""

    def __init__(self, spec: Mapping[str, Any], streams: Mapping[str, Any]) -> None:
        self.stream: str = spec["stream"]
        self._streams = streams
        self._scalars: list[tuple[int, Any]] = []
        self._windows: list[_Window] = []
        width = 0
        for feature in spec["features"]:
            for column in self._columns(feature):
                if isinstance(column, _Window):
                    column.columns = [(name, width + place) for place, (name, _) in enumerate(column.columns)]
                    self._windows.append(column)
                    width += len(column.columns)
                else:
                    self._scalars.append((width, column))
                    width += 1
        self.width = width
        series: dict[tuple[Any, ...], _Window] = {}
        for window in self._windows:
            series.setdefault(window.series, window)
        self._series = list(series.values())
        self.sources = {window.source for window in self._windows}
        self.streams = {self.stream, f"{self.stream}#label", *self.sources}

    def _columns(self, feature: Mapping[str, Any]) -> Iterator[Any]:
        event = self._streams[self.stream]
        if "of" in feature:
            source, _spec, name = self._source(feature["of"])
            by = feature.get("by") or {}
            keys = {key: key for key in by} if isinstance(by, list) else by
            for length in feature["over"]:
                columns = [(aggregate, 0) for aggregate in feature["compute"]]
                yield _Window(source, name, tuple(keys), tuple(keys.values()), duration_us(length), columns)
        elif "categories" in feature:
            for name in feature["categories"]:
                values = feature.get("values") or (event["fields"].get(name) or {}).get("values")
                yield _category(name, values, feature.get("buckets"))
        elif "time" in feature:
            for part in feature["parts"]:
                yield _part(feature["time"], part)
        else:
            for name in feature["fields"]:
                yield lambda fields, name=name: _number(fields.get(name))

    def _source(self, of: str) -> tuple[str, Any, str | None]:
        for name in sorted(self._streams, key=len, reverse=True):
            if of == name:
                return name, self._streams[name], None
            if of.startswith(name + "."):
                rest, label = of[len(name) + 1 :], self._streams[name].get("label")
                if label and rest == "label":
                    return f"{name}#label", label, None
                if label and rest.startswith("label."):
                    return f"{name}#label", label, rest.removeprefix("label.")
                return name, self._streams[name], rest
        raise LookupError(of)

    def fold(self, event: Event) -> None:
        """One accepted record takes its turn."""
        data = event.data
        fields, record_id = data["fields"], data.get("label_id", data["event_id"])
        for window in self._windows:
            if window.source != event.stream:
                continue
            key = _key(fields, window.source_keys)
            value = 0.0 if window.measured is None else _number(fields.get(window.measured))
            if key is None or math.isnan(value):
                continue
            start_us = event.time_us - event.time_us % (window.length_us // TILES)
            tiles = window.entities.setdefault(key, _Entity()).tiles
            tiles.setdefault(start_us, []).append((event.time_us, record_id, value))

    def strange(self, slots: Iterable[tuple[int, Sequence[Any]]]) -> Iterator[tuple[int, Sequence[Any]]]:
        """Those slots of the online view (series, [start, n, mean, M2, min, max, last time, last id, last value]) that no
        entity's tile explains."""
        known = {
            (number, start_us, *max(tile)[:2], len(tile)): tile
            for number, window in enumerate(self._series)
            for entity in window.entities.values()
            for start_us, tile in entity.tiles.items()
        }
        for number, slot in slots:
            start_us, n, mean, m2, low, high, last_us, last_id, last = slot
            records = known.get((number, start_us, last_us, last_id, n))
            if records is None:
                yield number, slot
                continue
            values = np.array([value for _, _, value in records])
            expected = [values.mean(), values.var() * n, values.min(), values.max(), max(records)[2]]
            if differences(expected, [mean, m2, low, high, last]):
                yield number, slot

    def vector(self, fields: Mapping[str, Any], at_us: int) -> list[float]:
        """NaN where there is no value."""
        vector = [math.nan] * self.width
        for place, read in self._scalars:
            vector[place] = read(fields)
        for window in self._windows:
            key = _key(fields, window.event_keys)
            if key is None:
                continue
            entity = window.entities.get(key, _Entity())
            oldest_us = at_us - window.length_us
            records = [r for start, tile in entity.tiles.items() if oldest_us < start <= at_us for r in tile]
            for name, place in window.columns:
                vector[place] = aggregate(name, records, at_us)
        return vector


def differences(expected: Sequence[float], found: Sequence[float | None]) -> list[int]:
    """The places where two vectors differ by more than arithmetic may."""
    if len(expected) != len(found):
        return [min(len(expected), len(found))]
    given = np.array([math.nan if value is None else value for value in found], np.float64)
    return np.flatnonzero(~np.isclose(expected, given, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)).tolist()


def aggregate(name: str, records: Sequence[tuple[int, str, float]], at_us: int) -> float:
    values = [value for _, _, value in records]
    match name:
        case "count":
            return float(len(values))
        case "sum":
            return math.fsum(values)
    if not values:
        return math.nan
    match name:
        case "mean":
            return math.fsum(values) / len(values)
        case "std":
            return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        case "min":
            return min(values)
        case "max":
            return max(values)
        case "last":
            return max(records)[2]
        case "time_since_last":
            return (at_us - max(records)[0]) / 1e6
    raise LookupError(name)


def _number(value: object) -> float:
    if isinstance(value, (bool, int, float)) and -_LARGEST < value < _LARGEST:
        return float(value)
    return math.nan


def _key(fields: Mapping[str, Any], names: Sequence[str]) -> tuple[str, ...] | None:
    """An integer and its text are one key, as are true and "true"."""
    parts = []
    for name in names:
        value = fields.get(name)
        if isinstance(value, bool):
            parts.append("true" if value else "false")
        elif isinstance(value, float) and math.isfinite(value) and value.is_integer():
            parts.append(str(int(value)))
        elif isinstance(value, (str, int)):
            parts.append(str(value))
        else:
            return None
    return tuple(parts)


def _category(name: str, values: Sequence[str] | None, buckets: int | None) -> Any:
    def read(fields: Mapping[str, Any]) -> float:
        value = fields.get(name)
        if not isinstance(value, str):
            return math.nan
        if buckets:
            return float(zlib.crc32(value.encode()) % buckets)
        return float(values.index(value)) if values and value in values else -1.0

    return read


def _part(name: str, part: str) -> Any:
    def read(fields: Mapping[str, Any]) -> float:
        text = fields.get(name)
        if not isinstance(text, str):
            return math.nan
        moment = time_us(text)
        match part:
            case "hour":
                return float(moment % _DAY_US // 3_600_000_000)
            case "minute_of_day":
                return float(moment % _DAY_US // 60_000_000)
            case "weekday":
                return float((moment // _DAY_US + 3) % 7)
        return float(np.datetime64(moment, "us").astype("datetime64[M]").astype(int) % 12 + 1)

    return read


def groups(models: Sequence[Naive]) -> list[set[str]]:
    """Streams that are released together: those of one model, and of models that share one."""
    joined: list[set[str]] = []
    for model in models:
        streams = set(model.streams)
        apart = [group for group in joined if not group & streams]
        joined = [*apart, streams.union(*(group for group in joined if group & streams))]
    return joined
