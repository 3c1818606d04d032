"""What can be trained: one file and one row of the catalogue for each estimator.

The catalogue can be read without any training library; a row's `load` imports its file, which imports what it needs (extra
`training`).
"""

from evenkeel.libs.estimators.catalogue import ESTIMATORS, estimator_named, estimators_of
from evenkeel.libs.estimators.estimator import Estimator, Fitted, Graph, UnusableParameters

__all__ = [
    "ESTIMATORS",
    "Estimator",
    "Fitted",
    "Graph",
    "UnusableParameters",
    "estimator_named",
    "estimators_of",
]
