r"""Whether two mathematical texts mean the same, by math-verify, and the guards that keep sympy from hanging.

math-verify is imported here and nowhere else. `handle` runs in a worker, where a deadline, a memory and a CPU limit
stand behind it; `guard` runs in front of it, in the run's own process. Three habits of math-verify are taken out of
its hands: units (it drops all from the first \text to the last), equations (it would take the right side of 74=73),
percentages.
"""

from __future__ import annotations

import functools
import logging
import re
from typing import Any

from dgpo_cli.core.answers import is_name, without_unit

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
    gold, percent = _without_percent(_repaired(request["gold"]))
    if "answer" not in request:
        return {"readable": _is_readable(gold)}
    answer, answer_percent = _without_percent(_repaired(request["answer"]))
    if answer_percent and not percent:
        answer = rf"\frac{{{answer}}}{{100}}"
    if not _balanced(answer):
        return {"correct": False}
    try:
        if _equal_by_parts(gold, answer):
            return {"correct": True}
        return {"correct": False} if _is_readable(gold) else {"error": "bad_gold"}
    except MemoryError:
        return {"error": "memory"}
    except RecursionError:
        return {"error": "too_complex"}
    except Exception as error:  # sympy raises whatever it likes on odd input; counted by the caller
        return {"error": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}


def _equal_by_parts(gold: str, answer: str) -> bool:
    """Compare; an equation against a gold that is none must hold the gold on each side that is not a bare name.

    The other way round, 0 is not the equation x + y = 0, though 5 may stand for x = 5.
    """
    parts = _EQUALS.split(answer)
    if len(parts) == 1 and "," not in gold and len(sides := _EQUALS.split(gold)) > 1 and not is_name(sides[0]):
        return False
    if len(parts) == 1 or "=" in gold or "," in answer or ";" in answer:
        return _equal(gold, answer)
    values = parts[1:] if is_name(parts[0]) else parts
    return all(_equal(gold, value) for value in values)


def _equal(gold: str, answer: str) -> bool:
    from math_verify import verify

    trouble: Exception | None = None
    for right in _parsed(gold):
        for given in _parsed(answer):
            try:
                if verify(right, given, timeout_seconds=None, raise_on_error=True):
                    return True
            except Exception as error:
                trouble = trouble or error
    if isinstance(trouble, MemoryError | RecursionError):
        raise trouble
    return False


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
    (re.compile(r"(?<=[0-9])\.(?![0-9])"), ""),  # -1./3
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
    return without_unit(text.strip())


def _without_percent(text: str) -> tuple[str, bool]:
    match = re.search(r"\s*\\?%\s*\Z", text)
    return (text[: match.start()], True) if match else (text, False)


def _balanced(text: str) -> bool:
    depth = 0
    for token in re.findall(r"\\.|[{}]", text):
        depth += (token == "{") - (token == "}")
        if depth < 0:
            return False
    return depth == 0
