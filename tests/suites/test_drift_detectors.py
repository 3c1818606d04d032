"""What every detector of change of the catalogue must show. It needs nothing here but its row."""

from __future__ import annotations

import doctest
import math
import re
import subprocess
import sys
from importlib import import_module
from itertools import accumulate
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel.contracts.payload import WORD_PATTERN
from evenkeel.libs.drift import DETECTORS, Detector, DetectorRow, chosen_detectors, detector_named

RUNS: Final = 1_000
every_detector: Final = pytest.mark.parametrize("row", DETECTORS, ids=lambda row: row.name)


def new(row: DetectorRow, state: bytes | None = None) -> Detector:
    return row.new({name: parameter.default for name, parameter in row.parameters.items()}, state)


def errors(n: int, mean: float, seed: int) -> list[float]:
    return [float(one) for one in np.random.default_rng(seed).random(n) < mean]


def test_every_detector_has_a_name_of_its_own() -> None:
    names = [row.name for row in DETECTORS]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(WORD_PATTERN, name) for name in names)
    for row in DETECTORS:
        assert all(one.above < one.default < one.below for one in row.parameters.values())


@every_detector
def test_its_example_holds(row: DetectorRow) -> None:
    module = import_module(f"evenkeel.libs.drift.{row.name}")
    assert ">>> " in (module.new.__doc__ or "")
    assert doctest.testmod(module).failed == 0


@every_detector
def test_a_rise_is_found_with_its_means(row: DetectorRow) -> None:
    detector = new(row)
    values = errors(2_000, 0.1, 1) + errors(1_000, 0.4, 2)
    changes = detector.update(values)
    assert changes
    dropped = sum(change.dropped for change in changes)
    assert 1_500 < dropped <= 2_300, "what is forgotten ends about where the errors rose"
    forgotten = sum(change.dropped * change.before for change in changes)
    assert forgotten == pytest.approx(sum(values[:dropped]), rel=1e-9), (
        "the mean before is that of the forgotten values"
    )
    assert detector.width == len(values) - dropped
    assert detector.mean == pytest.approx(np.mean(values[dropped:]), rel=1e-9)
    assert changes[0].before < 0.15 < changes[-1].after


@every_detector
def test_a_fall_is_found_too(row: DetectorRow) -> None:
    changes = new(row).update(errors(2_000, 0.4, 3) + errors(1_000, 0.1, 4))
    assert changes
    assert all(change.after < change.before for change in changes)


@every_detector
def test_without_a_change_false_alarms_are_as_rare_as_stated(row: DetectorRow) -> None:
    """A thousand streams of a thousand errors. More than the stated rate and three standard errors is too many."""
    generator = np.random.default_rng(5)
    levels = generator.uniform(0.05, 0.5, RUNS)
    streams = (generator.random((RUNS, 1_000)) < levels[:, None]).astype(float).tolist()
    rate = new(row).significance
    alarms = sum(bool(new(row).update(stream)) for stream in streams)
    assert alarms <= RUNS * rate + 3 * math.sqrt(RUNS * rate * (1 - rate))


@every_detector
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 1_500), min_size=1, max_size=6))
def test_a_restored_detector_goes_on_as_if_nothing_had_happened(row: DetectorRow, seed: int, cuts: list[int]) -> None:
    random = np.random.default_rng(seed)
    values = [
        float(abs(x))
        for n, level in zip(cuts, random.random(len(cuts)), strict=True)
        for x in random.normal(level, 0.3, n)
    ]
    whole, pieces = new(row), new(row)
    expected, found = whole.update(values), []
    for start, end in zip([0, *accumulate(cuts)], [*accumulate(cuts)], strict=False):
        found += pieces.update(values[start:end])
        pieces = new(row, pieces.state())
    assert found == expected
    assert (pieces.state(), pieces.width, pieces.mean) == (whole.state(), whole.width, whole.mean)


@every_detector
def test_nothing_has_no_mean(row: DetectorRow) -> None:
    detector = new(row)
    assert detector.update([]) == []
    assert (detector.width, detector.mean) == (0, 0.0)


def test_the_catalogue_is_read_without_any_library_of_a_detector() -> None:
    code = (
        "import sys, evenkeel.libs.drift; print({name.partition('.')[0] for name in sys.modules} & {'river', 'scipy'})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_policy_chooses_detectors_and_their_parameters() -> None:
    assert chosen_detectors(None) == {"adwin": {"delta": 0.002}}
    assert chosen_detectors({}) == {}
    assert chosen_detectors({"adwin": {"delta": 0.1}}) == {"adwin": {"delta": 0.1}}
    for given_, message in (
        ({"adwim": {}}, "no detector 'adwim': it is one of adwin"),
        ({"adwin": {"dleta": 0.1}}, "adwin has no parameter 'dleta'; it has delta"),
        ({"adwin": {"delta": 1.0}}, "delta is 1; it must be above 0 and below 1"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen_detectors(given_)
    with pytest.raises(ValueError, match="no detector"):
        detector_named("psi")
