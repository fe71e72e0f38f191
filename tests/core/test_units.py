"""Units come off, with what they mean."""

from __future__ import annotations

from fractions import Fraction

import pytest

from dgpo_cli.core.units import PERCENT, Unit, split_unit


@pytest.mark.parametrize(
    ("text", "core", "unit"),
    [
        ("48 km/h", "48", Unit(Fraction(1000, 3600), (("length", 1), ("time", -1)))),
        (r"15\mbox{ cm}^2", "15", Unit(Fraction(1, 10000), (("length", 2),))),
        ("30 miles per hour", "30", Unit(Fraction(1609344, 3600000), (("length", 1), ("time", -1)))),
        ("48 square units", "48", Unit()),
        ("£48", "48", Unit(Fraction(1), (("sterling", 1),))),
        ("7 cents", "7", Unit(Fraction(1, 100), (("dollar", 1),))),
        ("5 apples", "5", Unit(Fraction(1), (("apple", 1),))),
        (r"35\%", "35", PERCENT),
        ("3 meters cubed", "3", Unit(Fraction(1), (("length", 3),))),
    ],
)
def test_units_are_read(text: str, core: str, unit: Unit) -> None:
    assert split_unit(text) == (core, unit)


@pytest.mark.parametrize(
    "text", ["12x", "12m", "48 or 49", "48 squared", "48 dozen", "48i", r"48\pi", "p - q", "48 xy"]
)
def test_what_is_no_unit_stays(text: str) -> None:
    assert split_unit(text) == (text, None)
