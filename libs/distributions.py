"""Tails of the distributions that tests need, so that no service needs scipy."""

from __future__ import annotations

import math
from typing import Final

_MAX_STEPS: Final = 300
_EPSILON: Final = 1e-15
_TINY: Final = 1e-300


def chi_square_survival(x: float, degrees: int) -> float:
    """P(X > x) of a chi-square variable with a whole number of degrees of freedom, by its finite series; 1 for none.

    Source: Abramowitz and Stegun (1964), 26.4.4 and 26.4.5.

    >>> round(chi_square_survival(3.841458820694124, 1), 10)
    0.05
    """
    if degrees < 1 or x <= 0.0:
        return 1.0
    half = x / 2.0
    survival = math.erfc(math.sqrt(half)) if degrees % 2 else math.exp(-half)
    shape = 0.5 if degrees % 2 else 1.0
    log_half = math.log(half)
    while shape < degrees / 2.0:
        survival += math.exp(shape * log_half - half - math.lgamma(shape + 1.0))
        shape += 1.0
    return min(survival, 1.0)


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1].

    Source: Abramowitz and Stegun (1964), 26.5.8, evaluated by Lentz's method.

    >>> round(incomplete_beta(2.0, 3.0, 0.5), 10)
    0.6875
    """
    if not 0.0 <= x <= 1.0 or a <= 0.0 or b <= 0.0:
        raise ValueError(f"I_x(a, b) needs a, b > 0 and x in [0, 1], got a={a}, b={b}, x={x}")
    if x in (0.0, 1.0):
        return x
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(b, a, 1.0 - x)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, _MAX_STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        step = 1.0
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            step = c * d
            fraction *= step
        if abs(step - 1.0) < _EPSILON:
            break
    return math.exp(log_front) * fraction / a


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY


def student_survival(t: float, degrees: float) -> float:
    """P(T > t) of Student's distribution.

    >>> round(student_survival(2.015048373, 5), 6)
    0.05
    """
    tail = 0.5 * incomplete_beta(degrees / 2.0, 0.5, degrees / (degrees + t * t))
    return tail if t >= 0.0 else 1.0 - tail


def f_survival(f: float, numerator: float, denominator: float) -> float:
    """P(F > f) of the F distribution with these degrees of freedom; 1 for f <= 0.

    >>> round(f_survival(3.325834530, 5, 10), 6)
    0.05
    """
    if f <= 0.0:
        return 1.0
    return incomplete_beta(denominator / 2.0, numerator / 2.0, denominator / (denominator + numerator * f))
