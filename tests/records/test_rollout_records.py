"""What a record holds of a rollout, and that it is enough to compute the credit again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.config import keys
from dgpo_cli.config.gatings import gating_option
from dgpo_cli.config.groups import AlgoConfig
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.records.regated import is_stored_credit, regate, rescored
from dgpo_cli.records.rollout_records import rollout_records
from dgpo_cli.records.stored_rollouts import rollouts_at_hand
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, Verdict

PROMPT = Prompt(Problem(3, "sum 3", (("user", "1 + 1 ="),), "2"), "1 + 1 =", (7, 8))
# Three rollouts; the second is cut and not counted, so it has no signals.
ROLLOUTS = [
    Rollout(SampleRequest(PROMPT, 0, seed=1), (5, 6), "2", "stop", logprobs=(-0.5, -0.25)),
    Rollout(SampleRequest(PROMPT, 1, seed=2), (5, 5, 5), "222", "length"),
    Rollout(SampleRequest(PROMPT, 2, seed=3), (9,), "3", "stop"),
]
ADVANTAGES = [1.0, -0.5, -0.5]
VERDICTS = [Verdict(1.0, True, "2"), Verdict(0.0, False, None, "no_answer"), Verdict(0.0, False, "3")]
MASK = torch.tensor([[True, True], [False, False], [True, False]])
SIGNALS = TokenSignals(
    MASK,
    logprobs=torch.tensor([[-0.5, -0.25], [0.0, 0.0], [-1.0, 0.0]]),
    entropy=torch.tensor([[1.0, 0.5], [0.0, 0.0], [0.25, 0.0]]),
    ref_logprobs=torch.tensor([[-0.75, -0.25], [0.0, 0.0], [-1.5, 0.0]]),
    hellinger=torch.tensor([[0.125, 0.0], [0.0, 0.0], [0.5, 0.0]]),
    grad_norm=torch.tensor([[0.75, 0.5], [0.0, 0.0], [1.25, 0.0]]),
    first_error=torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]),
)
CREDIT = Credit(torch.tensor([[1.5, 0.5], [0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.5, 0.25], [0, 0], [1, 0]]), 1.0)


def records(signals: TokenSignals | None, credit: Credit | None, **extras: Any) -> list[dict[str, Any]]:
    return rollout_records(
        ROLLOUTS,
        VERDICTS,
        [1.0, 0.0, 0.0],
        ADVANTAGES,
        signals,
        credit,
        spell=lambda token: f"<{token}>",
        vocabulary_size=12,
        **extras,
    )


def test_a_record_holds_the_rollout_its_verdict_and_what_each_counted_token_carries() -> None:
    [first, _, _] = records(SIGNALS, CREDIT, noise_floor=0.0625, control_seeds=[11, 12, 13])
    assert first == {
        "prompt_id": "sum 3",
        "sample": 0,
        "prompt": "1 + 1 =",
        "prompt_token_ids": [7, 8],
        "completion": "2",
        "gold": "2",
        "answer": "2",
        "reward": 1.0,
        "correct": True,
        "error": None,
        "advantage": 1.0,
        "finish_reason": "stop",
        "policy_step": None,
        "token_ids": [5, 6],
        "tokens": ["<5>", "<6>"],
        "logprobs": [-0.5, -0.25],
        "engine_logprobs": [-0.5, -0.25],
        "entropy": [1.0, 0.5],
        "grad_norm": [0.75, 0.5],
        "ref_logprobs": [-0.75, -0.25],
        "hellinger": [0.125, 0.0],
        "first_error": [0.0, 0.0],
        "score": [0.5, 0.25],
        "credit": [1.5, 0.5],
        "vocabulary_size": 12,
        "noise_floor": 0.0625,
        "control_seed": 11,
    }


def test_a_rollout_that_was_not_scored_has_its_tokens_and_null_for_the_rest() -> None:
    [_, cut, _] = records(SIGNALS, CREDIT)
    assert cut["tokens"] == ["<5>"] * 3
    lists = ("logprobs", "engine_logprobs", "entropy", "ref_logprobs", "hellinger", "score", "credit")
    assert {name: cut[name] for name in lists} == dict.fromkeys(lists)


def test_what_was_not_measured_is_left_out() -> None:
    [plain, _, _] = records(None, None)
    assert plain["logprobs"] is None
    assert not {"entropy", "ref_logprobs", "hellinger", "score", "credit", "credit_updates"} & set(plain)
    [alone, _, _] = records(TokenSignals(MASK, SIGNALS.logprobs, SIGNALS.entropy), None)
    assert alone["entropy"] == [1.0, 0.5]
    assert "hellinger" not in alone


def test_credit_of_a_rollout_that_no_update_trained_is_null() -> None:
    trained, _, left = records(SIGNALS, CREDIT, credit_updates=[2, 0, 0])
    assert (trained["credit_updates"], trained["credit"]) == (2, [1.5, 0.5])
    assert (left["credit_updates"], left["credit"], left["score"]) == (0, None, None)


@pytest.mark.parametrize("name", keys.options("gating"))
def test_records_are_enough_to_compute_their_credit_again(name: str) -> None:
    gating = gating_option(name)
    facts: dict[str, Any] = {"noise_floor": 0.01, "control_seeds": [11, 12, 13]}
    algorithm = Algorithm(AlgoConfig(), gating, max_completion_tokens=3)
    credit = algorithm.credit(SIGNALS, advantages=torch.tensor(ADVANTAGES), vocabulary_size=12, **facts)
    written = records(SIGNALS, credit, **facts)
    stored = rollouts_at_hand(written, "step 1")
    [again] = regate(stored, {name: gating})
    assert torch.equal(again.credit.weights, credit.weights)
    assert again.credit.noise_gate == credit.noise_gate
    assert is_stored_credit(stored, again)
    assert rescored(stored, again) == written
