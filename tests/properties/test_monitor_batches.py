"""However a stream is cut into releases, and however often the service restarts, monitor says the same."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.monitor import AlertChanged, DriftDetected, PerformanceDegraded, WindowMeasured
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.service import Derived
from tests.unit.monitor.scenes import (
    MODEL,
    Monitor,
    day,
    declared,
    in_order,
    package,
    prediction,
    steady_rows,
    told,
    traffic,
)

DAYS = 26
POLICY = {"cooldown": "5d", "min_samples": 60}


@cache
def stream() -> tuple[Event[Any], ...]:
    """Ten calm days, then inputs move and quality falls, and on day 21 a second champion takes over in the middle of it."""
    calm = traffic(range(10), per_day=40)
    worse = traffic(range(10, 21), per_day=40, season=1.5, skill=-1.0)
    second = [
        e for e in traffic(range(21, DAYS), per_day=40, season=1.5, epoch=2) if e.time_us >= day(21.4) or e.id[0] == "v"
    ]
    asked = [prediction(900_000 + i, day(i) + 5, 0.5, origin="request") for i in range(DAYS)]
    return tuple(e for e in in_order([*calm, *worse, *second, *asked]) if e.order_us < day(DAYS))


@cache
def failing() -> tuple[Event[Any], ...]:
    """Twelve calm days, then errors rise while inputs stay: ADWIN's to find, if decay is told to look away."""
    events = in_order([*traffic(range(12), per_day=80), *traffic(range(12, DAYS), per_day=80, noise=0.7)])
    return tuple(e for e in events if e.order_us < day(DAYS))


def run(
    data_dir: Path,
    cuts: Sequence[int],
    restarts: Sequence[bool],
    events: Sequence[Event[Any]] | None = None,
    **policy: Any,
) -> list[Derived]:
    """Release the stream up to each cut, and restart after it where told."""
    monitor, outputs, start = Monitor(data_dir), [], 0
    events = stream() if events is None else events
    try:
        monitor.declare(declared(**POLICY | policy))
        rows = steady_rows()
        monitor.promote(package(data_dir, rows), 1, auc=0.9)
        monitor.promote(package(data_dir, rows + np.array([0.0, 1.5]), "run-2"), 2, run_id="run-2")
        for cut, restart in zip([*sorted(cuts), day(DAYS) + DAY_US], [*restarts, False], strict=False):
            end = start
            while end < len(events) and events[end].order_us < cut:
                end += 1
            outputs += monitor.release(events[start:end], cut)
            start = end
            if restart:
                monitor.restart()
        return outputs
    finally:
        monitor.close()


def said(outputs: Sequence[Derived]) -> list[tuple[Any, ...]]:
    return [(type(o.payload), o.id, o.payload, o.cause, o.time_us) for o in outputs]


@cache
def at_once() -> list[tuple[Any, ...]]:
    with tempfile.TemporaryDirectory() as folder:
        return said(run(Path(folder), [], []))


def test_the_stream_has_something_to_say() -> None:
    """The property would prove nothing of a silent stream."""
    kinds = [kind for kind, *_ in at_once()]
    assert kinds.count(WindowMeasured) == DAYS + DAYS // 7
    assert DriftDetected in kinds
    assert PerformanceDegraded in kinds
    assert kinds.count(AlertChanged) >= 2
    with tempfile.TemporaryDirectory() as folder:
        windows = told(run(Path(folder), [], []), WindowMeasured)
    assert {window.epoch for window in windows} == {1, 2}
    assert {version for window in windows for version in window.versions} == {"1", "2"}
    assert all(window.model == MODEL for window in windows)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(st.integers(day(0), day(DAYS)), max_size=25, unique=True),
    st.lists(st.booleans(), min_size=25, max_size=25),
)
def test_cuts_and_restarts_change_nothing(cuts: list[int], restarts: list[bool]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert said(run(Path(folder), cuts, restarts)) == at_once()


def test_one_record_at_a_time() -> None:
    times = sorted({event.order_us for event in stream()})
    with tempfile.TemporaryDirectory() as folder:
        assert said(run(Path(folder), times[::5], [i % 50 == 0 for i in range(len(times))])) == at_once()


def test_restarts_between_the_last_event_of_a_day_and_its_end() -> None:
    last = {event.order_us // DAY_US: event.order_us + 1 for event in stream()}
    with tempfile.TemporaryDirectory() as folder:
        assert said(run(Path(folder), list(last.values()), [True] * len(last))) == at_once()


def test_the_error_watch_goes_on_over_restarts() -> None:
    quiet = {"decay_tolerance": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder), [], [], failing(), **quiet)
    assert [signal.detector for signal in told(whole, DriftDetected)][:1] == ["adwin"]
    noons = [day(number + 0.5) for number in range(DAYS)]
    with tempfile.TemporaryDirectory() as folder:
        assert said(run(Path(folder), noons, [True] * DAYS, failing(), **quiet)) == said(whole)
