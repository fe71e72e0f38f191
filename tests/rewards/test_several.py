"""Several rewards: a weighted sum with parts, by the first that says right or wrong; TRL's functions among them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dgpo_cli.rewards import make_grader
from dgpo_cli.rewards.several import SeveralGrader, begin_with, scores_given
from dgpo_cli.types import ColumnsAsked, Grader, GradeRequest, ScoresGiven, Verdict

FUNCTIONS = """
import os, re, time

def brief(completion, limit=10):
    return {"score": float(len(completion) <= limit), "length": len(completion)}

def easy_only(completions, level, **columns):
    return [1.0 if one == "easy" else None for one in level]

def slow(completion):
    time.sleep(60 * ("slow" in completion))
    return len(completion)

def which(completion):
    return os.getpid()

# In the form of TRL's own functions.
def accuracy_reward(completions, solution, log_extra=None, **kwargs):
    contents = [completion[0]["content"] for completion in completions]
    if log_extra is not None:
        log_extra("solution", list(solution))
    return [None if gold == "?" else float(f"\\\\boxed{{{gold}}}" in text) for text, gold in zip(contents, solution)]

def think_format_reward(completions, **kwargs):
    pattern = r"^<think>(?!.*<think>)(.*?)</think>.*$"
    contents = [completion[0]["content"] for completion in completions]
    return [1.0 if re.match(pattern, text, re.DOTALL | re.MULTILINE) else 0.0 for text in contents]

class _SoftOverlong:
    __name__ = "soft_overlong_punishment_reward"

    def __init__(self, longest, cache):
        self.longest, self.cache = longest, cache

    def __call__(self, completion_ids, **kwargs):
        over = [len(ids) - (self.longest - self.cache) for ids in completion_ids]
        return [0.0 if one <= 0 else -min(1.0, one / self.cache) for one in over]

overlong = _SoftOverlong(4, 2)

async def later(completions, **kwargs):
    import asyncio
    return await asyncio.gather(*(asyncio.sleep(0, float(len(one))) for one in completions))
"""
Make = Callable[..., Grader]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    (tmp_path / "r.py").write_text(FUNCTIONS)
    made: list[Grader] = []

    def make_one(*names: str, weights: list[float] | None = None, workers: int = 2, seconds: float = 20) -> Grader:
        paths = [name if name in ("robust", "exact") else f"{tmp_path / 'r.py'}:{name}" for name in names]
        grader = make_grader("function", path=paths, weights=weights, timeout_seconds=seconds, workers=workers)
        made.append(grader)
        return grader

    yield make_one
    for grader in made:
        grader.close()


def test_the_score_is_a_weighted_sum_and_each_reward_a_part(make: Make) -> None:
    grader = make("robust", "brief", weights=[1.0, 0.25])
    verdicts = grader.grade([GradeRequest("", "Answer: 18", "... #### 18"), GradeRequest("", "Answer: 19!", "18")])
    assert verdicts[0] == Verdict(1.25, True, "18", parts={"robust": 1.0, "brief": 1.0, "brief_length": 10.0})
    assert (verdicts[1].score, verdicts[1].correct) == (0.0, False)
    assert verdicts[1].parts == {"robust": 0.0, "brief": 0.0, "brief_length": 11.0}
    assert grader.columns_asked() == ColumnsAsked(optional=frozenset({"limit"}))
    assert getattr(grader, "rules", None) == 2  # verdicts of other rules of robust are another grader's


def test_a_reward_that_is_none_does_not_count(make: Make) -> None:
    rows = [GradeRequest(str(row), "abc", "", columns={"level": level}) for row, level in enumerate(("easy", "hard"))]
    assert [one.score for one in make("easy_only", "brief").grade(rows)] == [2.0, 1.0]
    assert make("easy_only", "brief").grade(rows)[1].parts == {"brief": 1.0, "brief_length": 3.0}


def test_if_no_reward_has_a_score_the_completion_gets_the_least_and_is_counted(make: Make) -> None:
    rows = [GradeRequest(str(row), "abc", "", columns={"level": level}) for row, level in enumerate(("easy", "hard"))]
    assert make("easy_only").grade(rows)[1] == Verdict(0.0, None, None, "no_score")


def test_a_late_call_of_one_reward_scores_its_least_and_is_counted(make: Make) -> None:
    grader = make("exact", "slow", seconds=0.7)
    verdicts = grader.grade([GradeRequest("", text, "ab") for text in ("ab", "abcd", "slow")])
    assert [(one.score, one.error) for one in verdicts] == [(3.0, None), (4.0, None), (2.0, "timeout")]
    assert verdicts[2].correct is False
    begin_with(grader, scores_given(grader))
    assert scores_given(grader) == (ScoresGiven(least=2.0, has_worse=True),)


def test_functions_of_trl_run_unchanged_on_messages(make: Make) -> None:
    def request(text: str, tokens: int, gold: str = "4") -> GradeRequest:
        turns = (("user", "2 + 2?"),)
        ids = tuple(range(tokens))
        return GradeRequest("p", text, gold, messages=turns, columns={"solution": gold}, token_ids=ids, chat=True)

    grader = make("accuracy_reward", "think_format_reward", "overlong", weights=[1.0, 0.5, 1.0])
    requests = [request("<think>2+2</think>\\boxed{4}", 2), request("\\boxed{5}", 3), request("\\boxed{4}", 9, "?")]
    verdicts = grader.grade(requests)
    assert [one.score for one in verdicts] == [1.5, -0.5, -1.0]
    assert verdicts[0].parts == {"accuracy_reward": 1.0, "think_format_reward": 1.0, "overlong": 0.0}
    assert verdicts[2].parts == {"think_format_reward": 0.0, "overlong": -1.0}
    assert all(one.correct is None for one in verdicts)


def test_an_async_batch_is_awaited(make: Make) -> None:
    assert [one.score for one in make("later").grade([GradeRequest("p", text, "") for text in ("a", "bb")])] == [1, 2]


def test_results_are_those_of_one_worker_for_any_number_of_them(make: Make) -> None:
    requests = [GradeRequest(str(row // 4), "x" * (row % 13), "", columns={"level": "easy"}) for row in range(40)]
    graded = [make("brief", "easy_only", "later", workers=workers).grade(requests) for workers in (1, 3)]
    assert graded[0] == graded[1]
    pids = [verdict.score for verdict in make("which", workers=3).grade(requests)]
    assert 1 <= len(set(pids)) <= 3


def test_a_single_path_in_a_list_is_a_part_too(make: Make) -> None:
    grader = make("brief")
    assert isinstance(grader, SeveralGrader)
    with closing(grader):
        assert grader.check(GradeRequest("", "ab", "")).parts == {"brief": 1.0, "brief_length": 2.0}
