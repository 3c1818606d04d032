"""F1: the harmonic mean of precision and recall."""

from __future__ import annotations

from evenkeel.libs.metrics.metric import Array, checked_decisions
from evenkeel.libs.metrics.ratio import ratio, ratio_influence


def value(label: Array, decision: Array) -> float:
    """In [0, 1]. Undefined when no row is or is decided positive. Source: van Rijsbergen (1979), chapter 7.

    >>> import numpy as np
    >>> value(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0]))
    0.5
    """
    return ratio("f1", *_parts(label, decision))


def influence(label: Array, decision: Array) -> Array:
    """Of a ratio: see `ratio_influence`.

    >>> import numpy as np
    >>> influence(np.array([1.0, 0.0, 1.0, 0.0]), np.array([1.0, 1.0, 0.0, 0.0])).tolist()
    [1.0, -0.5, -0.5, 0.0]
    """
    return ratio_influence("f1", *_parts(label, decision))


def _parts(label: Array, decision: Array) -> tuple[Array, Array]:
    label, decision = checked_decisions(label, decision)
    return 2.0 * decision * label, decision + label
