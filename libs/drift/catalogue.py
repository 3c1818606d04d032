"""Every drift statistic and every detector of change there is. A new one is a file beside this one and a row here; the suites
are tests/suites/test_drift_statistics.py and test_drift_detectors.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from evenkeel.libs.drift import jensen_shannon, psi
from evenkeel.libs.drift.detector import DetectorRow
from evenkeel.libs.drift.parameters import Parameter, completed
from evenkeel.libs.drift.statistic import Statistic

_ALL_KINDS: Final = ("distinct", "quantile")

STATISTICS: Final[tuple[Statistic, ...]] = (
    Statistic("psi", "PSI", _ALL_KINDS, Parameter(0.2, above=0.0), True, psi.measure),
    Statistic(
        "jensen_shannon",
        "Jensen–Shannon distance",
        _ALL_KINDS,
        Parameter(0.1, above=0.0, below=1.0),
        False,
        jensen_shannon.measure,
    ),
)
DETECTORS: Final[tuple[DetectorRow, ...]] = (
    DetectorRow("adwin", {"delta": Parameter(0.002, above=0.0, below=1.0)}, True),
)
_STATISTICS: Final = {row.name: row for row in STATISTICS}
_DETECTORS: Final = {row.name: row for row in DETECTORS}


def statistic_named(name: str) -> Statistic:
    """The row of that name; raises `ValueError` when there is none."""
    if name not in _STATISTICS:
        raise ValueError(f"there is no drift statistic {name!r}: it is one of {', '.join(_STATISTICS)}")
    return _STATISTICS[name]


def detector_named(name: str) -> DetectorRow:
    """The row of that name; raises `ValueError` when there is none."""
    if name not in _DETECTORS:
        raise ValueError(f"there is no detector {name!r}: it is one of {', '.join(_DETECTORS)}")
    return _DETECTORS[name]


def chosen_statistics(given: Mapping[str, Mapping[str, float]] | None) -> dict[str, float]:
    """Statistic → threshold, as a policy chose them; the default ones where it says nothing. Raises `ValueError`."""
    chosen = {row.name: {} for row in STATISTICS if row.by_default} if given is None else given
    return {
        name: completed(name, statistic_named(name).parameters, parameters)["threshold"]
        for name, parameters in chosen.items()
    }


def chosen_detectors(given: Mapping[str, Mapping[str, float]] | None) -> dict[str, dict[str, float]]:
    """Detector → all its parameters, as a policy chose them; the default ones where it says nothing. Raises `ValueError`."""
    chosen = {row.name: {} for row in DETECTORS if row.by_default} if given is None else given
    return {name: completed(name, detector_named(name).parameters, parameters) for name, parameters in chosen.items()}
