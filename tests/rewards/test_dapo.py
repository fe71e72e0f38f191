"""The released DAPO rule, with what it is known to reject."""

from __future__ import annotations

import pytest

from dgpo_cli.rewards.dapo import DapoGrader, normalised
from dgpo_cli.types import GradeRequest, Verdict


def verdict(completion: str, gold: str) -> Verdict:
    return DapoGrader().grade([GradeRequest("", completion, gold)])[0]


@pytest.mark.parametrize(
    "completion",
    [
        "Answer: 33",
        "answer :  33 ",
        "Answer: 12\nno, Answer: 33",
        "Answer: $33$",
        "Answer: $x = 33$",
        r"Answer: \boxed{33}",
        "Answer: 33 dollars",
        r"Answer: 33^\circ",
        "the final answer: a 33",
    ],
)
def test_it_accepts(completion: str) -> None:
    assert verdict(completion, "33").correct


@pytest.mark.parametrize(
    "completion", ["**Answer:** 33", "Answer: 33.", "Answer: 033", r"\boxed{33}", "Answer: 33\nAnswer: 34", "33"]
)
def test_it_rejects(completion: str) -> None:
    assert not verdict(completion, "33").correct


def test_it_reads_the_last_300_characters_only() -> None:
    assert verdict("Answer: 33" + "\n" + "x" * 289, "33").correct
    assert verdict("Answer: 33" + "\n" + "x" * 300, "33") == Verdict(0.0, False, None, "no_answer")


@pytest.mark.parametrize(
    ("answer", "form"),
    [
        ("1,234", "1234"),
        ("1{,}234", "1234"),
        (r"\frac12", r"\frac{1}{2}"),
        (r"\sqrt3", r"\sqrt{3}"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"about $\frac{1}{2}$ of it", r"\frac{1}{2}"),
        ("(1, 2)", "(1,2)"),
    ],
)
def test_its_normal_form(answer: str, form: str) -> None:
    assert normalised(answer) == form


def test_a_gold_of_which_nothing_is_left_is_reported() -> None:
    assert DapoGrader().gold_problems(["33"])[0] is None
    assert DapoGrader().gold_problems(["degrees"])[0] is not None
