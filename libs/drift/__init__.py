"""Has what comes in changed? Statistics that compare inputs with a reference, and detectors that watch a stream of errors:
one file and one row of the catalogue for each.

The catalogue can be read without any library but numpy; a detector's row loads its file, which imports what it needs.
"""

from evenkeel.libs.drift.catalogue import (
    DETECTORS,
    STATISTICS,
    chosen_detectors,
    chosen_statistics,
    detector_named,
    statistic_named,
)
from evenkeel.libs.drift.detector import Change, Detector, DetectorRow
from evenkeel.libs.drift.parameters import Parameter, UnusableParameter
from evenkeel.libs.drift.statistic import SIGNIFICANCE, Measured, Statistic, Verdict

__all__ = [
    "DETECTORS",
    "SIGNIFICANCE",
    "STATISTICS",
    "Change",
    "Detector",
    "DetectorRow",
    "Measured",
    "Parameter",
    "Statistic",
    "UnusableParameter",
    "Verdict",
    "chosen_detectors",
    "chosen_statistics",
    "detector_named",
    "statistic_named",
]
