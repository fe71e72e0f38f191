"""What a call of a user's function scores that is past its deadline, worked by hand."""

from __future__ import annotations

import pytest

from dgpo_cli.rewards.late_calls import late_score, with_scores
from dgpo_cli.types import ScoresGiven, Verdict

# What was given before (score, correct), the score of the trial, and what a late call scores.
LATE = [
    ([], None, 0.0),
    ([], 1.0, 0.0),
    ([], -0.5, -0.5),
    ([(1.0, True)], 1.0, 0.0),  # as much as a right one it may not be
    ([(1.0, None)], 1.0, 0.0),
    ([(0.25, None)], 1.0, 0.25),
    ([(0.25, None), (0.75, None)], 0.25, 0.25),
    ([(0.1, False)], 1.0, 0.1),
    ([(0.9, True), (1.0, True)], 1.0, 0.0),
    ([(-1.0, None)], -1.0, -1.0),
    ([(0.1 + 0.2, None), (0.3, None)], 0.3, 0.0),  # equal but for rounding
]


@pytest.mark.parametrize(("given", "trial", "expected"), LATE)
def test_what_a_late_call_scores(given: list[tuple[float, bool | None]], trial: float | None, expected: float) -> None:
    verdicts = [Verdict(*one) for one in given]
    for order in (verdicts, verdicts[::-1]):
        assert late_score(with_scores(ScoresGiven(), order, trial), trial) == expected
        one_by_one = ScoresGiven()
        for verdict in order:
            one_by_one = with_scores(one_by_one, [verdict], trial)
        assert late_score(one_by_one, trial) == expected
