"""The state of a feature plan: fold records, read vectors, hand over what changed.

The caller owns the order. Records come in release order (event-time merge); a vector is read before its own event is
folded, at the event's order time, so that `at_us` is never earlier than a folded record. Given that, a vector depends
on the sequence of folds alone: not on batches, on when changes were taken, on snapshots, or on eviction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple, assert_never

import msgspec

from evenkeel.libs.features.aggregations import Aggregation, aggregation_named
from evenkeel.libs.features.plan import CategoryColumn, FeaturePlan, NumberColumn, Series, TimeColumn, WindowColumn
from evenkeel.libs.features.scalars import (
    NAN,
    Fields,
    TimePart,
    category_reader,
    key_reader,
    number,
    time_part,
    time_us,
)
from evenkeel.libs.features.tiles import EMPTY, TILES_PER_WINDOW, Summary, Tile, TileState, merge

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[list[list[int | float | str]]])


class SlotUpdate(NamedTuple):
    """The whole state of the tile in one ring slot; it replaces what the slot held. A tile's start tells its age."""

    slot: str
    """`<series>|<entity>|<ring slot>`, unique within a view version."""
    tile: TileState


class _Window:
    """The tiles of one series for one entity, oldest first, with the merge of all but the newest kept at hand."""

    __slots__ = (
        "prefix",
        "prefix_from_us",
        "prefix_tiles",
        "series",
        "slot",
        "summary",
        "summary_from_us",
        "tile_us",
        "tiles",
    )

    def __init__(self, series: _SeriesState, text: str) -> None:
        self.series = series
        self.slot = f"{series.number}|{text}|"
        self.tile_us = series.tile_us
        self.tiles: list[Tile] = []
        self.prefix = EMPTY
        self.prefix_from_us = 0
        self.prefix_tiles = -1
        self.summary = EMPTY
        self.summary_from_us = -1

    def forget(self) -> None:
        """Tiles changed in another way than by folding into the newest: nothing kept at hand is valid."""
        self.prefix_tiles = -1
        self.summary_from_us = -1

    def put(self, tile: Tile) -> bool:
        """Insert or replace the tile of its start; `False` if the newest tile says that it has expired."""
        tiles = self.tiles
        window_us = self.series.window_us
        if tiles and tile.start_us <= tiles[-1].start_us - window_us:
            return False
        self.forget()
        index = len(tiles)
        while index and tiles[index - 1].start_us >= tile.start_us:
            index -= 1
        if index < len(tiles) and tiles[index].start_us == tile.start_us:
            tiles[index] = tile
        else:
            tiles.insert(index, tile)
            self.drop(tiles[-1].start_us - window_us)
        return True

    def drop(self, expired_us: int) -> list[Tile]:
        """Remove the tiles that start at or before `expired_us` and return them."""
        tiles = self.tiles
        count = 0
        while count < len(tiles) and tiles[count].start_us <= expired_us:
            count += 1
        gone = tiles[:count]
        if count:
            del tiles[:count]
            self.forget()
        return gone

    def read(self, oldest_us: int) -> Summary:
        """The merge of the tiles that start after `oldest_us`, bit for bit what `tiles.evaluate` gives."""
        tiles = self.tiles
        first = 0
        while tiles[first].start_us <= oldest_us:
            first += 1
        first_us = tiles[first].start_us
        if self.summary_from_us == first_us:
            return self.summary
        series = self.series
        last = len(tiles) - 1
        if self.prefix_tiles != last or self.prefix_from_us != first_us:
            self.prefix = merge(EMPTY, tiles[first:last], series.spread, series.extremes)
            self.prefix_from_us = first_us
            self.prefix_tiles = last
        self.summary = merge(self.prefix, tiles[last:], series.spread, series.extremes)
        self.summary_from_us = first_us
        return self.summary


class _SeriesState:
    """One series and the columns that read it: their places in the vector, and how; `nothing`: what is not NaN if nothing is."""

    __slots__ = (
        "columns",
        "extremes",
        "field",
        "moments",
        "nothing",
        "number",
        "position",
        "spread",
        "tile_us",
        "window_us",
    )

    def __init__(self, number_: int, position: int, series: Series, columns: Sequence[tuple[int, Aggregation]]) -> None:
        self.number = number_
        self.position = position
        self.field = series.field
        self.window_us = series.window_us
        self.tile_us = series.window_us // TILES_PER_WINDOW
        self.spread = series.spread
        self.extremes = series.extremes
        self.moments = series.moments
        self.columns = tuple((place, aggregation.read) for place, aggregation in columns)
        self.nothing = tuple((place, row.empty) for place, row in columns if not math.isnan(row.empty))


class _Entity:
    """All windows of one entity of one group."""

    __slots__ = ("group", "text", "windows")

    def __init__(self, group: _Group, text: str) -> None:
        self.group = group
        self.text = text
        self.windows = [_Window(series, text) for series in group.series]


class _Group:
    """The series that share a source and keys: one entity look-up serves them all."""

    __slots__ = ("entities", "event_key", "fields", "number", "series", "source_key", "sweep_every_us", "swept_us")

    def __init__(self, number_: int, event_keys: tuple[str, ...], source_keys: tuple[str, ...]) -> None:
        self.number = number_
        self.event_key = key_reader(event_keys)
        self.source_key = key_reader(source_keys)
        self.series: list[_SeriesState] = []
        self.fields: list[tuple[str | None, list[int]]] = []
        self.entities: dict[str, _Entity] = {}
        self.sweep_every_us = 0
        self.swept_us = 0

    def add(self, series: _SeriesState) -> None:
        self.series.append(series)
        self.sweep_every_us = max(self.sweep_every_us, series.window_us)
        for field, positions in self.fields:
            if field == series.field:
                positions.append(series.position)
                return
        self.fields.append((series.field, [series.position]))


class FeatureState:
    """Windows of every entity of one plan.

    With `journal`, what changed is remembered until it is taken (`take_changes`, `take_snapshots`): a caller that turns
    it on has to take both, one that does not take them turns it off.
    """

    def __init__(self, plan: FeaturePlan, *, journal: bool = True) -> None:
        self.plan = plan
        self._journal = journal
        self._changed: dict[Tile, _Window] = {}
        self._touched: dict[tuple[int, str], None] = {}
        self._groups: list[_Group] = []
        self._by_source: dict[str, list[_Group]] = {source: [] for source in plan.sources}
        self._series: list[tuple[_Group, int]] = []
        self._width = len(plan.columns)
        groups: dict[tuple[str, tuple[str, ...], tuple[str, ...]], _Group] = {}
        for index, series in enumerate(plan.series):
            key = (series.source, series.source_keys, series.event_keys)
            group = groups.get(key)
            if group is None:
                group = groups[key] = _Group(len(self._groups), series.event_keys, series.source_keys)
                self._groups.append(group)
                self._by_source[series.source].append(group)
            columns = [
                (position, aggregation_named(column.aggregation))
                for position, column in enumerate(plan.columns)
                if isinstance(column, WindowColumn) and column.series == index
            ]
            self._series.append((group, len(group.series)))
            group.add(_SeriesState(index, len(group.series), series, columns))
        self._numbers: list[tuple[int, str]] = []
        self._categories: list[tuple[int, str, Callable[[object], float]]] = []
        self._times: dict[str, list[tuple[int, Callable[[int], float]]]] = {}
        for position, column in enumerate(plan.columns):
            match column:
                case NumberColumn():
                    self._numbers.append((position, column.field))
                case CategoryColumn():
                    reader = category_reader(column.values, column.buckets)
                    self._categories.append((position, column.field, reader))
                case TimeColumn():
                    part: TimePart = column.part
                    self._times.setdefault(column.field, []).append((position, time_part(part)))
                case WindowColumn():
                    pass  # read by its series
                case _:
                    assert_never(column)

    @property
    def entities(self) -> int:
        """How many entities are held, over all groups."""
        return sum(len(group.entities) for group in self._groups)

    def fold(self, stream: str, time_us: int, event_id: str, fields: Fields) -> None:
        """Fold one record of a source stream (labels: `<stream>#label`) at its event time, in microseconds UTC.

        A record without a key, or a field without a value, is not folded; nor is a record so late that the newest
        record of its entity has already moved the window past it.
        """
        journal = self._journal
        for group in self._by_source.get(stream, ()):
            text = group.source_key(fields)
            if text is None:
                continue
            entity = group.entities.get(text)
            for field, positions in group.fields:
                if field is None:
                    value = 0.0
                else:
                    value = number(fields.get(field))
                    if value != value:
                        continue
                if entity is None:
                    entity = group.entities[text] = _Entity(group, text)
                for position in positions:
                    window = entity.windows[position]
                    tiles = window.tiles
                    start_us = time_us - time_us % window.tile_us
                    if tiles and (tile := tiles[-1]).start_us == start_us:
                        tile.fold(time_us, event_id, value)
                        window.summary_from_us = -1
                    else:
                        placed = self._place(window, start_us, time_us, event_id, value)
                        if placed is None:
                            continue
                        tile = placed
                    if journal:
                        self._changed[tile] = window
            if journal and entity is not None:
                self._touched[group.number, text] = None

    def _place(self, window: _Window, start_us: int, time_us: int, event_id: str, value: float) -> Tile | None:
        """Fold a record that does not belong to the newest tile: open a tile, or find an older one."""
        tiles = window.tiles
        if tiles and start_us < tiles[-1].start_us:
            for tile in reversed(tiles):
                if tile.start_us == start_us:
                    tile.fold(time_us, event_id, value)
                    window.forget()
                    return tile
        tile = Tile(start_us, time_us, event_id, value)
        if tiles and start_us > tiles[-1].start_us:
            tiles.append(tile)
            window.summary_from_us = -1
            expired_us = start_us - window.series.window_us
            if tiles[0].start_us <= expired_us:
                for gone in window.drop(expired_us):
                    self._changed.pop(gone, None)
            return tile
        return tile if window.put(tile) else None

    def vector(self, fields: Fields, at_us: int) -> list[float]:
        """The features of one event at `at_us` (microseconds UTC), in the plan's order; NaN where there is no value.

        `at_us` must not be earlier than any folded record: the event's order time when live, and at request time the
        later of the request's event time and the view's watermark. Nothing is changed by reading.
        """
        out = [NAN] * self._width
        get = fields.get
        for position, name in self._numbers:
            out[position] = number(get(name))
        for position, name, code in self._categories:
            out[position] = code(get(name))
        for name, parts in self._times.items():
            text = get(name)
            moment_us = time_us(text) if isinstance(text, str) else None
            if moment_us is not None:
                for position, part in parts:
                    out[position] = part(moment_us)
        for group in self._groups:
            key = group.event_key(fields)
            if key is None:
                continue
            entity = group.entities.get(key)
            if entity is None:
                for series in group.series:
                    for position, value in series.nothing:
                        out[position] = value
                continue
            for window in entity.windows:
                series = window.series
                oldest_us = at_us - series.window_us
                tiles = window.tiles
                if not tiles or tiles[-1].start_us <= oldest_us:
                    for position, value in series.nothing:
                        out[position] = value
                    continue
                summary = window.read(oldest_us) if series.moments else EMPTY
                newest = tiles[-1]
                for position, read in series.columns:
                    out[position] = read(summary, newest, at_us)
        return out

    def take_changes(self, watermark_us: int) -> list[SlotUpdate]:
        """The ring slots changed since the last take, one update each, without tiles expired at the watermark."""
        updates: list[SlotUpdate] = []
        for tile, window in self._changed.items():
            series = window.series
            if tile.start_us > watermark_us - series.window_us:
                ring = tile.start_us // series.tile_us % TILES_PER_WINDOW
                updates.append(SlotUpdate(window.slot + str(ring), tile.state()))
        self._changed.clear()
        return updates

    def change_all(self) -> None:
        """Every tile counts as changed."""
        for group in self._groups:
            for entity in group.entities.values():
                for window in entity.windows:
                    for tile in window.tiles:
                        self._changed[tile] = window

    def apply(self, update: SlotUpdate) -> None:
        """Put a published tile into its place; one older than what the entity's newest tile allows is ignored.

        Raises `ValueError` when the update is not one of this plan's.
        """
        number_, _, rest = update.slot.partition("|")
        text, _, _ = rest.rpartition("|")
        if not number_.isdecimal() or int(number_) >= len(self._series):
            raise ValueError(f"slot {update.slot!r} is not of view {self.plan.view_version}")
        group, position = self._series[int(number_)]
        tile = Tile.from_state(update.tile)
        entity = group.entities.get(text)
        if entity is None:
            entity = group.entities[text] = _Entity(group, text)
        entity.windows[position].put(tile)
        if self._journal:
            self._touched[group.number, text] = None

    def evict(self, watermark_us: int) -> int:
        """Forget tiles expired at the watermark and entities left without any; returns how many entities went.

        No later vector changes, because none is read earlier than the watermark. Each group is swept once per its
        longest window, so the cost per record is constant and memory holds at most two windows' worth of entities.
        """
        gone = 0
        for group in self._groups:
            if watermark_us - group.swept_us < group.sweep_every_us:
                continue
            group.swept_us = watermark_us
            for text in list(group.entities):
                entity = group.entities[text]
                alive = False
                for window in entity.windows:
                    for tile in window.drop(watermark_us - window.series.window_us):
                        self._changed.pop(tile, None)
                    alive = alive or bool(window.tiles)
                if not alive:
                    del group.entities[text]
                    gone += 1
                    if self._journal:
                        self._touched[group.number, text] = None
        return gone

    def snapshot(self) -> Iterator[tuple[str, bytes]]:
        """Every entity as (key, MessagePack), for `restore`."""
        for group in self._groups:
            for text, entity in group.entities.items():
                yield f"{group.number}|{text}", _blob(entity)

    def take_snapshots(self) -> list[tuple[str, bytes | None]]:
        """The entities changed since the last take: (key, whole blob), or (key, None) when the row may be deleted."""
        rows: list[tuple[str, bytes | None]] = []
        for number_, text in self._touched:
            entity = self._groups[number_].entities.get(text)
            rows.append((f"{number_}|{text}", None if entity is None else _blob(entity)))
        self._touched.clear()
        return rows

    def restore(self, items: Iterable[tuple[str, bytes]]) -> None:
        """Put entities back as they were; raises `ValueError` when a blob is not one of this plan's."""
        for key, blob in items:
            number_, _, text = key.partition("|")
            if not number_.isdecimal() or int(number_) >= len(self._groups):
                raise ValueError(f"snapshot key {key!r} is not of view {self.plan.view_version}")
            group = self._groups[int(number_)]
            windows = _decoder.decode(blob)
            if len(windows) != len(group.series):
                raise ValueError(f"snapshot {key!r} has {len(windows)} windows, the view has {len(group.series)}")
            entity = _Entity(group, text)
            for window, states in zip(entity.windows, windows, strict=True):
                window.tiles = [Tile.from_state(state) for state in states]
            group.entities[text] = entity


def _blob(entity: _Entity) -> bytes:
    return _encoder.encode([[tile.state() for tile in window.tiles] for window in entity.windows])
