"""Label expressions: `field` or `field op number`, read by hand and never evaluated as code."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from evenkeel.contracts.payload import IDENTIFIER_PATTERN

_NAME: Final = IDENTIFIER_PATTERN.strip("^$")
_EXPRESSION: Final = re.compile(
    rf"\s*({_NAME})\s*"
    r"(?:(>=|<=|==|!=|>|<)\s*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*)?"
)
_OPERATORS: Final[dict[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class LabelRule:
    """A model's target as a function of one label record."""

    field: str
    operator: str | None = None
    number: float = 0.0

    def value(self, fields: Mapping[str, object]) -> float | None:
        """The target: 1.0 or 0.0 for a comparison, the field itself (booleans as 0 and 1) otherwise; `None` if missing.

        >>> parse_label("arr_delay > 15").value({"arr_delay": 20})
        1.0
        """
        raw = fields.get(self.field)
        if not isinstance(raw, (int, float)):
            return None
        try:
            value = float(raw)
        except OverflowError:
            return None
        if not math.isfinite(value):
            return None
        if self.operator is None:
            return value
        return 1.0 if _OPERATORS[self.operator](value, self.number) else 0.0


def parse_label(expression: str) -> LabelRule:
    """Read a label expression; raises `ValueError` saying what may be written."""
    match = _EXPRESSION.fullmatch(expression)
    if match is None:
        raise ValueError(f"{expression!r} is not a label; write `field` or `field op number`, such as arr_delay > 15")
    field, sign, number = match.groups()
    return LabelRule(field) if sign is None else LabelRule(field, sign, float(number))
