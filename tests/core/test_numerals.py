"""Exact numbers as they are written, and the bounds on what is read."""

from __future__ import annotations

import time
from fractions import Fraction

import pytest

from dgpo_cli.core.numerals import numeral_of, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"0.\overline{27}", Fraction(27, 99)),
        ("0.(72)", Fraction(72, 99)),
        (r"2.\overline{7}", Fraction(25, 9)),
        (r"0.1\overline{6}", Fraction(1, 6)),  # 1/10 + 6/90
        ("1 1/4", Fraction(5, 4)),
        (r"-2\frac23", Fraction(-8, 3)),
        ("12 345 678", Fraction(12345678)),
        (r"12,\! 345,\! 678", Fraction(12345678)),
        ("3{,}14", Fraction(314, 100)),
        (r"3\times 10^4", Fraction(30000)),
        ("3.3e-22", Fraction(33, 10**23)),
        ("-2^2", Fraction(-4)),
        ("4!", Fraction(24)),
        (r"\frac 59", Fraction(5, 9)),
    ],
)
def test_numbers_are_exact(text: str, value: Fraction) -> None:
    number = numeral_of(text)
    assert number is not None
    assert number.value == value


@pytest.mark.parametrize(
    "text",
    [
        "10^{10^{10}}",
        "2^{8193}",
        "501!",
        "10^6!",
        "9!!",
        "1/0",
        "0^0",
        "1e9999",
        "(" * 40 + "1" + ")" * 40,
        "1" * 600,
        "2x",
    ],
)
def test_what_is_too_large_or_no_number_is_none_at_once(text: str) -> None:
    started = time.process_time()
    assert numeral_of(text) is None
    assert time.process_time() - started < 0.5


def test_a_base_is_part_of_the_number() -> None:
    seven, five = numeral_of("3041_7"), numeral_of("3041_5")
    assert seven is not None
    assert five is not None
    assert seven.value == 3 * 343 + 0 * 49 + 4 * 7 + 1
    assert not same_number(seven, five)
    assert str(seven) == "3041_{7}"
    assert numeral_of("9_8") is None


@pytest.mark.parametrize(
    ("decimal", "same"), [("0.333333", True), ("0.33333", False), ("0.333334", False), ("0.3333333333", True)]
)
def test_six_digits_stand_for_a_third(decimal: str, same: bool) -> None:
    third, given = numeral_of("1/3"), numeral_of(decimal)
    assert third is not None
    assert given is not None
    assert same_number(third, given) is same
