r"""Exact numbers as they are written: 1{,}234, 2\frac{2}{3}, 0.\overline{27}, 3\times 10^4, 2^{12}, 4!, 3041_7.

A small arithmetic in fractions with bounds on everything that grows; text that is no number, or too large a one, is
None. A decimal is exact as typed. Nothing is evaluated but what the grammar below names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from fractions import Fraction

LONGEST_NUMERAL = 500
DEEPEST = 12
MOST_BITS = 8192
LARGEST_FACTORIAL = 500
LEAST_DIGITS = 6  # of a decimal that may stand for a number without a terminating one
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Numeral:
    """A number. `digits`, `unit_in_last_place`: of a plain decimal; `base`: of a number with a base subscript."""

    value: Fraction
    digits: int | None = None
    unit_in_last_place: Fraction = Fraction(0)
    base: int | None = None

    @property
    def terminates(self) -> bool:
        """Whether some decimal is this number."""
        denominator = self.value.denominator
        for prime in (2, 5):
            while denominator % prime == 0:
                denominator //= prime
        return denominator == 1

    def __str__(self) -> str:
        return str(self.value) if self.base in (None, 10) else f"{in_base(self.value, self.base or 10)}_{{{self.base}}}"


def in_base(value: Fraction, base: int) -> str:
    """The digits of an integer in a base of 2 to 36."""
    rest, digits = abs(int(value)), ""
    while rest or not digits:
        rest, digit = divmod(rest, base)
        digits = _DIGITS[digit].upper() + digits
    return f"-{digits}" if value < 0 else digits


def numeral_of(text: str) -> Numeral | None:
    """The number that `text` writes, or None."""
    if not text or len(text) > LONGEST_NUMERAL or not any(character.isdigit() for character in text):
        return None
    text = _tidied(text)
    if based := _BASED.fullmatch(text):
        return _in_its_base(based)
    try:
        value = _Reader(text).whole()
    except (_NoNumber, ZeroDivisionError):
        return None
    decimal = _DECIMAL.fullmatch(text)
    if decimal is None:
        return Numeral(value)
    mantissa = decimal["mantissa"].replace(",", "")
    exponent = int(re.sub(r"[^0-9-]", "", decimal["e"] or decimal["ten"] or "0"))
    last = Fraction(10) ** (exponent - len(mantissa.partition(".")[2]))
    return Numeral(value, len(mantissa.replace(".", "").lstrip("0")), last)


def same_number(one: Numeral, other: Numeral) -> bool:
    """Equal, or the one a decimal of six digits or more that rounds (or cuts off) the other, which has no decimal."""
    if (one.base or 10) != (other.base or 10):
        return False
    return one.value == other.value or rounds(one, other) or rounds(other, one)


def rounds(decimal: Numeral, other: Numeral) -> bool:
    """Whether `decimal` is `other` at its own precision, `other` being a number that no decimal writes."""
    return not other.terminates and near(decimal, other.value)


def near(decimal: Numeral, value: Fraction) -> bool:
    """Whether a decimal of six digits or more is `value` rounded, or cut off, at the decimal's last digit."""
    if decimal.digits is None or decimal.digits < LEAST_DIGITS:
        return False
    difference, last = abs(value - decimal.value), decimal.unit_in_last_place
    return 2 * difference <= last or (difference < last and abs(value) > abs(decimal.value))


_GROUPED = re.compile(r"(?<![0-9.])[0-9]{1,3}(?:(?:,\\!\s*|\{,\}|\{,\\!\}|,?\\[,!]\s*|,|\s)[0-9]{3})+(?![0-9/])")
_SPACING = re.compile(r"\\(?:left|right|displaystyle|limits)(?![A-Za-z])|\\[,;:! ]|~|\\q?quad(?![A-Za-z])")
_BASED = re.compile(
    r"(?P<sign>-?)\(?(?P<digits>[0-9A-Fa-f](?:[ ,]?[0-9A-Fa-f])*)\)?\s*"
    r"(?:_\s*\{?\s*(?:\\(?:text|mathrm)\s*\{)?\s*\(?(?P<sub>(?:base\s*)?[0-9]+|[a-z]+)\)?\s*\}{0,2}|"
    r"\s(?:\\text\s*\{)?\s*(?:in )?base[ -]*(?P<word>[0-9]+|[a-z]+)\s*\}?)"
)
_BASE_NAMES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
_BASE_NAMES |= {"eleven": 11, "twelve": 12, "sixteen": 16}
_DECIMAL = re.compile(
    r"[+-]?\s*(?P<mantissa>(?:[0-9]+(?:,[0-9]{3})*)?\.[0-9]+)"
    r"(?:[eE](?P<e>[+-]?[0-9]+)|\s*(?:\\times|\\cdot|\*|x)\s*10\s*(?:\^|\*\*)\s*(?P<ten>\{?\(?\s*[+-]?[0-9]+\s*\)?\}?))?"
)


def _tidied(text: str) -> str:
    grouped = _GROUPED.sub(_joined, text)
    grouped = re.sub(r"(?<=[0-9])\{,\}(?=[0-9])", ".", grouped)  # the decimal comma of LaTeX
    grouped = re.sub(r"(?<![0-9.])([0-9]{1,3}(?:\.[0-9]{3}){2,})(?![0-9.])", lambda m: m[0].replace(".", ""), grouped)
    return " ".join(_SPACING.sub(" ", grouped).split())


def _joined(match: re.Match[str]) -> str:
    return re.sub("[^0-9]", "", match[0])


def _in_its_base(match: re.Match[str]) -> Numeral | None:
    name = (match["sub"] or match["word"]).removeprefix("base").strip()
    base = _BASE_NAMES.get(name, int(name) if name.isdigit() and len(name) < 3 else 0)
    digits = re.sub("[ ,]", "", match["digits"])
    if not 2 <= base <= 36 or any(_DIGITS.index(digit.lower()) >= base for digit in digits):
        return None
    return Numeral(Fraction(int(match["sign"] + digits, base)), base=base)


class _NoNumber(Exception):
    """The text is no number, or too large a one."""


_TOKENS = {
    "add": re.compile(r"[+-]"),
    "multiply": re.compile(
        r"\\times(?![A-Za-z])|\\cdot(?![A-Za-z])|\\div(?![A-Za-z])|\*(?!\*)|/|x(?=\s*10\s*(?:\^|\*\*))"
    ),
    "power": re.compile(r"\^|\*\*"),
    "open": re.compile(r"[({]"),
    "close": re.compile(r"[)}]"),
    "fraction": re.compile(r"\\[dtc]?frac(?![A-Za-z])"),
    "root": re.compile(r"\\sqrt(?![A-Za-z])"),
    "binomial": re.compile(r"\\[dt]?binom(?![A-Za-z])"),
    "digit": re.compile(r"[0-9]"),
    "number": re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?(?!,)"),
    "repeating": re.compile(
        r"(?P<whole>[0-9]*)\.(?P<fixed>[0-9]*)\s*"
        r"(?:\{?\s*\\(?:overline|bar)\s*(?:\{\s*(?P<over>[0-9 ]+)\}|(?P<one>[0-9]))\s*\}?"
        r"|\((?P<round>[0-9]+)\)|\\dot\s*\{?(?P<first>[0-9])\}?(?:(?P<middle>[0-9]*)\\dot\s*\{?(?P<last>[0-9])\}?)?"
        r"|(?:\\[lc]?dots|\.\.\.))(?:\s*(?:\\[lc]?dots|\.\.\.))?"
    ),
    "mixed": re.compile(r"(?P<whole>[0-9]+)\s+(?P<top>[0-9]+)\s*/\s*(?P<bottom>[0-9]+)(?![0-9.])"),
    "bang": re.compile(r"!"),
}


class _Reader:
    """One pass from left to right, by the usual precedence."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def whole(self) -> Fraction:
        value = self.sum()
        self.skip()
        if self.at != len(self.text):
            raise _NoNumber
        return value

    def skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at] == " ":
            self.at += 1

    def take(self, kind: str) -> re.Match[str] | None:
        self.skip()
        match = _TOKENS[kind].match(self.text, self.at)
        if match:
            self.at = match.end()
        return match

    def peek(self, kind: str) -> bool:
        self.skip()
        return _TOKENS[kind].match(self.text, self.at) is not None

    def sum(self) -> Fraction:
        value = self.product()
        while sign := self.take("add"):
            term = self.product()
            value = _bounded(value + term if sign[0] == "+" else value - term)
        return value

    def product(self) -> Fraction:
        value = self.signed()
        while True:
            if operator := self.take("multiply"):
                factor = self.signed()
                value = _bounded(value / factor if operator[0] in ("/", r"\div") else value * factor)
            elif self.peek("open") or self.peek("root"):
                value = _bounded(value * self.power())
            else:
                return value

    def signed(self) -> Fraction:
        sign = self.take("add")
        if sign and self.peek("add"):
            raise _NoNumber
        value = self.power()
        return -value if sign and sign[0] == "-" else value

    def power(self) -> Fraction:
        base = self.postfix()
        if not self.take("power"):
            return base
        if self.peek("open"):
            exponent = self.atom()
        else:
            sign = self.take("add")
            exponent = self.number()
            exponent = -exponent if sign and sign[0] == "-" else exponent
        if self.peek("bang") or self.peek("power"):
            raise _NoNumber  # 10^6! is read in two ways
        return _raised(base, exponent)

    def postfix(self) -> Fraction:
        value = self.atom()
        if self.take("bang"):
            if self.peek("bang") or value.denominator != 1 or not 0 <= value <= LARGEST_FACTORIAL:
                raise _NoNumber
            return _bounded(Fraction(math.factorial(int(value))))
        return value

    def atom(self) -> Fraction:
        if self.take("fraction"):
            return self.fraction()
        if self.take("root"):
            return _root(self.argument())
        if self.take("binomial"):
            return _binomial(self.argument(), self.argument())
        if opened := self.take("open"):
            self.depth += 1
            if self.depth > DEEPEST:
                raise _NoNumber
            value = self.sum()
            closed = self.take("close")
            if closed is None or closed[0] != {"(": ")", "{": "}"}[opened[0]]:
                raise _NoNumber
            self.depth -= 1
            return value
        if mixed := self.take("mixed"):
            return int(mixed["whole"]) + Fraction(int(mixed["top"]), int(mixed["bottom"]))
        if repeating := self.take("repeating"):
            return _repeating(repeating)
        value = self.number()
        if value.denominator == 1 and self.take("fraction"):  # a mixed number
            return value + self.fraction()
        return value

    def fraction(self) -> Fraction:
        return _bounded(self.argument() / self.argument())

    def argument(self) -> Fraction:
        """Of \\frac and its like: a group, or a single digit."""
        if self.peek("open"):
            return self.atom()
        digit = self.take("digit")
        if digit is None:
            raise _NoNumber
        return Fraction(int(digit[0]))

    def number(self) -> Fraction:
        match = self.take("number")
        if match is None:
            raise _NoNumber
        return _bounded(Fraction(match[0].replace(",", "").removesuffix(".")))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MOST_BITS:
        raise _NoNumber
    return value


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or base == exponent == 0:
        raise _NoNumber
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * max(bits, 1) > MOST_BITS and abs(base) not in (0, 1):
        raise _NoNumber
    if abs(base) in (0, 1):
        exponent = exponent if exponent <= 0 else 2 - exponent % 2
        exponent = exponent if exponent >= -2 else -2 + exponent % 2
    return _bounded(base ** int(exponent))


def _root(value: Fraction) -> Fraction:
    if value < 0:
        raise _NoNumber
    root = Fraction(math.isqrt(value.numerator), math.isqrt(value.denominator))
    if root * root != value:
        raise _NoNumber
    return root


def _binomial(top: Fraction, bottom: Fraction) -> Fraction:
    if top.denominator != 1 or bottom.denominator != 1 or not 0 <= bottom <= top <= LARGEST_FACTORIAL:
        raise _NoNumber
    return _bounded(Fraction(math.comb(int(top), int(bottom))))


def _repeating(match: re.Match[str]) -> Fraction:
    fixed = match["fixed"]
    block = match["over"] or match["one"] or match["round"]
    if match["first"]:
        block = match["first"] + (match["middle"] or "") + (match["last"] or "")
    if block is None:  # 0.333...: what has come twice, a single digit three times
        seen = re.fullmatch(r"([0-9]*?)(?:([0-9])\2{2,}|([0-9]{2,}?)\3+)", fixed)
        if seen is None:
            raise _NoNumber
        fixed, block = seen[1], seen[2] or seen[3]
    block = block.replace(" ", "")
    scale = 10 ** len(fixed)
    value = Fraction(int(match["whole"] or 0)) + Fraction(int(fixed or 0), scale)
    return value + Fraction(int(block), scale * (10 ** len(block) - 1))
