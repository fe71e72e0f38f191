"""Whether two parsed formulas have the same value, relatively and at every size; sympy is imported where it is used.

math-verify rounds to six decimals, which calls all tiny numbers equal. Here two formulas without variables are
compared to thirty digits of their own size, and formulas with variables are tried at a few points besides.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

WORKING_DIGITS = 60
EXACT = 1e-30  # relative: formulas without decimals in them
WITH_DECIMALS = 1e-12  # relative: a decimal inside a formula was read with fifteen digits
AT_POINTS = 1e-9
MOST_EXPANDED = 12  # the largest exponent in a polynomial that is multiplied out


def same_value(right: Any, given: Any) -> bool | None:
    """For two numbers without variables; None for anything else."""
    from sympy import Float

    values = [_number(right), _number(given)]
    if values[0] is None or values[1] is None:
        return None
    inexact = right.has(Float) or given.has(Float)
    return _near(values[0], values[1], WITH_DECIMALS if inexact else EXACT)


def value_of(one: Any) -> Fraction | None:
    """A real number without variables, to sixty digits."""
    number = _number(one)
    if number is None or not number.is_real:
        return None
    from sympy import Rational

    rational = Rational(number)
    return Fraction(int(rational.p), int(rational.q))


def differs(right: Any, given: Any) -> bool:
    """Whether two formulas with the same variables have clearly different values at some point."""
    from sympy import Expr, Rational

    if not isinstance(right, Expr) or not isinstance(given, Expr) or right.free_symbols != given.free_symbols:
        return False
    symbols = sorted(right.free_symbols, key=str)
    for first in (3, 7):
        point = {symbol: Rational(first + 4 * index, 5) for index, symbol in enumerate(symbols)}
        values = [_number(one.subs(point)) for one in (right, given)]
        if values[0] is None or values[1] is None:
            return False
        if not _near(values[0], values[1], AT_POINTS):
            return True
    return False


def same_polynomial(right: Any, given: Any) -> bool:
    """Whether two polynomials of small degree without decimals are one."""
    from sympy import Expr, Float, expand

    if not isinstance(right, Expr) or not isinstance(given, Expr) or right.has(Float) or given.has(Float):
        return False
    small = all(
        one.is_polynomial(*one.free_symbols) and all(power.exp <= MOST_EXPANDED for power in one.atoms(_power()))
        for one in (right, given)
    )
    return small and expand(right - given) == 0


def _power() -> Any:
    from sympy import Pow

    return Pow


def _number(one: Any) -> Any:
    from sympy import Expr, MatrixBase

    if not isinstance(one, Expr) or isinstance(one, MatrixBase) or one.free_symbols:
        return None
    value = one.doit().evalf(WORKING_DIGITS)
    return value if value.is_number and value.is_finite and not value.has(*_unevaluated()) else None


def _unevaluated() -> tuple[Any, ...]:
    from sympy import Derivative, Integral, Product, Sum

    return Derivative, Integral, Product, Sum


def _near(one: Any, other: Any, tolerance: float) -> bool:
    scale = max(abs(one), abs(other))
    return bool(scale == 0 or abs(one - other) <= tolerance * scale)
