"""The denominators of a minibatch, however it is cut, and the factors of its tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from step_factory import ADVANTAGES, MAX_TOKENS, batch, options, run

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.groups import LossAggregation
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch
from dgpo_cli.processes import SOLO
from dgpo_cli.training.gradient import LossTokens, minibatch_gradient
from dgpo_cli.training.out_of_memory import MicrobatchBudget
from dgpo_cli.training.passes import Passes
from dgpo_cli.training.step import Objective


def test_rollouts_without_signal_stay_in_the_denominator(policy: LanguageModel) -> None:
    algo, gate = options("dapo")
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    alone, _, _ = run(policy, None, algorithm, batch(ADVANTAGES[:4], [4] * 4))
    beside, _, _ = run(policy, None, algorithm, batch(ADVANTAGES[:4] + [0.0] * 4, [4] * 8))
    assert beside.tallies[0].loss == pytest.approx(alone.tallies[0].loss / 2, rel=1e-5)


def test_first_of_several_minibatches_has_its_own_denominator(policy: LanguageModel) -> None:
    algo, gate = options("grpo")
    algorithm = Algorithm(replace(algo, kl_coef=0.0), gate, max_completion_tokens=MAX_TOKENS)
    halves, optimizer, _ = run(policy, None, algorithm, batch(ADVANTAGES), minibatches=2)
    alone, other, _ = run(policy, None, algorithm, batch(ADVANTAGES[:4]))
    assert halves.tallies[0].loss == pytest.approx(alone.tallies[0].loss, rel=1e-5, abs=1e-6)
    for left, right in zip(optimizer.gradients[0], other.gradients[0], strict=True):
        assert torch.allclose(left, right, atol=1e-5 * float(right.abs().max()) + 1e-9)


@pytest.mark.parametrize("aggregation", list(LossAggregation))
def test_a_token_with_a_factor_of_zero_stays_in_the_denominator(
    policy: LanguageModel, aggregation: LossAggregation
) -> None:
    """Four rollouts of four tokens, A = 1 and ratio 1: the loss is - 1. Without three of the 16 tokens: - 13 / 16."""
    algo, gate = options("dapo")
    algorithm = Algorithm(replace(algo, loss_aggregation=aggregation), gate, max_completion_tokens=4)
    step = batch([1.0] * 4, [4] * 4)
    passes = Passes(policy, None, 1.0, MicrobatchBudget(40, print), SOLO, drop_gradients=lambda: None)
    factors = torch.ones(4, 4)
    factors[1, 2], factors[2, 0], factors[2, 3] = 0.0, 0.0, 0.0

    def tokens_of(micro: MicroBatch, _: bool) -> LossTokens:
        logprobs = passes.logprobs(micro)
        return LossTokens(logprobs, logprobs.detach(), factors[micro.rows], None)

    objective = Objective(algorithm, step, 0.0, policy.vocabulary_size)
    tally = minibatch_gradient(passes, objective, step.rows, lambda: tokens_of)
    policy.model.zero_grad(set_to_none=True)
    assert tally.loss == pytest.approx(-13 / 16, rel=1e-6)
    assert tally.tokens == 16
