"""Window arithmetic: the tile rule, and the only evaluator of windows, for live, request-time and backfill.

**Rule.** A window of length W is kept in tiles of W/60, aligned to the epoch. A record is folded into the tile that its
event time falls into. The window at time `at` is made of the tiles whose start lies in (at − W, at]: always 60 tiles,
the current one and the 59 before it.
**Bound.** No record older than W is ever in; every record younger than W − W/60 is in; of the records between, those
that share a tile with an expired start are out. The window's edge is thus at most W/60 (1.7 %) early, never late.
**Order.** Inside a tile, records are folded one by one in the order they come (Welford 1962); tiles are merged left to
right in tile order (Chan, Golub, LeVeque 1979). Both are plain float64 arithmetic in a fixed order, so the result
depends on the records and their order alone, never on how they were batched.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

TILES_PER_WINDOW: Final = 60

TileState: TypeAlias = list[int | float | str]
"""[start_us, n, mean, M2, min, max, last_time_us, last_event_id, last_value]"""


class Tile:
    """The records of one tile: n ≥ 1, mean, M2 (sum of squared deviations), extremes, the latest record."""

    __slots__ = ("last_event_id", "last_time_us", "last_value", "m2", "max", "mean", "min", "n", "start_us")

    def __init__(self, start_us: int, time_us: int, event_id: str, value: float) -> None:
        self.start_us = start_us
        self.n = 1
        self.mean = value
        self.m2 = 0.0
        self.min = value
        self.max = value
        self.last_time_us = time_us
        self.last_event_id = event_id
        self.last_value = value

    def fold(self, time_us: int, event_id: str, value: float) -> None:
        """Add one record; the latest is the greatest (time, id), whatever the order of folding."""
        n = self.n = self.n + 1
        mean = self.mean
        delta = value - mean
        mean += delta / n
        self.mean = mean
        self.m2 += delta * (value - mean)
        if value < self.min:
            self.min = value
        elif value > self.max:
            self.max = value
        if time_us > self.last_time_us or (time_us == self.last_time_us and event_id >= self.last_event_id):
            self.last_time_us = time_us
            self.last_event_id = event_id
            self.last_value = value

    def state(self) -> TileState:
        """The whole tile as a flat list that JSON and MessagePack carry without loss."""
        return [
            self.start_us,
            self.n,
            self.mean,
            self.m2,
            self.min,
            self.max,
            self.last_time_us,
            self.last_event_id,
            self.last_value,
        ]

    @classmethod
    def from_state(cls, state: Sequence[int | float | str | None]) -> Tile:
        """The inverse of `state`; raises `ValueError` for anything else."""
        if len(state) != len(cls.__slots__):
            raise ValueError(f"a tile has {len(cls.__slots__)} values, not {len(state)}")
        start_us, n, mean, m2, low, high, last_time_us, last_event_id, last_value = state
        if not (isinstance(start_us, int) and isinstance(n, int) and isinstance(last_time_us, int) and n > 0):
            raise ValueError("a tile's start, count and last time are whole numbers, and its count is positive")
        if not isinstance(last_event_id, str):
            raise ValueError("a tile's last event id is a text")
        tile = cls(start_us, last_time_us, last_event_id, _float(last_value))
        tile.n, tile.mean, tile.m2, tile.min, tile.max = n, _float(mean), _float(m2), _float(low), _float(high)
        return tile


def _float(value: float | str | None) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    raise ValueError(f"{value!r} in a tile is not a number")


class Summary(NamedTuple):
    """The merge of tiles. With n = 0 nothing else has a meaning."""

    n: int
    mean: float
    m2: float
    min: float
    max: float


EMPTY: Final = Summary(0, 0.0, 0.0, float("inf"), float("-inf"))


def merge(left: Summary, tiles: Iterable[Tile], spread: bool = True, extremes: bool = True) -> Summary:
    """Merge tiles, in their order, onto what stands left of them.

    Without `spread`, M2 is left as it was, and without `extremes` min and max: n and mean never depend on them.
    """
    n, mean, m2, low, high = left
    if spread:
        for tile in tiles:
            count = tile.n
            total = n + count
            delta = tile.mean - mean
            share = count / total
            mean += delta * share
            m2 += tile.m2 + delta * delta * n * share
            n = total
            if tile.min < low:
                low = tile.min
            if tile.max > high:
                high = tile.max
    elif extremes:
        for tile in tiles:
            count = tile.n
            n += count
            mean += (tile.mean - mean) * (count / n)
            if tile.min < low:
                low = tile.min
            if tile.max > high:
                high = tile.max
    else:
        for tile in tiles:
            count = tile.n
            n += count
            mean += (tile.mean - mean) * (count / n)
    return Summary(n, mean, m2, low, high)


def evaluate(tiles: Sequence[Tile], at_us: int, window_us: int, spread: bool = True, extremes: bool = True) -> Summary:
    """The window of length `window_us` at `at_us`, from tiles in ascending order of start.

    Parameters: times in microseconds since the epoch, UTC; `window_us` a multiple of 60 s.
    Returns the merged n, mean, M2, min, max (see `merge` for what `spread` and `extremes` leave out).

    >>> tiles = [Tile(0, 5, "a", 2.0), Tile(60_000_000, 60_000_007, "b", 4.0)]
    >>> evaluate(tiles, 61_000_000, 3_600_000_000)
    Summary(n=2, mean=3.0, m2=2.0, min=2.0, max=4.0)
    >>> evaluate(tiles, 3_600_000_000, 3_600_000_000).n
    1
    """
    oldest_us = at_us - window_us
    return merge(EMPTY, [tile for tile in tiles if oldest_us < tile.start_us <= at_us], spread, extremes)
