"""exact and answer_only, for golds that are unique."""

from __future__ import annotations

import pytest

from dgpo_cli.errors import ConfigError
from dgpo_cli.rewards import make_grader
from dgpo_cli.types import GradeRequest, Verdict

GOLD = "9 -5=4 +4=8 +1=9 +1=0 -4=6 #6"


def verdict(name: str, completion: str, gold: str = GOLD) -> Verdict:
    return make_grader(name, path=None, timeout_seconds=1).grade([GradeRequest("", completion, gold)])[0]


def test_exact_asks_for_the_whole_completion() -> None:
    assert verdict("exact", f" {GOLD}\n") == Verdict(1.0, True, GOLD)
    assert not verdict("exact", GOLD.replace("=4", "=5")).correct
    assert verdict("exact", " \n") == Verdict(0.0, False, None, "no_answer")


def test_answer_only_asks_for_the_last_mark() -> None:
    assert verdict("answer_only", "nonsense #1 #6 ") == Verdict(1.0, True, "6")
    assert verdict("answer_only", f"{GOLD}6") == Verdict(0.0, False, "66")
    assert verdict("answer_only", "9 -5=6") == Verdict(0.0, False, None, "no_answer")
    assert verdict("answer_only", "9 -5=6 #").error == "no_answer"


def test_a_gold_without_an_answer_is_reported() -> None:
    grader = make_grader("answer_only", path=None, timeout_seconds=1)
    assert grader.gold_problems([GOLD])[0] is None
    assert "no #" in str(grader.gold_problems(["6"])[0])


def test_an_unknown_grader_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"expected exact \| answer_only \| robust \| dapo \| function") as caught:
        make_grader("robot", path=None, timeout_seconds=1)
    assert caught.value.problems[0].hint == "reward=robust"
