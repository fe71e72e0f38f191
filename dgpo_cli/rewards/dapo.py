"""The rule that DAPO was released with (arXiv 2503.14476), for numbers that are to be compared with its own.

The last 300 characters, the last `Answer:` line, a normalisation that goes back to Minerva (arXiv 2206.14858), and
equality of strings. It rejects `**Answer:** 33`, `Answer: 33.` and `Answer: 073` for 73: `robust` is the better
judge.
"""

from __future__ import annotations

import re

from dgpo_cli.progress import each
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, GradeRequest, Verdict

READ_CHARACTERS = 300

_ANSWER = re.compile(r"(?i)Answer\s*:\s*([^\n]+)")

_REPLACED = (
    ("an ", ""),
    ("a ", ""),
    (".$", "$"),
    (r"\$", ""),
    ("\\ ", ""),
    (" ", ""),
    ("mbox", "text"),
    (r",\text{and}", ","),
    (r"\text{and}", ","),
    (r"\text{m}", r"\text{}"),
)
_WORDS = (
    "square ways integers dollars mph inches hours km units \\ldots sue points feet minutes digits cents degrees cm gm "
    "pounds meters meals edges students childrentickets multiples"
)
_REMOVED = (
    *_WORDS.split(),
    *(r"\text{s}", r"\text{.}", "\\text{\ns}", r"\text{}^2", r"\text{}^3", "\\text{\n}", r"\text{}"),
    *(r"\mathrm{th}", r"^\circ", r"^{\circ}", r"\;", r",\!", "{,}", '"', r"\dots"),
)
_REWRITTEN = (
    (re.compile(r".*?\$(.*?)\$.*"), r"$\1$"),
    (re.compile(r"\\text\{(.*?)\}"), r"\1"),
    (re.compile(r"\\textbf\{(.*?)\}"), r"\1"),
    (re.compile(r"\\overline\{(.*?)\}"), r"\1"),
    (re.compile(r"\\boxed\{(.*)\}"), r"\1"),
    (re.compile(r"frac([^{])(.)"), r"frac{\1}{\2}"),
    (re.compile(r"sqrt([^{])"), r"sqrt{\1}"),
)


def normalised(answer: str) -> str:
    """DAPO's normal form, applied to answers and golds alike, step by step in its order."""
    answer = answer.split("=")[-1]
    for before, after in _REPLACED:
        answer = answer.replace(before, after)
    for expression in _REMOVED:
        answer = answer.replace(expression, "")
    for pattern, replacement in _REWRITTEN:
        answer = pattern.sub(replacement, answer)
    answer = answer.replace("$", "")
    if answer.replace(",", "").isdigit():
        answer = answer.replace(",", "")
    return answer.strip()


class DapoGrader:
    """Right when the normal forms of the last `Answer:` line and of the gold are the same string."""

    name = "dapo"

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        return [self._verdict(request) for request in each(requests)]

    def _verdict(self, request: GradeRequest) -> Verdict:
        found = _ANSWER.findall(request.completion[-READ_CHARACTERS:])
        if not found:
            return Verdict(0.0, False, None, "no_answer")
        answer = normalised(found[-1])
        correct = answer == normalised(request.gold)
        return Verdict(float(correct), correct, answer)

    def columns_asked(self) -> ColumnsAsked:
        return NO_COLUMNS

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None if normalised(gold) else "nothing is left of it after DAPO's normalisation" for gold in golds]

    def check(self, sample: GradeRequest) -> Verdict:
        """Nothing can fail: no code but this."""
        return self._verdict(sample)

    def close(self) -> None:
        """No processes to end."""
