"""Nothing of the future leaks into a model: not into its training rows, and not into the choice of evaluation rows."""

from __future__ import annotations

import numpy as np

from evenkeel.libs.clock import DAY_US, HOUR_US
from evenkeel.services.trainer.domain.split import TemporalSplit, TrainingTable, temporal_split
from tests.tiny_packages import START_US, table_of

N = 24 * 40


def _table(delays_hours: np.ndarray | int = 3) -> TrainingTable:
    """One event an hour for forty days."""
    event_time = START_US + np.arange(N, dtype=np.int64) * HOUR_US
    label_time = event_time + np.asarray(delays_hours, dtype=np.int64) * HOUR_US
    return table_of(event_time, label_time, np.zeros(N), np.zeros((N, 1), dtype=np.float32))


def _split(table: TrainingTable, **changes: int | None) -> TemporalSplit:
    settings: dict[str, int | None] = {
        "label_cut_us": START_US + 40 * DAY_US,
        "label_horizon_us": 2 * DAY_US,
        "holdout_us": 5 * DAY_US,
        "max_span_us": None,
        "max_rows": 10**6,
        "unseen_from_us": None,
    }
    return temporal_split(table, **{**settings, **changes})  # type: ignore[arg-type]


def test_labels_known_before_the_cut_train_and_events_after_it_evaluate() -> None:
    table = _table()
    split = _split(table)
    assert split.cut_us == START_US + 33 * DAY_US
    assert split.evaluation_until_us == START_US + 38 * DAY_US
    assert table.label_time_us[split.training].max() < split.cut_us
    assert len(split.training) == 33 * 24 - 3
    assert table.event_time_us[split.evaluation].min() == split.cut_us
    assert table.event_time_us[split.evaluation].max() < split.evaluation_until_us
    assert len(split.evaluation) == 5 * 24


def test_late_labels_are_in_neither_part() -> None:
    delays = np.full(N, 3)
    delays[30 * 24] = 24 * 4  # known only after the cut
    delays[36 * 24] = 24 * 30  # known only after the dataset's cut
    split = _split(_table(delays))
    assert 30 * 24 not in split.training
    assert 30 * 24 not in split.evaluation
    assert 36 * 24 not in split.evaluation
    assert len(split.evaluation) == 5 * 24 - 1


def test_early_labels_of_the_newest_events_do_not_sneak_in() -> None:
    """Positive labels that come at once and negative ones that come a day later must not change the mix."""
    delays = np.where(np.arange(N) % 2 == 0, 0, 24)
    split = _split(_table(delays))
    assert np.bincount(split.evaluation % 2).tolist() == [60, 60]


def test_the_window_starts_where_the_champion_has_seen_nothing() -> None:
    split = _split(_table(), unseen_from_us=START_US + 35 * DAY_US)
    assert split.cut_us == START_US + 33 * DAY_US
    assert len(split.evaluation) == 3 * 24
    assert len(_split(_table(), unseen_from_us=START_US).evaluation) == 5 * 24


def test_rows_are_limited_to_the_newest() -> None:
    by_span = _split(_table(), max_span_us=10 * DAY_US)
    assert by_span.training.min() == 23 * 24
    by_number = _split(_table(), max_rows=100)
    assert by_number.training.tolist() == list(range(33 * 24 - 103, 33 * 24 - 3))


def test_a_short_history_gives_at_most_a_quarter_away() -> None:
    split = _split(_table(), holdout_us=30 * DAY_US)
    assert split.cut_us == START_US + 28 * DAY_US


def test_an_empty_table_splits_into_nothing() -> None:
    empty = table_of(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0), np.empty((0, 1), np.float32))
    split = _split(empty)
    assert len(split.training) == len(split.evaluation) == 0
