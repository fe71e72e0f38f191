r"""Whether two mathematical texts mean the same, by math-verify, and the guards that keep sympy from hanging.

math-verify is imported here and nowhere else. `handle` runs in a worker, under a deadline, a memory and a CPU limit.
`guard` runs in front of it, in the run's own process. Three habits of math-verify are taken out of
its hands: units (it drops all from the first \text to the last), equations (it would take the right side of 74=73),
percentages.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from dgpo_cli.core.answers import is_name, undecorated
from dgpo_cli.core.characters import plain_characters
from dgpo_cli.core.numerals import Numeral, near
from dgpo_cli.core.quantities import Quantity, quantity_of, same_quantity
from dgpo_cli.core.units import DEGREE, PERCENT, split_unit
from dgpo_cli.rewards.structure import figure_of, ratio_of, same_shape, time_of, words_of
from dgpo_cli.rewards.values import differs, same_polynomial, same_value, value_of

LONGEST_ANSWER = 1000
DEEPEST_NESTING = 15
MOST_DIGITS = 400
MOST_COMMAS = 100

_LONG_NUMBER = re.compile(rf"[0-9]{{{MOST_DIGITS},}}")
_LARGE_EXPONENT = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*-?\s*[0-9]{5,}")
# A tower of digits, 9^{9^9}; one level more with letters, as in 2^{2^{n}}, is fine.
_TOWER = re.compile(r"(?:(?:\^|\*\*)\s*[{(]*\s*-?\s*[0-9]+\s*){2,}|(?:(?:\^|\*\*)[\s{(]*-?[A-Za-z0-9]+\s*){3,}")
_LARGE_FACTORIAL = re.compile(r"(?:[0-9]{4,}|\^\s*\{?[0-9]+\}?\)?|[0-9]\s*!)\s*\)?\s*!")
_LARGE_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{?\s*[0-9]{5,}")


def guard(text: str) -> str | None:
    """The cause why `text` is not given to sympy, or None."""
    if len(text) > LONGEST_ANSWER:
        return "too_long"
    depth = deepest = 0
    for character in text:
        depth += (character in "{([") - (character in "})]")
        deepest = max(deepest, depth)
    patterns = (_LONG_NUMBER, _LARGE_EXPONENT, _TOWER, _LARGE_FACTORIAL, _LARGE_BINOMIAL)
    if deepest > DEEPEST_NESTING or text.count(",") > MOST_COMMAS or any(one.search(text) for one in patterns):
        return "too_complex"
    return None


def plain_form(text: str) -> str:
    r"""The text without what never changes its meaning: spaces, dollars, \left, \right, the d of \dfrac, a dot."""
    text = re.sub(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! ]|[\s$]", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text).replace(r"^{\circ}", r"^\circ")
    return text.removesuffix(".")


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """In a worker: {gold, answer} -> {correct} or {error}; {gold} alone -> {readable}."""
    gold = _prepared(request["gold"])
    if "answer" not in request:
        return {"readable": _is_gold(gold)}
    answer = _prepared(request["answer"])
    if not _balanced(answer):
        return {"correct": False}
    try:
        if same_shape(gold, answer, _same_one):
            return {"correct": True}
        return {"correct": False} if _is_gold(gold) else {"error": "bad_gold"}
    except MemoryError:
        return {"error": "memory"}
    except RecursionError:
        return {"error": "too_complex"}
    except Exception as error:  # sympy raises whatever it likes on odd input; counted by the caller
        return {"error": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}


def _same_one(gold: str, answer: str) -> bool:
    """Two answers without an outer shape: equal text, words, a time, a figure, a ratio, a number, or a formula."""
    if not gold or not answer:
        return False
    if plain_form(gold) == plain_form(answer):
        return True
    right, given = quantity_of(gold), quantity_of(answer)
    if right is not None and given is not None:
        return same_quantity(right, given)
    if (words := words_of(gold)) is not None:
        return words == words_of(answer, shortest=2)
    for reader in (time_of, figure_of):
        if (known := reader(gold)) is not None or reader(answer) is not None:
            return known is not None and _same_reading(known, reader(answer), answer)
    if terms := ratio_of(gold) or ratio_of(answer):
        return _same_ratio(ratio_of(gold) or [gold], ratio_of(answer) or [answer]) if len(terms) > 1 else False
    return _same_measure(gold, answer, right, given)


def _same_reading(known: tuple[Any, Any], read: tuple[Any, Any] | None, answer: str) -> bool:
    if read is None:  # a figure's points alone: AB for \\overline{AB}
        return isinstance(known[0], str) and plain_form(answer) in (known[1], known[1][::-1])
    return known[0] == read[0] and (known[1] == read[1] or (isinstance(known[0], int) and None in (known[1], read[1])))


def _same_ratio(gold: list[str], answer: list[str]) -> bool:
    """2:3 is 4:6, and 2/3."""
    if len(answer) == 1 and len(gold) == 2:
        return _equal(rf"\frac{{{gold[0]}}}{{{gold[1]}}}", answer[0])
    if len(gold) == 1 and len(answer) == 2:
        return _equal(gold[0], rf"\frac{{{answer[0]}}}{{{answer[1]}}}")
    if len(gold) != len(answer):
        return False
    pairs = list(zip(gold, answer, strict=True))[1:]
    return all(_equal(rf"({one}) \cdot ({answer[0]})", rf"({other}) \cdot ({gold[0]})") for one, other in pairs)


def _same_measure(gold: str, answer: str, right: Quantity | None, given: Quantity | None) -> bool:
    """Formulas with a unit or percent sign behind them; what one of them cannot carry is refused."""
    right_core, right_unit = split_unit(gold)
    given_core, given_unit = split_unit(answer)
    if given_unit == PERCENT and right_unit != PERCENT:
        given_core = rf"\frac{{{given_core}}}{{100}}"
    elif right_unit and given_unit and right_unit.dimensions and given_unit.dimensions:
        if right_unit.dimensions != given_unit.dimensions:
            return False
        scale = given_unit.factor / right_unit.factor
        given_core = (
            given_core if scale == 1 else rf"({given_core}) \cdot \frac{{{scale.numerator}}}{{{scale.denominator}}}"
        )
    elif right_unit is None and given_unit == DEGREE and r"\pi" in gold:
        given_core = rf"({given_core}) \cdot \frac{{\pi}}{{180}}"
    for one, other in ((right, answer), (given, gold)):
        if one is not None and one.number.base is not None and one.number.base != 10:
            return False
        if one is not None and one.number.digits is not None and _rounds(one.number, other):
            return True
    return _equal_by_parts(right_core, given_core)


def _equal_by_parts(gold: str, answer: str) -> bool:
    """Compare; an equation against a gold that is none must hold the gold on each side that is not a bare name.

    The other way round, 0 is not the equation x + y = 0, though 5 may stand for x = 5.
    """
    gold, answer = _repaired(gold), _repaired(answer)
    parts = _EQUALS.split(answer)
    if len(parts) == 1 and "," not in gold and len(sides := _EQUALS.split(gold)) > 1 and not is_name(sides[0]):
        return False
    if len(parts) == 1 or "=" in gold or "," in answer or ";" in answer:
        return _equal(gold, answer)
    values = parts[1:] if is_name(parts[0]) else parts
    return all(_same_one(gold, value.strip()) for value in values)


def _equal(gold: str, answer: str) -> bool:
    from math_verify import verify

    trouble: Exception | None = None
    for right in _parsed(gold):
        for given in _parsed(answer):
            try:
                known = same_value(right, given)
                if known is None:  # algebra is dear: the cheap answers first
                    known = not differs(right, given) and (
                        same_polynomial(right, given) or verify(right, given, timeout_seconds=None, raise_on_error=True)
                    )
                if known:
                    return True
            except Exception as error:
                trouble = trouble or error
    if isinstance(trouble, MemoryError | RecursionError):
        raise trouble
    return False


def _rounds(decimal: Numeral, text: str) -> bool:
    """Whether a decimal is the number that a formula is, to the decimal's own last digit."""
    values = [value_of(one) for one in _parsed(_repaired(split_unit(text)[0]))]
    return any(value is not None and near(decimal, value) for value in values)


def _is_gold(text: str) -> bool:
    """Something other than a literal copy can match it."""
    if quantity_of(text) is not None or any(read(text) is not None for read in (words_of, time_of, figure_of)):
        return True
    return _is_readable(text) or _is_readable(_repaired(split_unit(text)[0]))


def _is_readable(text: str) -> bool:
    """It parses into an expression: a gold that does not could only be matched by a literal copy."""
    return any(not isinstance(one, str) for one in _parsed(text))


@functools.lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    logging.disable(logging.CRITICAL)  # it warns that its own time-outs are off, which is meant
    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all", equations=False
    )
    extraction = LatexExtractionConfig(
        try_extract_without_anchor=False, boxed_match_priority=0, normalization_config=normalization
    )
    return tuple(parse(rf"\boxed{{{text}}}", [extraction], parsing_timeout=None))


_EQUALS = re.compile(r"(?<![<>!:\\])=")
_REPAIRS = (
    (re.compile(r"[$]|\\\$|\\displaystyle(?![A-Za-z])"), ""),
    (re.compile(r"\.\s*$"), ""),
    (
        re.compile(r"(?<![0-9.])([0-9]*\.[0-9]*\s*(?:\\(?:overline|bar)\s*\{?[0-9]+\}?|\([0-9]+\)))"),
        lambda m: _fraction(m[1]),
    ),
    (re.compile(r"(?<![A-Za-z0-9_^.])([0-9]+\s*_\s*(?:[0-9]+|\{\s*[0-9]+\s*\}))"), lambda match: _fraction(match[1])),
    (re.compile(r"(?<=[0-9])\.(?=\s*(?:[/+*)}-]|\\(?:cdot|times|pi)|$))"), ""),  # -1./3
    (re.compile(r"\\(?:mathrm|text|operatorname|mathit)\s*\{\s*([eid])\s*\}"), r"\1 "),
    (re.compile(r"\{\s*\\rm\s+([eid])\s*\}"), r"\1 "),
    (re.compile(r"\\imath(?![A-Za-z])"), "i "),
    (re.compile(r"\bnp\.(?=[a-z])"), r"\\"),  # np.arcsin
    (re.compile(r"(?<![A-Za-z\\])([0-9]+(?:\.[0-9]+)?)[eE]([+-]?[0-9]+)(?![0-9A-Za-z.])"), r"\1 \\times 10^{\2}"),
    (re.compile(r"(?<![A-Za-z\\{])E(?=\s*_)"), r"\\mathcal{E}"),  # E_1 is a name, not Euler's number
    (re.compile(r"_\{\s*\\(odot|max|min|text\s*\{\s*\w+\s*\})\s*\}"), lambda match: f"_{{{_letters(match[1])}}}"),
)


def _letters(text: str) -> str:
    return re.sub(r"^text|[^A-Za-z]", "", text)


def _repaired(text: str) -> str:
    for pattern, replacement in _REPAIRS:
        text = pattern.sub(replacement, text)
    return text.strip()


def _fraction(text: str) -> str:
    """A repeating decimal or a number in another base, within a formula, as a fraction of plain integers."""
    quantity = quantity_of(text)
    value = quantity.number.value if quantity else None
    return text if value is None else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


_DEGREES_OF_TRIGONOMETRY = re.compile(
    r"(\\(?:sin|cos|tan|cot|sec|csc))\s*(?:\(|\{)?\s*([0-9.]+)\s*(?:\^\s*\{?\s*\\circ\s*\}?|°)\s*(?:\)|\})?"
)


def _prepared(text: str) -> str:
    text = plain_characters(text).replace(r"\$", "").replace("$", "")
    return undecorated(_DEGREES_OF_TRIGONOMETRY.sub(r"\1(\\frac{\2\\pi}{180})", text))


def _balanced(text: str) -> bool:
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
    return depth == 0
