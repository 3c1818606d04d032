"""From a model's declaration to a feature plan: the columns in schema order and the windows that have to be kept."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, NamedTuple, TypeAlias, assert_never

from evenkeel.contracts.declaration import (
    DAY_US,
    MINUTE_US,
    CategoryFeature,
    FeatureSpec,
    FieldSpec,
    LabelSpec,
    ModelSpec,
    OtherFeature,
    PassthroughFeature,
    StreamSpec,
    TimePartsFeature,
    WindowFeature,
    format_duration,
)
from evenkeel.contracts.ids import LABEL_SUFFIX, label_stream
from evenkeel.libs.features.aggregations import AGGREGATIONS, aggregation_named
from evenkeel.libs.features.aggregations.aggregation import Need
from evenkeel.libs.features.scalars import TIME_PARTS, TimePart
from evenkeel.libs.features.tiles import TILES_PER_WINDOW

MIN_WINDOW_US: Final = MINUTE_US
MAX_WINDOW_US: Final = 90 * DAY_US
MAX_FEATURES: Final = 2_000
RESERVED_NAMES: Final = ("event_id", "event_time", "label_time", "label")
"""Columns that every training table has beside the features."""
_UPGRADE: Final = "take a release that knows it"
_ENGINE: Final = f"tiles-{TILES_PER_WINDOW}/1"
_NUMERIC: Final = ("number", "integer", "boolean")
_KEY_TYPES: Final = ("string", "category", "integer", "boolean")
_AGGREGATIONS: Final = tuple(row.name for row in AGGREGATIONS)
_OF_RECORDS: Final = tuple(row.name for row in AGGREGATIONS if row.of_records)

Path: TypeAlias = tuple[str | int, ...]


class Problem(NamedTuple):
    """One thing that is wrong in what was written: where, what, and what to do about it."""

    path: Path
    message: str
    fix: str


class PlanError(ValueError):
    """The features of a model cannot be computed; `problems` has them all."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(f"{problem.message} ({problem.fix})" for problem in problems))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class NumberColumn:
    """A field of the event as it is."""

    name: str
    field: str
    kind: Literal["number"] = "number"


@dataclass(frozen=True, slots=True)
class TimeColumn:
    """A part of a time field of the event, in UTC."""

    name: str
    field: str
    part: TimePart
    kind: Literal["time"] = "time"


@dataclass(frozen=True, slots=True)
class CategoryColumn:
    """A field of the event as a code: position in `values` (unknown is -1), or CRC-32 modulo `buckets`."""

    name: str
    field: str
    values: tuple[str, ...] | None
    buckets: int | None
    kind: Literal["category"] = "category"

    @property
    def codes(self) -> int:
        """How many codes there are, from 0 up."""
        return len(self.values) if self.values is not None else self.buckets or 0


@dataclass(frozen=True, slots=True)
class WindowColumn:
    """One aggregate of one tile series."""

    name: str
    aggregation: str
    series: int
    kind: Literal["window"] = "window"


Column: TypeAlias = NumberColumn | TimeColumn | CategoryColumn | WindowColumn


@dataclass(frozen=True, slots=True)
class Series:
    """The tiles of one source field, per entity, for one window length; every aggregate over them shares them.

    `field` is `None` when records are counted rather than a field's values. `moments`, `spread`, `extremes`: what of the
    tiles' merge any of the aggregates needs.
    """

    source: str
    source_keys: tuple[str, ...]
    event_keys: tuple[str, ...]
    field: str | None
    window_us: int
    spread: bool
    extremes: bool
    moments: bool


@dataclass(frozen=True)
class FeaturePlan:
    """Everything the engine needs, and nothing of the text it came from.

    `names` is the feature schema, in order. `view_version` changes with anything that could change a value.
    `sources` are the streams to fold (a stream's labels are the stream `<stream>#label`). `request_fields` are the
    event's fields that a vector is computed from.
    """

    stream: str
    columns: tuple[Column, ...]
    series: tuple[Series, ...]
    view_version: str

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        return tuple(sorted({series.source for series in self.series}))

    @cached_property
    def categorical(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if isinstance(column, CategoryColumn))

    @cached_property
    def request_fields(self) -> tuple[str, ...]:
        fields = {column.field for column in self.columns if not isinstance(column, WindowColumn)}
        return tuple(sorted(fields.union(*(series.event_keys for series in self.series))))


class Source(NamedTuple):
    """What `of:` names: a stream (or its labels) and one of its fields, or no field for the records themselves."""

    stream: str
    spec: StreamSpec | LabelSpec
    field: str | None


def resolve_source(of: str, streams: Mapping[str, StreamSpec]) -> Source | None:
    """Find the stream, label and field behind `of:`; the longest stream name wins; `None` if there is none."""
    for name in sorted(streams, key=len, reverse=True):
        spec = streams[name]
        if of == name:
            return Source(name, spec, None)
        if not of.startswith(name + "."):
            continue
        rest = of[len(name) + 1 :]
        if spec.label is not None and rest == "label":
            return Source(label_stream(name), spec.label, None)
        if spec.label is not None and rest.startswith("label."):
            return Source(label_stream(name), spec.label, rest[len("label.") :])
        return Source(name, spec, rest)
    return None


def compile_plan(model: ModelSpec, streams: Mapping[str, StreamSpec]) -> FeaturePlan:
    """Compile a model's features; raises `PlanError` naming every feature that cannot be computed, and the fix.

    Column order is the order written: features, then fields or windows, then parts or aggregates.
    """
    if model.stream not in streams:
        raise PlanError([unknown(("stream",), "stream", model.stream, tuple(streams))])
    compiler = _Compiler(model.stream, streams)
    for index, feature in enumerate(model.features):
        compiler.add(("features", index), feature)
    if len(compiler.columns) > MAX_FEATURES:
        compiler.problems.append(
            Problem(("features",), f"{len(compiler.columns)} features are declared", f"declare at most {MAX_FEATURES}")
        )
    if compiler.problems:
        raise PlanError(compiler.problems)
    return compiler.plan()


def unknown(path: Path, what: str, name: str, known: Sequence[str]) -> Problem:
    """The problem of a name that does not exist, with the nearest ones that do."""
    near = difflib.get_close_matches(name, known, n=1)
    listed = ", ".join(sorted(known)[:12]) or "none"
    fix = f"did you mean {near[0]!r}?" if near else f"known: {listed}"
    return Problem(path, f"there is no {what} {name!r}", fix)


class _Compiler:
    def __init__(self, stream: str, streams: Mapping[str, StreamSpec]) -> None:
        self.stream = stream
        self.streams = streams
        self.event = streams[stream]
        self.columns: list[Column] = []
        self.problems: list[Problem] = []
        self._names: set[str] = set()
        self._series: dict[tuple[str, tuple[str, ...], tuple[str, ...], str | None, int], int] = {}
        self._needs: list[set[Need]] = []

    def add(self, path: Path, feature: FeatureSpec) -> None:
        match feature:
            case PassthroughFeature():
                for index, name in enumerate(feature.fields):
                    if self._event_field((*path, "fields", index), name, _NUMERIC, "a number or a boolean"):
                        self._column(path, NumberColumn(name, name))
            case TimePartsFeature():
                if self._event_field((*path, "time"), feature.time, ("time",), "a time"):
                    for index, word in enumerate(feature.parts):
                        part = TIME_PARTS.get(word)
                        if part is None:
                            self.problems.append(unknown((*path, "parts", index), "time part", word, tuple(TIME_PARTS)))
                        else:
                            self._column(path, TimeColumn(f"{feature.time}_{part}", feature.time, part))
            case CategoryFeature():
                for index, name in enumerate(feature.categories):
                    self._category((*path, "categories", index), name, feature)
            case WindowFeature():
                self._window(path, feature)
            case OtherFeature():
                self.problems.append(Problem(path, "a feature of this kind cannot be computed here", _UPGRADE))
            case _:
                assert_never(feature)

    def plan(self) -> FeaturePlan:
        series = tuple(
            Series(
                source,
                source_keys,
                event_keys,
                field,
                window_us,
                spread="spread" in needs,
                extremes="extremes" in needs,
                moments=bool(needs),
            )
            for (source, source_keys, event_keys, field, window_us), needs in zip(
                self._series, self._needs, strict=True
            )
        )
        written = {
            "engine": _ENGINE,
            "stream": self.stream,
            "columns": [_written(column) for column in self.columns],
            "series": [[one.source, one.source_keys, one.event_keys, one.field, one.window_us] for one in series],
        }
        digest = hashlib.sha256(json.dumps(written, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
        return FeaturePlan(self.stream, tuple(self.columns), series, digest[:16])

    def _column(self, path: Path, column: Column) -> None:
        name = column.name.lower()  # tables do not tell columns apart by case
        if name in self._names:
            fix = "remove one, or give a windowed one another `name`"
            self.problems.append(Problem(path, f"two features are named {column.name!r}", fix))
        if name in RESERVED_NAMES:
            message = f"{column.name!r} is the name of a column of every training table"
            self.problems.append(Problem(path, message, "rename the field in the stream"))
        self._names.add(name)
        self.columns.append(column)

    def _event_field(self, path: Path, name: str, types: Sequence[str], what: str) -> FieldSpec | None:
        return self._field(path, self.event, f"field in stream {self.stream!r} named", name, types, what)

    def _field(
        self, path: Path, spec: StreamSpec | LabelSpec, where: str, name: str, types: Sequence[str], what: str
    ) -> FieldSpec | None:
        field = spec.field(name)
        if field is None:
            self.problems.append(unknown(path, where, name, tuple(spec.fields)))
        elif field.type not in types:
            message = f"{name!r} is of type {field.type}, and this needs {what}"
            self.problems.append(Problem(path, message, f"name a field of type {' or '.join(types)}"))
        else:
            return field
        return None

    def _category(self, path: Path, name: str, feature: CategoryFeature) -> None:
        field = self._event_field(path, name, ("category", "string"), "a category or a string")
        if field is None:
            return
        values = feature.values or field.values
        if feature.values is not None and feature.buckets is not None:
            self.problems.append(Problem(path, "`values` and `buckets` are both given", "keep one of them"))
        elif feature.buckets is not None:
            self._column(path, CategoryColumn(name, name, None, feature.buckets))
        elif values:
            self._column(path, CategoryColumn(name, name, tuple(values), None))
        else:
            fix = "add `values: [...]`, or `buckets: 64` to hash into that many codes"
            self.problems.append(Problem(path, f"the values of {name!r} are not known", fix))

    def _window(self, path: Path, feature: WindowFeature) -> None:
        before = len(self.problems)
        for index, window_us in enumerate(feature.over_us):
            if not MIN_WINDOW_US <= window_us <= MAX_WINDOW_US or window_us % MINUTE_US:
                message = f"window {format_duration(window_us)} is out of range"
                self.problems.append(Problem((*path, "over", index), message, "use whole minutes from 1m to 90d"))
        for index, aggregation in enumerate(feature.compute):
            if aggregation not in _AGGREGATIONS:
                self.problems.append(unknown((*path, "compute", index), "aggregation", aggregation, _AGGREGATIONS))
        source = resolve_source(feature.of, self.streams)
        if source is None:
            self.problems.append(unknown((*path, "of"), "stream behind", feature.of, tuple(self.streams)))
            return
        where = f"field in stream {source.stream!r} named"
        if source.field is None:
            if not set(feature.compute).intersection(_AGGREGATIONS).issubset(_OF_RECORDS):
                fix = f"add a field (`of: {feature.of}.FIELD`), or compute only {' and '.join(_OF_RECORDS)}"
                self.problems.append(Problem((*path, "of"), "records without a field can only be counted", fix))
        elif source.field == "label" and isinstance(source.spec, StreamSpec) and source.spec.label is None:
            fix = f"declare `label:` in stream {source.stream!r}"
            self.problems.append(Problem((*path, "of"), f"stream {source.stream!r} has no label", fix))
        else:
            self._field((*path, "of"), source.spec, where, source.field, _NUMERIC, "a number or a boolean")
        for source_key, event_key in feature.keys:
            self._field((*path, "by"), source.spec, where, source_key, _KEY_TYPES, "a key")
            self._event_field((*path, "by"), event_key, _KEY_TYPES, "a key")
        if len(self.problems) > before:
            return
        source_keys = tuple(source_key for source_key, _ in feature.keys)
        event_keys = tuple(event_key for _, event_key in feature.keys)
        stem = feature.name or source.field or source.stream.replace(LABEL_SUFFIX, "_label")
        stem = "_by_".join((stem, "_".join(event_keys))) if event_keys else stem
        for window_us in feature.over_us:
            key = (source.stream, source_keys, event_keys, source.field, window_us)
            number = self._series.setdefault(key, len(self._series))
            if number == len(self._needs):
                self._needs.append(set())
            for aggregation in feature.compute:
                self._needs[number].update(aggregation_named(aggregation).needs)
                name = f"{stem}_{aggregation}_{format_duration(window_us)}"
                self._column(path, WindowColumn(name, aggregation, number))


def _written(column: Column) -> list[object]:
    match column:
        case NumberColumn():
            return [column.name, "number", column.field]
        case TimeColumn():
            return [column.name, "time", column.field, column.part]
        case CategoryColumn():
            return [column.name, "category", column.field, column.values, column.buckets]
        case WindowColumn():
            return [column.name, "window", column.aggregation, column.series]
