"""The score of a call of a user's function that is past its deadline.

So that hanging never pays, it scores the least that the function has given to a completion so far. Those that are
graded together with it count too, so their order does not matter. As long as that may be what a right answer gets
(none was called wrong, and no two scores differ), it scores no more than 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from dgpo_cli.types import ScoresGiven, Verdict

EQUAL_SCORES = 1e-8  # as the rewards of a group are equal in core.advantages, which would import torch


def with_scores(given: ScoresGiven, verdicts: Sequence[Verdict], trial: float | None) -> ScoresGiven:
    """`given` after further verdicts, in whatever order they came. trial: the score of the sample at the start."""
    if not verdicts:
        return given
    scores = [verdict.score for verdict in verdicts] + ([] if given.least is None else [given.least])
    highest = max(scores if trial is None else [*scores, trial])
    wrong = any(verdict.correct is False for verdict in verdicts)
    unsaid = any(verdict.correct is None for verdict in verdicts)
    return ScoresGiven(
        least=min(scores),
        has_worse=given.has_worse or wrong or (unsaid and highest - min(scores) > EQUAL_SCORES),
        says_right=given.says_right or any(verdict.correct is not None for verdict in verdicts),
    )


def late_score(given: ScoresGiven, trial: float | None) -> float:
    """The score of a late call after what was `given`. trial: the score of the sample at the start."""
    if given.has_worse and given.least is not None:
        return given.least
    return min(0.0, *(score for score in (given.least, trial, 0.0) if score is not None))
