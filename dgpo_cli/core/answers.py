r"""Reading an answer out of text: boxes, and what counts as the same integer.

Golds are reduced with these functions when they are loaded and answers are read with them when they are graded, so that
both sides agree on `073`, `73.0`, `1{,}234` or `73^\circ`. No symbolic algebra here: `dgpo_cli.rewards` has it.

Every scan is one pass: completions are long, and an adversarial one must not cost more than an honest one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dgpo_cli.core.characters import plain_characters

LONGEST_INTEGER_TEXT = 500  # an integer with its decoration; longer text is none, and is never searched


@dataclass(frozen=True)
class Box:
    r"""A `\boxed{...}` (or \fbox, \framebox, `\boxed 73`): text[start:end], and what is inside."""

    start: int
    end: int
    content: str


_BOX_COMMAND = re.compile(r"\\(?:boxed|fbox|framebox)")
_BOX_TOKENS = re.compile(
    r"(?P<box>\\{1,2}(?:boxed|fbox|framebox)(?![A-Za-z])[ \t]*)(?:(?P<open>\{)|(?P<bare>-?[^\s{}$\\,;]+)?)"
    r"|\\.|(?P<brace>[{}])",
    re.DOTALL,
)


def find_boxes(text: str) -> list[Box]:
    """The outermost balanced boxes in the order of their starts; a box cut off by the end of the text is none."""
    first = _BOX_COMMAND.search(text)
    if first is None:
        return []
    boxes: list[Box] = []
    opened: list[tuple[int, int] | None] = []  # of each open brace: (start of its box, start of the content), or None
    for token in _BOX_TOKENS.finditer(text, max(0, first.start() - 1)):
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
_END_OF_TEXT = (
    r"<[|｜][^<>|｜]{1,40}[|｜]>|</?s>|<(?:end_of_turn|end_of_text|endoftext|eos|pad|bos|turn)\|?>|\[(?:EOS|PAD)\]"
)
_BARE = rf"\s|\\[()\[\],;:! ]|\\q?quad(?![A-Za-z])|~|\*|`|{_END_OF_TEXT}|\\displaystyle(?![A-Za-z])"
_AROUND = rf"(?:{_BARE}|\\?\$)"
_LEADING = re.compile(rf"{_AROUND}+")
_TRAILING = re.compile(rf"{_AROUND}+\Z")
_LEADING_BUT_CURRENCY = re.compile(rf"(?:{_BARE}|(?<!\\)\$)+")
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
_SUBSCRIPT_OR_ARGUMENT = re.compile(r"_ ?\{[^{}]*\}|_ ?\w|\([^()]*\)")
_ONE_NAME = re.compile(r"\|?(?:\\(?:angle|text|mathrm) ?)?\{?[A-Za-z' ]+\}?\|?")
_SUM_OF_NAMES = re.compile(r"(?:[A-Za-z' |+\-{}]|\\(?:angle|text|mathrm|cdot|times))*[A-Za-z][|} ]*")


def reduced_gold(text: str) -> str:
    r"""The answer in a gold: after `####`, or in the last box of a solution; an integer in plain digits.

    A unit that carries meaning stays (`15\text{ cm}`, `10\text{ minutes}`); degrees go, as the copies of AIME differ in
    them.
    """
    _, mark, after = text.rpartition("####")
    if mark and len(after.strip().splitlines()) <= 1:
        text = after
    elif boxes := find_boxes(text):
        text = unboxed(boxes[-1].content)
    text = text.strip()
    return text if _has_unit(text) else integer_of(text, as_gold=True) or text


def _has_unit(text: str) -> bool:
    if len(text) > LONGEST_INTEGER_TEXT:
        return False
    bare = _DEGREES.sub("", undecorated(text))
    return without_unit(bare) != bare or _CURRENCY.match(text.strip()) is not None


def unboxed(content: str) -> str:
    """The inside of boxes that hold nothing but a box."""
    for _ in range(MOST_NESTED_BOXES):
        boxes = find_boxes(content) if content.lstrip().startswith("\\") else []
        inner = content.strip()
        if len(boxes) != 1 or (boxes[0].start, boxes[0].end) != (0, len(inner)):
            break
        content = boxes[0].content
    return content


MOST_NESTED_BOXES = 5
_CURRENCY = re.compile(r"\\\$|[£€¥₹]|\\(?:pounds|euro|yen)(?![A-Za-z])")


def is_name(left: str, *, sums: bool = False) -> bool:
    """Whether the left side of an equation only names its right side: x, f(x), S_{n}, the area; with `sums` m+n."""
    if len(left) > LONGEST_INTEGER_TEXT:
        return False
    names = _SUM_OF_NAMES if sums else _ONE_NAME
    return names.fullmatch(_SUBSCRIPT_OR_ARGUMENT.sub("", undecorated(left))) is not None


def integer_of(text: str, *, as_gold: bool = False) -> str | None:
    r"""The integer that `text` writes, in plain digits without leading zeros, or None.

    `$073$`, `73.`, `73.0`, `**73**`, `73^\circ`, `1{,}234`, `1,234`, `x=73`, `73\text{ cm}`, `\mathbf{73}` are some,
    and in an answer `m+n=73` (as a gold it may be the equation of a line). `73\%`, `73 or 74`, `73, 74`, `74=73`,
    `2x=73`, `73\text{ million}` and `7 3` are none: a list, a percentage or an equation between numbers says
    something else.
    """
    if len(text) > LONGEST_INTEGER_TEXT:
        return None
    text = undecorated(" ".join(plain_characters(text).split()))
    left, equals, right = text.partition("=")
    if equals:
        if not is_name(left, sums=not as_gold):
            return None
        text = undecorated(right)
    text = undecorated(without_unit(text))
    while wrapped := _WRAPPER.fullmatch(text):
        text = undecorated(wrapped[1])
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = re.sub(r"[^0-9]", "", match[2]).lstrip("0") or "0"
    return f"-{digits}" if match[1] == "-" and digits != "0" else digits


def undecorated(text: str, *, currency: bool = False) -> str:
    r"""The text without the markup around it: spaces, dollars, math delimiters, emphasis, end-of-text tokens, a stop.

    With `currency` a leading \$ stays.
    """
    for _ in range(2):  # decoration, one full stop, decoration: `$73$.` and `$73.$`
        leading = (_LEADING_BUT_CURRENCY if currency else _LEADING).match(text)
        text = text[leading.end() :] if leading else text
        text = _TRAILING.sub("", text)
        if text.endswith((".", "。")) and not text.endswith(".."):
            text = text[:-1]
    return text


def without_unit(text: str) -> str:
    r"""The text without a degree sign, one trailing `\text{...}` unit or a plain unit word after a space."""
    text = _DEGREES.sub("", text)
    unit = _TEXT_UNIT.search(text)
    if unit and unit.start() and not _NO_UNIT.search(unit[1]):
        return text[: unit.start()]
    return _PLAIN_UNIT.sub("", text)
