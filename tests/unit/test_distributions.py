"""The tails of distributions against scipy."""

from __future__ import annotations

import doctest

import pytest
from scipy import stats

from evenkeel.libs import distributions
from evenkeel.libs.distributions import chi_square_survival, f_survival, incomplete_beta, student_survival


def test_docstring_examples() -> None:
    found = doctest.testmod(distributions)
    assert found.attempted >= 4
    assert found.failed == 0


@pytest.mark.parametrize("degrees", [1, 2, 6, 13, 500])
@pytest.mark.parametrize("t", [-3.0, -0.2, 0.0, 0.7, 2.5, 9.0])
def test_student_survival_is_scipys(t: float, degrees: int) -> None:
    assert student_survival(t, degrees) == pytest.approx(stats.t.sf(t, degrees), rel=1e-10)


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 6), (9, 54), (20, 120), (3, 3)])
@pytest.mark.parametrize("f", [0.01, 0.5, 1.0, 3.3, 40.0])
def test_f_survival_is_scipys(f: float, numerator: int, denominator: int) -> None:
    assert f_survival(f, numerator, denominator) == pytest.approx(stats.f.sf(f, numerator, denominator), rel=1e-9)


def test_f_survival_of_nothing_is_one() -> None:
    assert f_survival(0.0, 3, 10) == 1.0


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 10, 21, 22])
def test_chi_square_survival_is_scipys(degrees: int) -> None:
    for x in (0.001, 0.5, 3.0, 9.5, 40.0, 300.0):
        assert chi_square_survival(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9, abs=1e-300)
    assert chi_square_survival(5000.0, degrees) == 0.0
    assert chi_square_survival(0.0, degrees) == 1.0
    assert chi_square_survival(3.0, 0) == 1.0


@pytest.mark.parametrize(("a", "b", "x"), [(0.0, 1.0, 0.5), (1.0, -1.0, 0.5), (1.0, 1.0, 1.5)])
def test_a_beta_function_of_nonsense_is_refused(a: float, b: float, x: float) -> None:
    with pytest.raises(ValueError, match="needs a, b > 0"):
        incomplete_beta(a, b, x)
