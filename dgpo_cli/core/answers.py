r"""Reading an answer out of text: boxes, and what counts as the same integer.

Golds are reduced with these functions when they are loaded and answers are read with them when they are graded, so that
both sides agree on `073`, `73.0`, `1{,}234` or `73^\circ`. No symbolic algebra here: `dgpo_cli.rewards` has it.

Every scan is one pass: completions are long, and an adversarial one must not cost more than an honest one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST_INTEGER_TEXT = 1000  # an integer with its decoration; longer text is none, and is never searched


@dataclass(frozen=True)
class Box:
    r"""A `\boxed{...}` (or \fbox, \framebox, `\boxed 73`): text[start:end], and what is inside."""

    start: int
    end: int
    content: str


_BOX_TOKENS = re.compile(
    r"(?P<box>\\+(?:boxed|fbox|framebox)(?![A-Za-z])[ \t]*)(?:(?P<open>\{)|(?P<bare>-?[^\s{}$\\,;]+)?)"
    r"|\\.|(?P<brace>[{}])",
    re.DOTALL,
)


def find_boxes(text: str) -> list[Box]:
    """The outermost balanced boxes in the order of their starts; a box cut off by the end of the text is none."""
    boxes: list[Box] = []
    opened: list[tuple[int, int] | None] = []  # of each open brace: (start of its box, start of the content), or None
    for token in _BOX_TOKENS.finditer(text):
        if token["open"]:
            opened.append((token.start(), token.end()))
        elif token["bare"]:
            boxes.append(Box(token.start(), token.end(), token["bare"]))
        elif token["brace"] == "{":
            opened.append(None)
        elif token["brace"] == "}" and opened:
            box = opened.pop()
            if box is not None:
                start, content = box
                while boxes and boxes[-1].start > start:
                    boxes.pop()  # boxes inside this one
                boxes.append(Box(start, token.end(), text[content : token.start()].strip()))
    return boxes


# What may stand around a number without changing it: spaces, dollars, math delimiters, emphasis, end-of-turn tokens.
_AROUND = r"(?:\s|\\?\$|\\[()\[\],;:! ]|\\q?quad|~|\*|`|<\|[^<>|]*\|>|</s>|<end_of_turn>|<eos>|\\displaystyle)"
_LEADING = re.compile(rf"{_AROUND}+")
_TRAILING = re.compile(rf"{_AROUND}+\Z")
_WRAPPER = re.compile(r"(?:\\(?:text|textbf|textit|mathbf|mathrm|mbox|bm|bf)\s*)?\{([^{}]*)\}")
_DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|°|\\degrees?)\s*\Z")
_TEXT_UNIT = re.compile(
    r"(?:\s|\\[,;:! ]|~)*\\(?:text|textrm|mathrm|mbox|operatorname)\s*\{([^{}]*)\}(?:\s*\^\s*\{?\s*[0-9]\s*\}?)?\s*\Z"
)
_NO_UNIT = re.compile(
    r"[0-9%=<>+]|\b(?:or|and|not|to|between|mod|hundreds?|thousands?|millions?|billions?|trillions?|dozens?|percent"
    r"|times|pi|factorial|squared|cubed|half|halves|thirds?|quarters?)\b",
    re.IGNORECASE,
)
_PLAIN_UNIT = re.compile(
    r"\s+(?:square |cubic )?(?:(?:degree|dollar|cent|point|unit|integer|student|meter|mile|gram|pound|second|minute"
    r"|hour|day|week|month|year)s?|ways?|people|inch|inches|foot|feet|mph|km|cm|mm|m|kg)\Z",
    re.IGNORECASE,
)
_SEPARATOR = r"(?:,|\{,\}|,?\\[,!]|\{,\\!\}|\u2009|\u202f)"
_NUMBER = re.compile(rf"([+-]?)\s*([0-9]+|[0-9]{{1,3}}(?:{_SEPARATOR}[0-9]{{3}})+)(?:\.0*)?")
_NAME_BEFORE_EQUALS = re.compile(r"_\s*\{[^{}]*\}|_\s*\w|\([^()]*\)")


def integer_of(text: str) -> str | None:
    r"""The integer that `text` writes, in plain digits without leading zeros, or None.

    `$073$`, `73.`, `73.0`, `**73**`, `73^\circ`, `1{,}234`, `1,234`, `m+n=73`, `73\text{ cm}`, `\mathbf{73}` are some.
    `73\%`, `73 or 74`, `73, 74`, `74=73`, `2x=73`, `73\text{ million}` and `7 3` are none: a list, a percentage or an
    equation between numbers says something else.
    """
    if len(text) > LONGEST_INTEGER_TEXT:
        return None
    text = _undecorated(text.replace("\u2212", "-"))
    left, equals, right = text.partition("=")
    if equals:
        name = _NAME_BEFORE_EQUALS.sub("", left)
        if "=" in right or re.search(r"[0-9]", name) or not re.search(r"[A-Za-z]", name):
            return None
        text = _undecorated(right)
    text = _undecorated(_without_unit(text))
    while wrapped := _WRAPPER.fullmatch(text):
        text = _undecorated(wrapped[1])
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"[^0-9]", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def _undecorated(text: str) -> str:
    for _ in range(2):  # decoration, one full stop, decoration: `$73$.` and `$73.$`
        leading = _LEADING.match(text)
        text = text[leading.end() :] if leading else text
        text = _TRAILING.sub("", text)
        if text.endswith(".") and not text.endswith(".."):
            text = text[:-1]
    return text


def _without_unit(text: str) -> str:
    text = _DEGREES.sub("", text)
    unit = _TEXT_UNIT.search(text)
    if unit and unit.start() and not _NO_UNIT.search(unit[1]):
        return text[: unit.start()]
    return _PLAIN_UNIT.sub("", text)
