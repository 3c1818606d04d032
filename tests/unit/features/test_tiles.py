"""The tile rule by hand."""

from __future__ import annotations

import doctest
import statistics

import pytest

from evenkeel.contracts import declaration
from evenkeel.contracts.declaration import HOUR_US, MINUTE_US, SECOND_US
from evenkeel.libs.features import labels, scalars, tiles
from evenkeel.libs.features.tiles import EMPTY, Tile, evaluate, merge


@pytest.mark.parametrize("module", [tiles, scalars, labels, declaration])
def test_docstring_examples(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0


def _tiles(values: dict[int, list[float]]) -> list[Tile]:
    made = []
    for start_us, items in values.items():
        tile = Tile(start_us, start_us, "0", items[0])
        for number, value in enumerate(items[1:], 1):
            tile.fold(start_us + number, str(number), value)
        made.append(tile)
    return made


def test_merge_equals_the_textbook() -> None:
    values = {0: [3.0, -1.5, 8.0], MINUTE_US: [2.0], 7 * MINUTE_US: [100.0, 99.0]}
    everything = [value for items in values.values() for value in items]
    summary = merge(EMPTY, _tiles(values))
    assert summary.n == 6
    assert summary.mean == pytest.approx(statistics.fmean(everything), rel=1e-15)
    assert summary.m2 / 5 == pytest.approx(statistics.variance(everything), rel=1e-14)
    assert (summary.min, summary.max) == (-1.5, 100.0)


def test_mean_and_count_do_not_depend_on_what_else_is_computed() -> None:
    some = _tiles({0: [0.1, 0.2], MINUTE_US: [0.3], 2 * MINUTE_US: [1e9, 0.7, 3.3]})
    results = {merge(EMPTY, some, spread, extremes)[:2] for spread in (True, False) for extremes in (True, False)}
    assert len(results) == 1


@pytest.mark.parametrize(
    ("at_us", "n"),
    [
        (HOUR_US - 1, 2),
        (HOUR_US, 1),
        (HOUR_US + MINUTE_US - 1, 1),
        (HOUR_US + MINUTE_US, 0),
        (59 * SECOND_US, 1),
    ],
)
def test_a_window_is_the_tiles_that_start_within_it(at_us: int, n: int) -> None:
    assert evaluate(_tiles({0: [1.0], MINUTE_US: [2.0]}), at_us, HOUR_US).n == n


def test_no_record_older_than_the_window_counts_and_every_one_younger_by_a_tile_does() -> None:
    window_us = 3 * HOUR_US
    for age_us in range(0, window_us + 10 * MINUTE_US, 7 * SECOND_US):
        at_us = 100 * HOUR_US + 101 * SECOND_US
        start_us = (at_us - age_us) // (window_us // 60) * (window_us // 60)
        n = evaluate(_tiles({start_us: [1.0]}), at_us, window_us).n
        assert n == 0 if age_us > window_us else n == 1 or age_us > window_us - window_us // 60


def test_the_latest_record_does_not_depend_on_the_order_of_folding() -> None:
    tile = Tile(0, 5, "b", 1.0)
    for time_us, event_id, value in [(4, "z", 2.0), (5, "c", 3.0), (5, "a", 4.0)]:
        tile.fold(time_us, event_id, value)
    assert (tile.last_time_us, tile.last_event_id, tile.last_value) == (5, "c", 3.0)


def test_a_tile_survives_its_state() -> None:
    (tile,) = _tiles({0: [0.1, 0.2, 1e-300]})
    assert Tile.from_state(tile.state()).state() == tile.state()


@pytest.mark.parametrize(
    "state",
    [
        [],
        [0, 0, 1.0, 0.0, 1.0, 1.0, 0, "a", 1.0],
        [0, 1, None, 0.0, 1.0, 1.0, 0, "a", 1.0],
        [0, 1, 1.0, 0.0, 1.0, 1.0, 0, 7, 1.0],
        [0.5, 1, 1.0, 0.0, 1.0, 1.0, 0, "a", 1.0],
    ],
)
def test_what_is_no_tile_is_refused(state: list[int | float | str | None]) -> None:
    with pytest.raises(ValueError, match="tile"):
        Tile.from_state(state)
