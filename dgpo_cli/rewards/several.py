"""Several rewards at once: `reward.path=[robust,style.py:brief] reward.weights=[1,0.2]`.

The score is the weighted sum. Each reward is a part by its name, unweighted, so that it is logged as `reward/NAME` and
kept with the rollouts; what a reward returns as parts of its own is `NAME_PART`. The first reward in the list that says
right or wrong decides `correct`, and the first one with an answer gives it. A reward without a score for a completion
(None in a batch) does not count there, as in TRL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from dgpo_cli.core.answers import reduced_gold
from dgpo_cli.rewards.function import NO_SCORE, FunctionGrader
from dgpo_cli.types import ColumnsAsked, Grader, GradeRequest, ScoresGiven, Verdict


@dataclass(frozen=True)
class Weighted:
    """One of several rewards. reads_mathematics: it compares golds that are reduced to their answer."""

    name: str
    weight: float
    grader: Grader
    reads_mathematics: bool = False


class SeveralGrader:
    """See the module. It scores like a function of the user's own, and is called so."""

    name = "function"

    def __init__(self, rewards: Sequence[Weighted]) -> None:
        self.rewards = list(rewards)
        self.rules = next((one.grader.rules for one in rewards if hasattr(one.grader, "rules")), None)

    def columns_asked(self) -> ColumnsAsked:
        asked = [one.grader.columns_asked() for one in self.rewards]
        required = frozenset().union(*(one.required for one in asked))
        optional = frozenset().union(*(one.optional for one in asked)) - required
        return ColumnsAsked(required, optional, any(one.every for one in asked))

    def grade(self, requests: list[GradeRequest]) -> list[Verdict]:
        by_reward = [one.grader.grade(_as_read_by(one, requests)) for one in self.rewards]
        return [self._together(verdicts) for verdicts in zip(*by_reward, strict=True)]

    def check(self, sample: GradeRequest) -> Verdict:
        return self._together([one.grader.check(_as_read_by(one, [sample])[0]) for one in self.rewards])

    def gold_problems(self, golds: list[str]) -> list[str | None]:
        """The first reason of any of them."""
        found = [
            one.grader.gold_problems([_reduced(gold) for gold in golds] if one.reads_mathematics else golds)
            for one in self.rewards
        ]
        return [next((why for why in reasons if why is not None), None) for reasons in zip(*found, strict=True)]

    def close(self) -> None:
        for one in self.rewards:
            one.grader.close()

    def _together(self, verdicts: Sequence[Verdict]) -> Verdict:
        counted = [(one, verdict) for one, verdict in zip(self.rewards, verdicts, strict=True) if _counts(verdict)]
        errors = [verdict.error for verdict in verdicts if verdict.error not in (None, NO_SCORE)]
        # If nothing has a score, each gives the least that it has given: a completion never gains by it.
        summed = counted or list(zip(self.rewards, verdicts, strict=True))
        return Verdict(
            score=sum(one.weight * verdict.score for one, verdict in summed) + 0.0,
            correct=next((verdict.correct for verdict in verdicts if verdict.correct is not None), None),
            answer=next((verdict.answer for verdict in verdicts if verdict.answer is not None), None),
            error=errors[0] if errors else None if counted else NO_SCORE,
            parts={name: value for one, verdict in counted for name, value in _parts(one, verdict).items()} or None,
        )


def _counts(verdict: Verdict) -> bool:
    return verdict.error != NO_SCORE


def _parts(one: Weighted, verdict: Verdict) -> dict[str, float]:
    return {one.name: verdict.score} | {f"{one.name}_{part}": value for part, value in (verdict.parts or {}).items()}


def _as_read_by(one: Weighted, requests: list[GradeRequest]) -> list[GradeRequest]:
    if not one.reads_mathematics:
        return requests
    return [replace(request, gold=_reduced(request.gold)) for request in requests]


@cache
def _reduced(gold: str) -> str:
    return reduced_gold(gold)


def functions_of(grader: Grader) -> list[FunctionGrader]:
    """The functions of the user's own in a grader."""
    found = [one.grader for one in grader.rewards] if isinstance(grader, SeveralGrader) else [grader]
    return [one for one in found if isinstance(one, FunctionGrader)]


def scores_given(grader: Grader) -> tuple[ScoresGiven, ...]:
    """What each function of a grader has given so far: a run that goes on begins with it."""
    return tuple(function.given for function in functions_of(grader))


def begin_with(grader: Grader, given: Sequence[ScoresGiven]) -> None:
    """Set what the functions of a grader had given before a run was interrupted."""
    for function, before in zip(functions_of(grader), given, strict=False):
        function.given = before
