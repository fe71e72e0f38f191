"""Rollouts come back from arrays as they were, to the last bit, or with what training reads of them."""

from __future__ import annotations

import pickle

from dgpo_cli.rollout_arrays import DrawnArrays, TrainedArrays
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

PROMPTS = [Prompt(Problem(n, str(n), (("user", "x"),), "7"), "x", (5 + n, 6)) for n in range(2)]
ROLLOUTS = [
    Rollout(
        SampleRequest(PROMPTS[0], 0, 11, 3), (1, 151_935), "a\ud800", "stop", logprobs=(-0.1, -1e-17), policy_step=2
    ),
    Rollout(SampleRequest(PROMPTS[1], 1, 12, 4), (), "", "length", logprobs=()),
    Rollout(SampleRequest(PROMPTS[1], 2, 13, 4), (9,), "b", "length", reported_tokens=1),
]


def test_what_was_drawn_comes_back_to_the_last_bit() -> None:
    arrays = pickle.loads(pickle.dumps(DrawnArrays.of(ROLLOUTS)))
    assert arrays.answering([one.request for one in ROLLOUTS]) == ROLLOUTS


def test_log_probs_of_float32_are_sent_as_such() -> None:
    exact = [Rollout(ROLLOUTS[0].request, (1,), "", "stop", logprobs=(-0.5,))]
    assert DrawnArrays.of(exact).logprobs.values.itemsize == 4
    assert DrawnArrays.of(ROLLOUTS).logprobs.values.itemsize == 8
    assert DrawnArrays.of(exact).answering([exact[0].request]) == exact


def test_a_process_that_trains_gets_tokens_prompts_and_numbers_and_no_text() -> None:
    found = TrainedArrays.of(ROLLOUTS, logprobs=True).rollouts()
    for ours, theirs in zip(found, ROLLOUTS, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.logprobs == theirs.logprobs
        assert ours.truncated == theirs.truncated
        assert ours.policy_step == theirs.policy_step
        assert ours.request.prompt.token_ids == theirs.request.prompt.token_ids
        assert (ours.request.draw, ours.request.sample) == (theirs.request.draw, theirs.request.sample)
        assert not ours.text
    assert found[1].request.prompt is found[2].request.prompt  # each prompt is sent once
    assert [one.logprobs for one in TrainedArrays.of(ROLLOUTS, logprobs=False).rollouts()] == [None] * 3
