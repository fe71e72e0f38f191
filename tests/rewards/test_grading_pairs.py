"""Answers against golds, row by row: what a person would accept is right, what a person would refuse is wrong.

grading_pairs.tsv holds verdict, gold, answer, and the reason of the choice where mathematicians would differ.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dgpo_cli.core.answers import reduced_gold
from dgpo_cli.rewards.robust import RobustGrader
from dgpo_cli.types import GradeRequest, Verdict

TABLE = Path(__file__).with_name("grading_pairs.tsv")
ROWS = [
    tuple(line.split("\t")[:3])
    for line in TABLE.read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(scope="module")
def grader() -> Iterator[RobustGrader]:
    pytest.importorskip("math_verify")
    grader = RobustGrader(timeout_seconds=30, workers=1)
    yield grader
    grader.close()


@pytest.fixture(scope="module")
def verdicts(grader: RobustGrader) -> dict[tuple[str, ...], Verdict]:
    """Golds go through the loader's reduction first, as in a run."""
    requests = [GradeRequest("", rf"so $\boxed{{{answer}}}$.", reduced_gold(gold)) for _, gold, answer in ROWS]
    return dict(zip(ROWS, grader.grade(requests), strict=True))


def test_the_table_is_large_and_names_no_pair_twice() -> None:
    assert len(ROWS) >= 250
    assert len({row[1:] for row in ROWS}) == len(ROWS)
    assert {row[0] for row in ROWS} == {"right", "wrong"}


@pytest.mark.parametrize("row", ROWS, ids=[f"{verdict}: {gold} <- {answer}" for verdict, gold, answer in ROWS])
def test_pair(verdicts: dict[tuple[str, ...], Verdict], row: tuple[str, ...]) -> None:
    assert verdicts[row].correct == (row[0] == "right"), verdicts[row]


def test_only_golds_that_a_copy_alone_can_match_are_reported(grader: RobustGrader) -> None:
    golds = sorted({reduced_gold(gold) for _, gold, _ in ROWS})
    problems = [gold for gold, problem in zip(golds, grader.gold_problems(golds), strict=True) if problem]
    assert problems == [r"1, 2, \ldots, n", r"1:2:3:\ldots", r"\frac{1}{2004!}"]


def test_right_answers_to_one_gold_vote_together(verdicts: dict[tuple[str, ...], Verdict]) -> None:
    for gold in {row[1] for row in ROWS}:
        answers = {verdicts[row].answer for row in ROWS if row[1] == gold and row[0] == "right"}
        assert len(answers) <= 1, gold
