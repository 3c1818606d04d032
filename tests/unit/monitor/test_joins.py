"""Predictions and labels wait for each other, each until the horizon; the log brings both sides back."""

from __future__ import annotations

from evenkeel.services.monitor.domain.joins import Joins, LogEntry, Open, decode_entry, encode_entry

HORIZON = 100


def opened(time_us: int) -> Open:
    return Open(time_us, 0.7, 1, 3)


def test_a_label_finds_the_prediction_that_came_first() -> None:
    joins = Joins(HORIZON)
    assert joins.predict("a", 10, opened(10)) is None
    assert joins.label("a", 60, 1.0) == opened(10)
    assert not joins.open
    assert not joins.early


def test_a_prediction_finds_the_label_that_came_first() -> None:
    joins = Joins(HORIZON)
    assert joins.label("a", 10, 0.0) is None
    assert joins.predict("a", 12, opened(12)) == 0.0
    assert not joins.open
    assert not joins.early


def test_a_label_at_the_horizon_counts_and_one_after_it_does_not() -> None:
    joins = Joins(HORIZON)
    joins.predict("a", 10, opened(10))
    joins.predict("b", 10, opened(10))
    assert joins.label("a", 10 + HORIZON, 1.0) is not None
    assert joins.label("b", 11 + HORIZON, 1.0) is None


def test_a_prediction_after_the_labels_horizon_does_not_count() -> None:
    joins = Joins(HORIZON)
    joins.label("a", 10, 1.0)
    assert joins.predict("a", 11 + HORIZON, opened(11 + HORIZON)) is None


def test_a_second_label_and_a_second_prediction_change_nothing() -> None:
    joins = Joins(HORIZON)
    joins.predict("a", 10, opened(10))
    joins.predict("a", 11, opened(11))
    assert joins.label("a", 20, 1.0) == opened(10)
    assert joins.label("a", 21, 0.0) is None


def test_forgetting_changes_no_join() -> None:
    """What is dropped could not have been joined any more."""
    for forget in (False, True):
        joins = Joins(HORIZON)
        joins.predict("old", 10, opened(10))
        joins.predict("young", 50, opened(50))
        joins.label("early", 50, 1.0)
        if forget:
            joins.forget(130)
            assert set(joins.open) == {"young"}
        assert joins.label("old", 130, 1.0) is None
        assert joins.label("young", 130, 1.0) == opened(50)
        assert joins.predict("early", 130, opened(130)) == 1.0


def test_the_log_brings_back_both_sides() -> None:
    joins, log = Joins(HORIZON), []
    joins.predict("a", 10, opened(10))
    joins.label("b", 11, 1.0)
    log.append(encode_entry(joins.take_entry(11)))
    joins.label("a", 20, 1.0)
    joins.predict("b", 20, opened(20))
    joins.predict("c", 21, opened(21))
    joins.label("d", 22, 0.0)
    log.append(encode_entry(joins.take_entry(22)))
    back = Joins(HORIZON)
    for blob in log:
        back.replay(decode_entry(blob))
    assert (back.open, back.early) == (joins.open, joins.early)
    assert back.until_us == joins.until_us == 22 + HORIZON


def test_what_opens_and_closes_in_one_release_is_not_logged() -> None:
    joins = Joins(HORIZON)
    joins.predict("a", 10, opened(10))
    joins.label("a", 11, 1.0)
    assert joins.take_entry(11).empty


def test_an_entry_outlives_the_entries_whose_predictions_it_closes() -> None:
    joins = Joins(HORIZON)
    joins.predict("a", 50, opened(50))
    first = joins.take_entry(50)
    joins.label("a", 51, 1.0)
    second: LogEntry = joins.take_entry(40)
    assert second.until_us >= first.until_us
