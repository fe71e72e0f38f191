"""Which steps train inline, and that their credit is the one that a scoring pass would give."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from step_factory import ADVANTAGES, MAX_TOKENS, batch, options, run
from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.training.step import StepBatch, StepResult

WHOLE = 9999  # tokens of a micro-batch that holds everything


def counted(
    policy: LanguageModel, reference: LanguageModel, algorithm: Algorithm, step: StepBatch, **settings: Any
) -> tuple[int, StepResult]:
    """Sequences that go through the policy in a step, and what came of it."""
    sequences = 0

    def count(_: Any, arguments: Any, inputs: dict[str, Tensor]) -> None:
        nonlocal sequences
        sequences += len(inputs["input_ids"])

    hook = policy.model.model.register_forward_pre_hook(count, with_kwargs=True)  # `run` copies it with the model
    try:
        result, _, _ = run(policy, reference, algorithm, step, **settings)
    finally:
        hook.remove()
    return sequences, result


ONE_WITHOUT_ADVANTAGE = [1.2, -0.4, -0.4, -0.4, 0.9, 0.0, 0.0, -0.9]


@pytest.mark.parametrize(
    ("algo", "gating", "advantages", "tokens", "sequences"),
    [
        ("dgpo", "paper", ADVANTAGES, 1, 8),  # a rollout's credit depends on that rollout alone
        ("dgpo", "calibrated", ADVANTAGES, WHOLE, 8),  # the one micro-batch is the whole batch
        ("dgpo", "calibrated", ADVANTAGES, 1, 16),
        ("dapo", "top_entropy", ADVANTAGES, 1, 16),
        ("dapo", "top_entropy", ONE_WITHOUT_ADVANTAGE, WHOLE, 8 + 6),  # two that are not trained count for credit
        ("dapo", "paper", ONE_WITHOUT_ADVANTAGE, WHOLE, 6),
    ],
)
def test_a_scoring_pass_goes_first_only_if_credit_needs_more_than_a_micro_batch(
    policy: LanguageModel,
    reference: LanguageModel,
    algo: str,
    gating: str,
    advantages: list[float],
    tokens: int,
    sequences: int,
) -> None:
    algorithm = Algorithm(*options(algo, gating), max_completion_tokens=MAX_TOKENS)
    through, _ = counted(policy, reference, algorithm, batch(advantages), tokens_per_microbatch=tokens)
    assert through == sequences


def test_rollouts_of_an_earlier_policy_need_no_scoring_pass_either(
    policy: LanguageModel, reference: LanguageModel
) -> None:
    """The one pass gives the log-probs before the update; those that they were drawn with, the rollouts bring."""
    algorithm = Algorithm(*options("dgpo", "paper"), max_completion_tokens=MAX_TOKENS)
    step = batch(ADVANTAGES)
    rollouts = [replace(rollout, policy_step=4) for rollout in step.rollouts]
    through, result = counted(policy, reference, algorithm, replace(step, rollouts=rollouts, policy_step=5))
    assert through == 8
    assert result.signals is not None
    assert bool(result.signals.mask.any(1).all())


@pytest.mark.parametrize("tokens", [1, WHOLE])
def test_credit_of_the_training_pass_is_that_of_a_scoring_pass(
    policy: LanguageModel, reference: LanguageModel, monkeypatch: pytest.MonkeyPatch, tokens: int
) -> None:
    """The same micro-batches in both: the numbers are the same to the rounding of a pass with gradients."""
    algorithm = Algorithm(*options("dgpo", "paper"), max_completion_tokens=MAX_TOKENS)
    step = batch(ADVANTAGES)
    inline, ours, _ = run(policy, reference, algorithm, step, tokens_per_microbatch=tokens)
    monkeypatch.setattr("dgpo_cli.training.update.can_train_inline", lambda *_: False)
    before, theirs, _ = run(policy, reference, algorithm, step, tokens_per_microbatch=tokens)
    assert inline.credit is not None
    assert before.credit is not None
    assert torch.allclose(inline.credit.weights, before.credit.weights, atol=1e-5)
    assert inline.tallies[0].loss == pytest.approx(before.tallies[0].loss, rel=1e-5, abs=1e-6)
    assert inline.tallies[0].ratio_error == 0.0
    for mine, other in zip(ours.gradients[0], theirs.gradients[0], strict=True):
        assert torch.allclose(mine, other, atol=1e-4 * float(other.abs().max()) + 1e-9)
