"""What a grader is shown of a completion, from wherever it comes."""

from __future__ import annotations

from dgpo_cli.rewards.requests import of_completion, of_rollout
from dgpo_cli.types import GradeRequest, Problem, Prompt, Rollout, SampleRequest

PROBLEM = Problem(0, "a", (("user", "1 + 1?"),), "2", {"level": "easy"})
PROMPT = Prompt(PROBLEM, "template: 1 + 1?", (5, 6))


def test_a_rollout_brings_its_prompt_length_and_columns() -> None:
    rollout = Rollout(SampleRequest(PROMPT, 0, seed=1), (7, 8, 9), "it is 2", "length")
    assert of_rollout(rollout) == GradeRequest(
        "template: 1 + 1?", "it is 2", "2", True, 3, (("user", "1 + 1?"),), {"level": "easy"}, (7, 8, 9)
    )


def test_tokens_of_a_server_are_as_many_as_it_says_or_unknown() -> None:
    request = SampleRequest(PROMPT, 0, seed=1)
    assert of_rollout(Rollout(request, (), "2", "stop", reported_tokens=4)).completion_tokens == 4
    assert of_rollout(Rollout(request, (), "2", "stop")).completion_tokens is None


def test_a_stored_completion_is_shown_as_a_drawn_one() -> None:
    drawn = of_rollout(Rollout(SampleRequest(PROMPT, 0, seed=1), (7,), "2", "stop"))
    assert of_completion(PROMPT, "2", completion_tokens=1, token_ids=(7,)) == drawn


def test_columns_are_shown_and_not_copied() -> None:
    assert of_completion(PROMPT, "2").columns is PROBLEM.columns
