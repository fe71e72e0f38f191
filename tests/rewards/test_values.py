"""Values of formulas, relative to their own size."""

from __future__ import annotations

import pytest

sympy = pytest.importorskip("sympy")

from dgpo_cli.rewards.values import differs, same_value  # noqa: E402


def test_tiny_numbers_are_told_apart() -> None:
    tiny = sympy.pi / 10**20
    assert same_value(tiny, sympy.pi * sympy.Rational(1, 10**20)) is True
    assert same_value(tiny, sympy.pi / 10**21) is False


def test_formulas_with_variables_differ_at_some_point() -> None:
    x = sympy.Symbol("x")
    assert differs(x / 10**22, 2 * x / 10**22)
    assert not differs((x + 1) ** 2, x**2 + 2 * x + 1)
    assert same_value(x, x) is None
