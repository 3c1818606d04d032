"""What a user may set of a statistic or a detector, as data: a name, a default, and between which bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


class UnusableParameter(ValueError):
    """A parameter that there is not, or a value out of its bounds. `parameter` names it, the message says what fits."""

    def __init__(self, parameter: str, message: str, fix: str) -> None:
        super().__init__(f"{message}; {fix}")
        self.parameter, self.message, self.fix = parameter, message, fix


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number with its default; it lies between `above` and `below`, both excluded."""

    default: float
    above: float = -math.inf
    below: float = math.inf


def completed(what: str, known: Mapping[str, Parameter], given: Mapping[str, float]) -> dict[str, float]:
    """Every parameter of `what`, as given or by default; raises `UnusableParameter`.

    >>> completed("some", {"threshold": Parameter(0.2, above=0.0)}, {})
    {'threshold': 0.2}
    """
    for name, value in given.items():
        if name not in known:
            raise UnusableParameter(name, f"{what} has no parameter {name!r}", f"it has {', '.join(sorted(known))}")
        bounds = known[name]
        if not bounds.above < value < bounds.below:
            upper = "" if bounds.below == math.inf else f" and below {bounds.below:g}"
            raise UnusableParameter(name, f"{name} is {value:g}", f"it must be above {bounds.above:g}{upper}")
    return {name: float(given.get(name, parameter.default)) for name, parameter in known.items()}
