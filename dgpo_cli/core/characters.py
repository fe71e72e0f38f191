r"""One spelling for characters that stand for the same thing: fullwidth digits, dashes, superscripts."""

from __future__ import annotations

import re

_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_SPELLINGS: dict[str | int, str] = {
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # fullwidth ASCII
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212\ufe63", "-"),
    **dict.fromkeys("\u00a0\u2002\u2003\u2009\u202f\u3000", " "),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    **dict(zip("。、：；｡", [".", ",", ":", ";", "."], strict=True)),
    "×": r"\times ",
    "÷": "/",
    "⁄": "/",
    "∕": "/",
    "·": r"\cdot ",
    "⋅": r"\cdot ",
    "∗": "*",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "±": r"\pm ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∅": r"\emptyset ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "…": r"\ldots ",
    "″": "''",
    "′": "'",
    "’": "'",
    "º": "°",
    "˚": "°",
    "μ": "µ",
    "￥": "¥",
    "￡": "£",
    "½": r"\frac{1}{2}",
    "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "⅕": r"\frac{1}{5}",
    "⅛": r"\frac{1}{8}",
    "⅜": r"\frac{3}{8}",
    "⅝": r"\frac{5}{8}",
    "⅞": r"\frac{7}{8}",
}
_ONE_FOR_ONE = str.maketrans(_SPELLINGS)
_REWRITTEN = (
    (re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+"), lambda match: f"^{{{match[0].translate(_SUPERSCRIPTS)}}}"),
    (re.compile("[₀₁₂₃₄₅₆₇₈₉]+"), lambda match: f"_{{{match[0].translate(_SUBSCRIPTS)}}}"),
    (re.compile("(?:[0-9][\u0304\u0305])+"), lambda match: rf"\overline{{{re.sub('[^0-9]', '', match[0])}}}"),
    (re.compile("([0-9])\u0307"), lambda match: rf"\dot{{{match[1]}}}"),
    (re.compile(r"√\s*([0-9]+|[A-Za-z])"), lambda match: rf"\sqrt{{{match[1]}}}"),
    (re.compile(r"√\s*(?=[({])"), lambda _: r"\sqrt"),
    (re.compile(r"(?<=[0-9])[\u2013\u2014](?=[0-9])"), lambda _: r"\text{ to }"),  # 10-12 is a range here, not -2
)


def plain_characters(text: str) -> str:
    """The text with ASCII or LaTeX in place of characters that only look otherwise; digits of other scripts stay."""
    if text.isascii():
        return text
    for pattern, replacement in _REWRITTEN:
        text = pattern.sub(replacement, text)
    return text.translate(_ONE_FOR_ONE)
