"""results.json worked by hand."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from dgpo_cli.evaluation.results import EvaluationResult, summarise, unanswered_record
from dgpo_cli.types import Problem, Prompt, SampleRequest, Unanswered

KEYS = [
    "schema_version", "benchmark", "model", "n_problems", "n_samples", "avg_at_k",
    "reward", "pass_at_k", "maj_at_k",
    "truncated_fraction", "no_answer_fraction", "errors", "completion_tokens_mean", "seconds", "sampling", "problems",
    "manifest",
]  # fmt: skip


def sample(index: int, number: int, answer: str | None, correct: bool, **fields: Any) -> dict[str, Any]:
    return {
        "index": index,
        "problem_id": f"p{index}",
        "sample": number,
        "answer": answer,
        "correct": correct,
        "error": None if answer else "no_answer",
        "finish_reason": "stop",
        "completion_tokens": 10,
        **fields,
    }


def result(records: list[dict[str, Any]], pass_at: tuple[int, ...] = (1, 2, 4)) -> EvaluationResult:
    return summarise(
        records,
        benchmark="b",
        model="m",
        pass_at=pass_at,
        seconds=1.23456,
        sampling={"temperature": 1.0, "top_p": 0.7, "max_tokens": 8, "seed": 0},
        manifest={"grader": "exact"},
    )


# gold 3 and 5. Problem 0: 3 4 3 -, problem 1: 6 6 5 5
HAND = [
    sample(0, 0, "3", True, completion_tokens=4),
    sample(0, 1, "4", False),
    sample(0, 2, "3", True),
    sample(0, 3, None, False, finish_reason="length", completion_tokens=8),
    sample(1, 0, "6", False),
    sample(1, 1, "6", False),
    sample(1, 2, "5", True),
    sample(1, 3, "5", False, error="timeout"),
]


def test_a_table_worked_by_hand() -> None:
    found = result(HAND)
    # right: 2 of 4 and 1 of 4
    assert found.avg_at_k is not None
    assert found.avg_at_k.value == pytest.approx(0.375)
    assert found.avg_at_k.k == 4
    assert found.avg_at_k.se_total == pytest.approx(math.sqrt(0.125**2 * 2) / math.sqrt(2))
    # pass@2: 1 - C(2,2)/C(4,2) = 5/6 and 1 - C(3,2)/C(4,2) = 1/2; pass@4: both
    assert found.pass_at_k == pytest.approx({1: 0.375, 2: (5 / 6 + 0.5) / 2, 4: 1.0})
    # maj@4: 3 wins by 2 to 1, 6 was seen before 5. maj@2: (3 4 -> 3)(3 - -> 3), (6)(5 right): 1 and 1/2
    assert found.maj_at_k == pytest.approx({1: 0.375, 2: 0.75, 4: 0.5})
    assert (found.n_problems, found.n_samples) == (2, 8)
    assert found.truncated_fraction == 1 / 8
    assert found.no_answer_fraction == 1 / 8
    assert found.errors == {"no_answer": 1, "timeout": 1}
    assert found.completion_tokens_mean == pytest.approx((4 + 8 + 6 * 10) / 8)
    assert [(one.index, one.id, one.correct, one.n) for one in found.problems] == [(0, "p0", 2, 4), (1, "p1", 1, 4)]


def test_the_order_of_the_samples_on_disk_does_not_matter() -> None:
    assert result(HAND[::-1]) == result(HAND)


def test_the_record_has_the_promised_keys_and_is_strict_json() -> None:
    record = result(HAND).as_record()
    assert list(record) == KEYS
    assert list(record["avg_at_k"]) == ["k", "value", "se_sampling", "se_total", "ci95"]
    assert record["pass_at_k"].keys() == {"1", "2", "4"}
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_one_problem_with_one_sample_is_strict_json_too() -> None:
    record = result([sample(0, 0, None, False)], pass_at=(1,)).as_record()
    assert record["avg_at_k"] == {"k": 1, "value": 0.0, "se_sampling": None, "se_total": None, "ci95": None}
    json.dumps(record, allow_nan=False)


def test_right_samples_without_an_answer_leave_nothing_to_vote() -> None:
    """A reward function of the user's own says right or wrong, and gives no answer."""
    records = [sample(0, 0, None, True, error=None), sample(0, 1, None, False, error=None)]
    found = result(records, pass_at=(1, 2))
    assert found.maj_at_k == {}
    assert found.pass_at_k == {1: 0.5, 2: 1.0}
    assert found.no_answer_fraction == 0.0


def test_stored_completions_without_lengths_say_nothing_of_lengths() -> None:
    found = result([sample(0, 0, "1", True, finish_reason=None, completion_tokens=None)], pass_at=(1,))
    assert found.truncated_fraction is None
    assert found.completion_tokens_mean is None


def test_pass_at_k_beyond_the_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="pass@8 needs at least 8"):
        result(HAND, pass_at=(8,))


def test_what_a_server_leaves_unanswered_counts_as_wrong_and_apart_from_the_graders_errors() -> None:
    """Problem 0: right, unanswered; problem 1: late, right. That is 2 of 4."""
    request = SampleRequest(Prompt(Problem(0, "p0", (), "3"), "", ()), 1, 0)
    lost = unanswered_record(Unanswered(request, "timeout", "no answer within 1 s", "wait"))
    late = sample(1, 0, None, False, error="timeout")
    summed = result([sample(0, 0, "3", True), lost, late, sample(1, 1, "5", True)], pass_at=(1,))
    assert summed.avg_at_k is not None
    assert (summed.n_samples, summed.avg_at_k.k, summed.avg_at_k.value) == (4, 2, 0.5)
    assert summed.errors == {"server_timeout": 1, "timeout": 1}
    assert summed.unanswered == {"server_timeout": 1}
    assert summed.truncated_fraction == 0.0
    assert summed.completion_tokens_mean == 10


def test_rewards_without_right_or_wrong_have_a_mean_with_an_interval() -> None:
    """Problem means 0.5, 1, 0: mean 0.5, std 0.5; t(0.975, 2) = 4.302653."""
    rewards = [(0, 0, 0.25), (0, 1, 0.75), (1, 0, 1.0), (1, 1, 1.0), (2, 0, 0.5), (2, 1, -0.5)]
    records = [
        {**sample(index, number, None, False), "correct": None, "reward": value} for index, number, value in rewards
    ]
    found = result(records, pass_at=(1,))
    assert (found.avg_at_k, found.pass_at_k, found.maj_at_k) == (None, {}, {})
    assert found.reward is not None
    assert found.reward.mean == 0.5
    assert found.reward.se_total == pytest.approx(0.5 / math.sqrt(3))
    half = 4.302653 * 0.5 / math.sqrt(3)
    assert found.reward.ci95 == pytest.approx((0.5 - half, 0.5 + half), abs=1e-5)
    assert [(problem.correct, problem.reward) for problem in found.problems] == [(None, 0.5), (None, 1.0), (None, 0.0)]
    assert found.as_record()["avg_at_k"] is None
    assert found.as_record()["reward"]["ci95"] == list(found.reward.ci95 or ())
