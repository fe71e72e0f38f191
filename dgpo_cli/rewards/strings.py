"""Graders that compare text: `exact` and `answer_only`, for golds that are unique."""

from __future__ import annotations

from dgpo_cli.progress import each
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, GradeRequest, Verdict


class ExactGrader:
    """1 when the completion equals the gold, whitespace at the ends aside."""

    name = "exact"

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        return [self._verdict(request) for request in each(requests)]

    def _verdict(self, request: GradeRequest) -> Verdict:
        answer = request.completion.strip()
        correct = answer == request.gold.strip()
        return Verdict(float(correct), correct, answer or None, None if answer else "no_answer")

    def columns_asked(self) -> ColumnsAsked:
        return NO_COLUMNS

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None if gold.strip() else "it is empty" for gold in golds]

    def check(self, sample: GradeRequest) -> Verdict:
        """Nothing can fail: no code but this."""
        return self._verdict(sample)

    def close(self) -> None:
        """No processes to end."""


class AnswerOnlyGrader(ExactGrader):
    """1 when the text after the last `#` is that of the gold (a completion of digit_chain), whatever led to it."""

    name = "answer_only"

    def _verdict(self, request: GradeRequest) -> Verdict:
        answer = _after_mark(request.completion)
        if not answer:
            return Verdict(0.0, False, None, "no_answer")
        correct = answer == _after_mark(request.gold)
        return Verdict(float(correct), correct, answer)

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        return [None if _after_mark(gold) else "it has no # with an answer after it" for gold in golds]


def _after_mark(text: str) -> str | None:
    _, mark, answer = text.rpartition("#")
    return answer.strip() if mark else None
