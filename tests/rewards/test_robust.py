"""The default grader: what is right, what is wrong, and what is an error with its cause."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from dgpo_cli.data.prompts import TEMPLATES
from dgpo_cli.errors import ConfigError, RewardError
from dgpo_cli.rewards import worker_pool
from dgpo_cli.rewards.robust import RobustGrader
from dgpo_cli.types import GradeRequest, Verdict

PROMPTS = ("", TEMPLATES["dapo"], TEMPLATES["boxed"])

RIGHT = [
    "Answer: 073",
    "Answer: 73.0",
    r"Answer: 73^\circ",
    "Answer: 73.",
    "**Answer:** 73",
    "**Answer: 73**",
    "**Answer**: 73",
    "Answer: $m+n=73$",
    "Answer:\n\\boxed{73}",
    "Answer:\n\n$$\n\\boxed{73}\n$$",
    "Answer:\n73",
    "The final answer: 73",
    r"Answer: \(73\)<|im_end|>",
    "Answer: the number of ways, as computed above\nso $\\boxed{73}$",
    r"First \boxed{72}, and then \boxed{73}.",
    " so ".join(rf"\boxed{{{number}}}" for number in range(1000)) + r" hence \boxed{73}",
    r"\boxed{73} \boxed{73}",
    r"\fbox{73}",
    r"\boxed 73",
    r"$\boxed{\mathbf{73}}$.",
    r"\boxed{73\text{ cm}}",
    "Answer: 73\n" + "and so on " * 5000,
    "<think>Answer: 4 or \\boxed{5}</think>Answer: 73",
    "I think</think>\n\\boxed{73}",
]
WRONG = [
    "Answer: 73, 74",
    r"\boxed{73, 74}",
    r"\boxed{72, 73}",
    r"\boxed{72} \boxed{73}",
    r"$\boxed{72}$, $\boxed{73}$",
    "\\boxed{72}\n\\boxed{73}",
    r"\boxed{72} or \boxed{73}",
    r"\boxed{72}\quad\text{and}\quad\boxed{73}",
    r"\boxed{73\%}",
    r"\boxed{-73}",
    "Answer: -73",
    "<think>Answer: 73</think>",
    "<think>\\boxed{73}</think> that was it",
    "<think>Answer: 73",
    r"<think>first</think> then <think>\boxed{73}",
    r"\boxed{73",
    r"\boxed{74=73}",
    r"\boxed{72=73}",
    r"\boxed{73\text{ or }74}",
    r"\boxed{73\text{ million}}",
    "maybe 1+72",
    "73",
    "Answer:",
    "Answer: $Answer",
    "",
]


@pytest.fixture(scope="module")
def grader() -> Iterator[RobustGrader]:
    pytest.importorskip("math_verify")
    grader = RobustGrader(timeout_seconds=20, workers=1)
    yield grader
    grader.close()


def verdict(grader: RobustGrader, completion: str, gold: str, prompt: str = "", truncated: bool = False) -> Verdict:
    return grader.grade([GradeRequest(prompt, completion, gold, truncated)])[0]


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> RobustGrader:
    def refuse(_: object) -> None:
        raise AssertionError("the integer path left the main process")

    monkeypatch.setattr(RobustGrader, "_started_pool", refuse)
    return RobustGrader(timeout_seconds=1)


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("completion", RIGHT)
def test_right_integers(no_workers: RobustGrader, completion: str, prompt: str) -> None:
    assert verdict(no_workers, completion, "73", prompt) == Verdict(1.0, True, "73")


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("completion", WRONG)
def test_wrong_integers(no_workers: RobustGrader, completion: str, prompt: str) -> None:
    found = verdict(no_workers, completion, "73", prompt)
    assert (found.score, found.correct) == (0.0, False)
    assert found.error in (None, "no_answer")


@pytest.mark.parametrize("gold", ["1234", "1,234", "1{,}234", "01234", "1234.0", "sum\n#### 1,234"])
def test_golds_with_a_comma_or_after_a_mark(no_workers: RobustGrader, gold: str) -> None:
    assert verdict(no_workers, r"Answer: 1{,}234", gold).correct
    assert not verdict(no_workers, "Answer: 1, 234", gold).correct


def test_the_prompt_says_which_answer_counts_first(no_workers: RobustGrader) -> None:
    both = "Answer: 73\nor rather \\boxed{74}"
    assert verdict(no_workers, both, "73", TEMPLATES["dapo"]).correct
    assert verdict(no_workers, both, "74", TEMPLATES["boxed"]).correct
    assert not verdict(no_workers, both, "73", TEMPLATES["boxed"]).correct


def test_a_number_cut_off_by_the_limit_is_no_answer(no_workers: RobustGrader) -> None:
    assert verdict(no_workers, "so\nAnswer: 7", "7", truncated=True) == Verdict(0.0, False, None, "no_answer")
    assert verdict(no_workers, "so\nAnswer: 7\nI am", "7", truncated=True).correct
    assert verdict(no_workers, "so \\boxed{7}, Answer: 7", "7", truncated=True).correct


def test_thinking_that_the_prompt_opened_is_thinking(no_workers: RobustGrader) -> None:
    assert verdict(no_workers, r"\boxed{73}", "73", "question<think>\n").error == "no_answer"
    assert verdict(no_workers, r"hm</think>\boxed{73}", "73", "question<think>\n").correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{2}", "0.5"),
        (r"\frac{1}{2}", r"\dfrac12"),
        (r"\frac{1}{2}", "x = 1/2"),
        (r"\frac{1}{2}", r"\frac{2}{4} = 0.5"),
        (r"\frac{1}{2}", r"\frac{1}{2}\text{ cm}"),
        (r"\frac{1}{2}", r"50\%"),
        ("62.5%", r"62.5\%"),
        ("62.5%", "62.5"),
        ("x+1", r"\frac{x^2-1}{x-1}"),
        ("p - q", "-q + p"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\pi/2)"),
        ("7,9", "9, 7"),
        (r"3\sqrt{13}", r"\sqrt{117}"),
        (r"\text{Evelyn}", "Evelyn"),
        ("4.5e33", r"4.5 \times 10^{33}"),
        ("-1./3", r"-\frac13"),
        ("np.arcsin(10/13)", r"\arcsin(10/13)"),
        ("$2^{1009}$", "2^{1009}"),
        ("y=2x+3", "y=2x+3"),
        ("x+y=0", "x + y = 0"),
    ],
)
def test_right_mathematics(grader: RobustGrader, gold: str, answer: str) -> None:
    found = verdict(grader, rf"so $\boxed{{{answer}}}$.", gold)
    assert (found.correct, found.error) == (True, None)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{2}", r"\frac{1}{3}"),
        (r"\frac{1}{2}", r"\frac{1}{2}, \frac{1}{3}"),
        (r"\frac{1}{2}", r"\frac{1}{2} \text{ or } \frac{1}{3}"),
        (r"\frac{1}{2}", r"\frac{1}{3} = \frac{1}{2}"),
        (r"\frac{1}{2}", r"\frac{1}{2} \text{ but not } \frac{1}{3} \text{ cm}"),
        (r"\frac{1}{2}", r"\frac{1}{2} \mathrm{E}_{1}"),
        (r"\frac{1}{2}", r"\pm\frac{1}{2}"),
        (r"\frac{1}{2}", r"\frac{1}{2}\%"),
        ("p - q", "q - p"),
        ("(1,2)", "[1,2]"),
        ("7,9", "7"),
        ("2x+3y=7", "7"),
        ("x+y=0", "0"),
        (r"\text{Evelyn}", r"\text{Evelyn or Bob}"),
    ],
)
def test_wrong_mathematics(grader: RobustGrader, gold: str, answer: str) -> None:
    found = verdict(grader, rf"so $\boxed{{{answer}}}$.", gold)
    assert (found.correct, found.error) == (False, None)


def test_an_answer_line_counts_for_mathematics_too(grader: RobustGrader) -> None:
    assert verdict(grader, "**Answer:** $\\frac{2}{4}$.", r"\frac{1}{2}", TEMPLATES["dapo"]).correct


def test_golds_that_nothing_parses_are_reported_and_are_errors_when_graded(grader: RobustGrader) -> None:
    golds = ["73", r"\frac{1}{2}", "$t(0,4]$", "9^{9^{9^9}}", ""]
    problems = grader.gold_problems(golds)
    assert [problem is None for problem in problems] == [True, True, False, False, False]
    assert "cannot read it" in str(problems[2])
    assert grader.gold_problems(["$t(0,4]$"])[0] == problems[2]
    assert verdict(grader, r"\boxed{5}", "$t(0,4]$").error == "bad_gold"
    assert verdict(grader, r"\boxed{5}", "9^{9^{9^9}}").error == "bad_gold"
    assert verdict(grader, r"\boxed{t(0, 4]}", "$t(0,4]$").correct  # a literal copy


def test_a_grader_that_fails_its_self_test_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dgpo_cli.rewards.robust.same_quantity", lambda gold, answer: True)
    with pytest.raises(RewardError, match="self-test failed"):
        RobustGrader(timeout_seconds=1)


def test_without_math_verify_integers_work_and_the_rest_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    grader = RobustGrader(timeout_seconds=1)
    assert verdict(grader, "Answer: 73", "73").correct
    with pytest.raises(ConfigError, match="not installed") as caught:
        grader.gold_problems([r"\sqrt{2}"])
    assert caught.value.problems[0].hint == "pip install 'dgpo[math]'"


def test_workers_need_neither_torch_nor_the_main_module() -> None:
    assert "torch" not in worker_pool.WORKER_PROGRAM.read_text()
    assert sys.executable
