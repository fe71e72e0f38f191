r"""A number with its unit, read from an answer or a gold, and whether two of them are the same.

The rules: numbers are compared exactly (see `numerals`). A gold without a unit takes any unit; a gold with one takes
the bare number, the same unit, or one that converts to it, and no other. 35\% is 0.35; against a gold of 35\% a bare
35 is right too. A gold in a base is its digits in that base, and bare digits are read in the gold's base.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

from dgpo_cli.core.answers import LONGEST_INTEGER_TEXT, is_name, undecorated
from dgpo_cli.core.characters import plain_characters
from dgpo_cli.core.numerals import Numeral, in_base, numeral_of, same_number
from dgpo_cli.core.units import PERCENT, Unit, split_unit


@dataclass(frozen=True)
class Quantity:
    """number: as written, 35 for 35\\%."""

    number: Numeral
    unit: Unit | None

    @property
    def percent(self) -> bool:
        return self.unit == PERCENT

    def __str__(self) -> str:
        """The same for every way to write the number; a percentage is its value."""
        return str(Numeral(self.number.value / 100)) if self.percent else str(self.number)


_WRAPPER = re.compile(r"(?:\\(?:text|textbf|textit|mathbf|mathrm|mathit|mbox|bm|bf|boldsymbol)\s*)?\{([^{}]*)\}")
_POWERS = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_SCALE = re.compile(rf"(?<=[0-9\s])({'|'.join(_POWERS)})(?![A-Za-z])", re.IGNORECASE)
_SCALE_IN_TEXT = re.compile(rf"\\text\s*\{{\s*({'|'.join(_POWERS)})(\s[^{{}}]*)?\}}", re.IGNORECASE)


@functools.lru_cache(maxsize=16384)
def quantity_of(text: str, *, sums_of_names: bool = False) -> Quantity | None:
    r"""The number and unit that `text` writes after at most one name (x = 5, \angle A = 30^\circ), or None."""
    if len(text) > LONGEST_INTEGER_TEXT:
        return None
    text = " ".join(plain_characters(text).split())
    currency = text.count("$") == 1 and re.match(r"\s*[+-]?\s*\$\s*[0-9.]", text) is not None
    stripped = undecorated(text, currency=True)
    stripped = f"${stripped.removeprefix('$')}" if currency and not stripped.startswith("-") else stripped
    stripped = _SCALE.sub(
        lambda match: rf" \cdot 10^{{{_POWERS[match[1].lower()]}}} ", _SCALE_IN_TEXT.sub(r" \1\2 ", stripped)
    )
    left, equals, right = stripped.partition("=")
    if equals:
        if not is_name(left, sums=sums_of_names):
            return None
        stripped = undecorated(right, currency=True)
    core, unit = split_unit(stripped)
    core = undecorated(core)
    while wrapped := _WRAPPER.fullmatch(core):
        core = undecorated(wrapped[1])
    if "$" in core or "&" in core:
        return None
    number = numeral_of(core)
    return None if number is None else Quantity(number, unit)


def same_quantity(gold: Quantity, answer: Quantity) -> bool:
    """See the module."""
    if gold.number.base or answer.number.base:
        return _same_in_base(gold.number, answer.number)
    if gold.percent or answer.percent:
        return _same_percentage(gold, answer)
    if gold.unit is None or not gold.unit.dimensions or answer.unit is None or not answer.unit.dimensions:
        return same_number(gold.number, answer.number)
    if gold.unit.dimensions != answer.unit.dimensions:
        return False
    return same_number(gold.number, _scaled(answer.number, answer.unit.factor / gold.unit.factor))


def _same_in_base(gold: Numeral, answer: Numeral) -> bool:
    base = gold.base or 10
    if answer.base is not None:
        return answer.base == base and answer.value == gold.value
    return answer.value.denominator == 1 and in_base(gold.value, base) == str(answer.value)


def _same_percentage(gold: Quantity, answer: Quantity) -> bool:
    if gold.percent and answer.percent:
        return same_number(gold.number, answer.number)
    if gold.percent:
        bare = answer.unit is None and same_number(gold.number, answer.number)
        return bare or same_number(_scaled(gold.number, Fraction(1, 100)), answer.number)
    return same_number(gold.number, _scaled(answer.number, Fraction(1, 100)))


def _scaled(number: Numeral, factor: Fraction) -> Numeral:
    if factor == 1:
        return number
    return Numeral(number.value * factor, number.digits, number.unit_in_last_place * factor, number.base)
