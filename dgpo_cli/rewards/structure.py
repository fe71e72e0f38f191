r"""The shape of an answer: pairs, sets, intervals, lists, unions, matrices, and what single answers are but numbers.

A gold's shape decides what an answer may look like: order counts in a pair, brackets in an interval, neither in a list
or set. Elements are compared one by one by `same_one`, which the caller brings.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from dgpo_cli.core.answers import is_name, undecorated

Same = Callable[[str, str], bool]


@dataclass(frozen=True)
class Shape:
    """kind: one, list, {}, or the two brackets of a pair or interval such as `()` and `(]`; union; matrix."""

    kind: str
    elements: tuple[str, ...]
    columns: int = 0  # of a matrix


_MATRIX = re.compile(
    r"\\begin\s*\{(?P<kind>[pbBvV]?matrix|array)\}(?:\{[lcr| ]*\})?(?P<body>.*)\\end\s*\{(?P=kind)\}", re.DOTALL
)
_JOINING = re.compile(
    r"\s*(?:\\(?:text|mbox|textrm|mathrm)\s*\{\s*,?\s*(?:and|or)\s*\}|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
_MEMBER = re.compile(r"^(?:[A-Za-z](?:_\{?\w\}?)?|\([A-Za-z](?:\s*,\s*[A-Za-z])*\))\s*\\in(?![A-Za-z])\s*")


def shape_of(text: str) -> Shape:
    """The outermost shape of a text."""
    text = _bare(text)
    listed = _TEXT.fullmatch(text)
    text = listed[1] if listed and "," in listed[1] else text
    elements = split_at(_JOINING.sub(" , ", text), ",;")
    elements = [signed for one in elements if one for signed in _both_signs(one)]
    if len(elements) > 1:
        return Shape("list", tuple(elements))
    text = without_name(_MEMBER.sub("", text))
    if matrix := _MATRIX.fullmatch(text):
        rows = [row for row in split_at(matrix["body"].replace(r"\\", "\x02"), "\x02") if row]
        cells = [split_at(row, "&") for row in rows]
        kind = "determinant" if matrix["kind"] in ("vmatrix", "Vmatrix") else "matrix"
        return Shape(kind, tuple(cell for row in cells for cell in row), len(cells[0]) if cells else 0)
    united = split_at(text.replace(r"\cup", "\x02"), "\x02")
    if len(united) > 1:
        return Shape("union", tuple(united))
    return _enclosed(text) or Shape("one", (text,))


def same_shape(gold: str, answer: str, same_one: Same, depth: int = 0) -> bool:
    """Whether two texts mean the same, shape by shape."""
    right, given = shape_of(gold), shape_of(answer)
    if depth > 5:
        return False

    def same(one: str, other: str) -> bool:
        return same_shape(one, other, same_one, depth + 1)

    if right.kind == given.kind == "one":
        return same_one(right.elements[0], given.elements[0])
    if right.kind == "one" and (interval := interval_of(gold)) and given.kind in _INTERVALS:
        return same(interval, answer)
    if given.kind == "one" and (interval := interval_of(answer)) and right.kind in _INTERVALS:
        return same(gold, interval)
    if "one" in (right.kind, given.kind) and "list" not in (right.kind, given.kind):
        return same_one(_bare(gold), _bare(answer))  # an interval and an inequality, say
    if len(right.elements) != len(given.elements) or right.columns != given.columns:
        return False
    kinds = {right.kind, given.kind}
    if right.kind in ("list", "{}") and kinds <= {"list", "{}"}:
        return _same_in_any_order(right.elements, given.elements, same)
    if right.kind == given.kind == "union":
        return _same_in_any_order(right.elements, given.elements, same)
    if right.kind == given.kind or (right.kind in ("()", "<>") and kinds <= {"()", "<>", "list"}):
        return all(same(one, other) for one, other in zip(right.elements, given.elements, strict=True))
    return False


_INTERVALS = ("()", "(]", "[)", "[]")
_LESS = re.compile(r"\\(?:leqslant|leq|le)(?![A-Za-z])|<=")
_MORE = re.compile(r"\\(?:geqslant|geq|ge)(?![A-Za-z])|>=")


def interval_of(text: str) -> str | None:
    """The interval that 0 < x \\le 1 or x > 5 describes, or None."""
    text = _MORE.sub("\x06", _LESS.sub("\x05", text)).replace(r"\lt", "<").replace(r"\gt", ">")
    signs = re.findall("[<>\x05\x06]", text)
    sides = [side.strip() for side in re.split("[<>\x05\x06]", text)]
    if not signs or len(sides) > 3 or not all(sides) or len({sign in ">\x06" for sign in signs}) > 1:
        return None
    if signs[0] in ">\x06":
        sides, signs = sides[::-1], ["\x05" if sign == "\x06" else "<" for sign in reversed(signs)]
    low, high = ("[" if signs[0] == "\x05" else "("), ("]" if signs[-1] == "\x05" else ")")
    variable = [re.fullmatch(r"[A-Za-z](?:_\{?\w\}?)?", side) is not None for side in sides]
    if len(sides) == 3:
        return f"{low}{sides[0]}, {sides[2]}{high}" if variable[1] else None
    if variable[0] == variable[1]:
        return None
    return rf"(-\infty, {sides[1]}{high}" if variable[0] else rf"{low}{sides[0]}, \infty)"


def without_name(text: str) -> str:
    """The right side of `x = ...`."""
    left, equals, right = text.partition("=")
    named = equals and "=" not in right and is_name(left) and left.strip()[-1:] not in (":", "<", ">", "!")
    return _bare(right) if named else text


def split_at(text: str, separators: str) -> list[str]:
    """The parts between separators that stand outside all brackets."""
    parts, depth, start, index = [], 0, 0, 0
    while index < len(text):
        character = text[index]
        if character == "\\" and text[index + 1 : index + 2] not in ("{", "}"):
            index += 2
            continue
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and character in separators:
            parts.append(text[start:index].strip())
            start = index + 1
        index += 1
    return [*parts, text[start:].strip()]


def _bare(text: str) -> str:
    text = re.sub(r"\\(?:left|right|bigl?|bigr?|Bigl?|Bigr?)(?![A-Za-z])\s*\.?", "", text)
    return undecorated(text.replace(r"\lbrace", r"\{").replace(r"\rbrace", r"\}").replace(r"\colon", ":"))


def _both_signs(text: str) -> list[str]:
    if text.count(r"\pm") != 1 or text.startswith(("(", "[", "{", r"\{")) or "=" in text.partition(r"\pm")[2]:
        return [text]
    return [text.replace(r"\pm", "+"), text.replace(r"\pm", "-")]


def _enclosed(text: str) -> Shape | None:
    inner = text.replace(r"\{", "\x03").replace(r"\}", "\x04").replace(r"\langle", "<").replace(r"\rangle", ">")
    opening, closing = inner[:1], inner[-1:]
    if opening == "\x03" and closing == "\x04":
        kind = "{}"
    elif opening in ("(", "[", "<") and closing in (")", "]", ">"):
        kind = opening + closing
    else:
        return None
    depth = 0
    for index, character in enumerate(inner):
        depth += (character in "([{\x03") - (character in ")]}\x04")
        if depth == 0 and opening != "<" and index < len(inner) - 1:
            return None  # (a)(b)
    body = inner[1:-1].replace("\x03", r"\{").replace("\x04", r"\}")
    elements = [
        signed
        for one in split_at(_JOINING.sub(" , ", body) if kind == "{}" else body, ",;")
        for signed in _both_signs(one)
    ]
    if kind != "{}" and len(elements) < 2:
        return None  # brackets around one thing
    return Shape(kind, tuple(one for one in elements if one))


def _same_in_any_order(right: tuple[str, ...], given: tuple[str, ...], same: Same) -> bool:
    left_over = list(given)
    for one in right:
        name = _name(one)
        for other in left_over:
            if (name is None or _name(other) in (None, name)) and same(one, other):
                left_over.remove(other)
                break
        else:
            return False
    return True


def _name(text: str) -> str | None:
    left, equals, _ = text.partition("=")
    return re.sub(r"[\s{}]", "", left) if equals and is_name(left) else None


# --- single answers that are neither numbers nor formulas: each reads a text or gives None ---

_TEXT = re.compile(r"\\(?:text|textrm|textbf|textit|mathrm|mbox|operatorname|mathbf)\s*\{([^{}]*)\}")
_CHOICE = re.compile(r"\(?\s*([A-H])\s*\)?\.?")
_ARTICLE = re.compile(r"^(?:the|an|a)\s+", re.IGNORECASE)
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?:\s*([ap])\.?\s*m\.?|\s*o'clock)?", re.IGNORECASE)
_FIGURE = re.compile(
    r"(?:m\s*)?\\(measuredangle|angle|triangle|overline|widehat|overrightarrow|overleftrightarrow|vec|arc|odot)\s*\{?\s*([A-Za-z'0-9_]+)\s*\}?"
)


def words_of(text: str, *, shortest: int = 4) -> str | None:
    r"""The words of an answer that is words: \text{even}, Evelyn, or a choice such as (C)."""
    plain = _TEXT.sub(r"\1", text).strip()
    if choice := _CHOICE.fullmatch(plain):
        return choice[1]
    wrapped = _TEXT.fullmatch(text.strip()) is not None
    bare = re.fullmatch(r"[A-Za-z]{2,}(?: [A-Za-z]{2,})*", plain) is not None and len(plain) >= shortest
    if not bare and not (wrapped and re.fullmatch(r"[A-Za-z][A-Za-z .,'-]*", plain)):
        return None
    return _ARTICLE.sub("", " ".join(re.sub(r"[.,]", " ", plain).split())).lower()


def time_of(text: str) -> tuple[int, str | None] | None:
    """Minutes of a time of day, of twelve hours if it says am or pm, and which of the two it says."""
    match = _TIME.fullmatch(" ".join(_TEXT.sub(r" \1 ", re.sub(r"\\[,;: ]|~", " ", text)).split()))
    if match is None or int(match[1]) > 24 or int(match[2]) > (59 if match[1] != "24" else 0):
        return None
    hours, half = int(match[1]), match[3].lower() if match[3] else None
    if half is not None and not 1 <= hours <= 12:
        return None
    if half is None and (hours > 12 or hours == 0):
        hours, half = hours % 12, "p" if 12 < hours < 24 else "a"  # 0:30 and 24:00 are after midnight
    return hours % 12 * 60 + int(match[2]), half


def figure_of(text: str) -> tuple[str, str] | None:
    r"""Kind and points of \angle ABC, \overline{AB}, \triangle ABC, in an order that does not depend on the writer."""
    match = _FIGURE.fullmatch(text.strip())
    if match is None:
        return None
    kind, points = match[1].replace("measured", ""), match[2]
    if kind == "triangle":
        return kind, "".join(sorted(points))
    return kind, points if kind in ("overrightarrow", "vec", "odot") else min(points, points[::-1])


def ratio_of(text: str) -> list[str] | None:
    """The terms of a ratio 2:3 or 1:2:3."""
    terms = [term.strip() for term in text.replace(r"\mathbin{:}", ":").split(":")]
    return terms if len(terms) > 1 and all(terms) else None
