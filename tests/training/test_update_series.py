"""Which minibatches of a step have an update, what ends them, and the norms of the loss's terms."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from step_factory import ADVANTAGES, MAX_TOKENS, batch, naive_loss, options, run
from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import ScorePolicy
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater


@pytest.mark.parametrize("score_policy", ["old", "current"])
def test_minibatches_and_epochs_update_so_often(
    policy: LanguageModel,
    reference: LanguageModel,
    score_policy: str,
) -> None:
    algo, gate = options("dgpo", "paper")
    gate = replace(gate, score_policy=type(gate.score_policy)[score_policy])
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    result, optimizer, _ = run(policy, reference, algorithm, batch(ADVANTAGES), minibatches=2, epochs=3)
    assert len(result.outcomes) == len(optimizer.gradients) == 6
    assert result.tallies[0].ratio_error / result.tallies[0].tokens < 1e-6
    assert result.tallies[2].ratio_error / result.tallies[2].tokens > 1e-4


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_equal_rewards_move_no_weight_without_kl(
    policy: LanguageModel,
    reference: LanguageModel,
    kl_coef: float,
) -> None:
    algo, gate = options("grpo")
    algorithm = Algorithm(replace(algo, kl_coef=kl_coef), gate, max_completion_tokens=MAX_TOKENS)
    result, _, model = run(policy, reference, algorithm, batch([0.0] * 8))
    same = all(
        torch.equal(left, right)
        for left, right in zip(policy.model.parameters(), model.model.parameters(), strict=True)
    )
    assert same is (kl_coef == 0.0)
    assert result.skipped == (1 if kl_coef == 0.0 else 0)


def test_a_gradient_that_is_not_finite_is_skipped(policy: LanguageModel) -> None:
    algorithm = Algorithm(*options("grpo"), max_completion_tokens=MAX_TOKENS)
    step = batch([float("inf"), 0.0, 0.0, 0.0, 1.0, 1.0, -1.0, -1.0])
    result, _, model = run(policy, frozen_copy(policy), algorithm, step)
    assert result.nonfinite == result.skipped == 1
    assert all(
        torch.equal(left, right)
        for left, right in zip(policy.model.parameters(), model.model.parameters(), strict=True)
    )


def test_the_terms_gradient_norms_are_those_of_each_alone_and_move_nothing(
    policy: LanguageModel, reference: LanguageModel
) -> None:
    algo, gating = options("grpo", "paper")
    algorithm = Algorithm(algo, gating, max_completion_tokens=MAX_TOKENS)
    step = batch(ADVANTAGES)
    without, _, plain = run(policy, reference, algorithm, step)
    result, _, model = run(policy, reference, algorithm, step, terms=True)
    for ours, theirs in zip(model.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert without.term_norms == {}
    assert result.credit is not None
    naive = copy.deepcopy(policy.model).double()
    other = copy.deepcopy(reference.model).double()
    cases = {
        "grad_norm/policy": (replace(algo, kl_coef=0.0), step),
        "grad_norm/kl": (algo, replace(step, advantages=torch.zeros(len(ADVANTAGES)))),
    }
    for name, (term, given) in cases.items():
        loss = naive_loss(naive, other, term, given, result.credit.weights)
        gradients = torch.autograd.grad(loss, list(naive.parameters()))
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
        assert result.term_norms[name] == pytest.approx(norm, rel=1e-4)


BAD, GOOD, NOTHING = [math.inf, 0.0, 0.0, 0.0], [1.0, -1.0, 0.5, -0.5], [0.0] * 4


@pytest.mark.parametrize(
    ("minibatches", "before", "taken", "streak"),
    [
        ([BAD, GOOD, BAD, GOOD], 0, 4, 0),
        ([BAD, BAD, GOOD, BAD], 0, 4, 1),
        ([GOOD, GOOD, GOOD, BAD], 2, 4, 1),
        ([BAD, GOOD, GOOD, GOOD], 2, 1, 3),  # the third in a row, over two steps: nothing follows it
        ([BAD, NOTHING, BAD, BAD], 0, 3, 3),  # what was skipped for want of signal ends no streak
        ([NOTHING, NOTHING, NOTHING, NOTHING], 2, 0, 2),
        ([BAD, BAD, BAD, GOOD], 0, 3, 3),
    ],
)
def test_updates_without_a_finite_gradient_are_counted_in_order_and_over_steps(
    policy: LanguageModel,
    minibatches: list[list[float]],
    before: int,
    taken: int,
    streak: int,
) -> None:
    algorithm = Algorithm(*options("dapo"), max_completion_tokens=MAX_TOKENS)
    model = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer, policy.path, policy.has_head)
    optim = replace(OptimConfig(), minibatches=4, max_nonfinite=3)
    updater = Updater(model, None, algorithm, Optimizer(model.model, optim), optim, temperature=1.0)
    step = batch([advantage for one in minibatches for advantage in one])
    result = updater.run(step, lr=1e-3, noise_floor=0.0, guard=StopGuard(0.0), nonfinite_streak=before)
    assert len(result.outcomes) == taken
    assert result.nonfinite_streak == streak


def flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


def similarity(left: Tensor, right: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(left, right, dim=0))


@pytest.mark.parametrize(
    ("name", "score_policy", "settings"),
    [
        ("grpo", ScorePolicy.old, {}),  # inline, with a KL term that both gradients have
        ("dgpo", ScorePolicy.old, {"minibatches": 2}),
        ("dgpo", ScorePolicy.current, {"minibatches": 2}),
    ],
    ids=["inline", "prescored", "current credit"],
)
def test_cosines_are_those_of_a_run_with_uniform_credit_and_move_nothing(
    policy: LanguageModel, reference: LanguageModel, name: str, score_policy: ScorePolicy, settings: dict[str, Any]
) -> None:
    algo, gate = options(name, "paper")
    gate = replace(gate, score_policy=score_policy, temperature=0.02)
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    settings = settings | {"weight_decay": 0.0}
    result, ours, model = run(policy, reference, algorithm, batch(ADVANTAGES), cosines=True, **settings)
    plain, same, unmoved = run(policy, reference, algorithm, batch(ADVANTAGES), **settings)
    _, uniform, other = run(policy, reference, algorithm.ungated(), batch(ADVANTAGES), **settings)
    expected = similarity(flat(ours.gradients[0]), flat(uniform.gradients[0]))
    assert result.cosines["credit/grad_cos"] == pytest.approx(expected, abs=1e-6)
    assert expected < 0.999
    assert plain.cosines == {}
    assert all(torch.equal(a, b) for a, b in zip(ours.gradients[0], same.gradients[0], strict=True))
    after = [one.model.state_dict() for one in (model, unmoved, other)]
    assert all(torch.equal(after[0][key], after[1][key]) for key in after[0])
    if not settings.get("minibatches"):  # after one update alone: weights - lr * direction
        before = policy.model.state_dict()
        keys = [key for key, _ in policy.model.named_parameters()]
        moved = [flat(weights[key] - before[key] for key in keys) for weights in (after[0], after[2])]
        assert result.cosines["credit/update_cos"] == pytest.approx(similarity(*moved), abs=1e-3)


def test_uniform_credit_is_not_held_against_itself(policy: LanguageModel) -> None:
    algorithm = Algorithm(*options("dapo"), max_completion_tokens=MAX_TOKENS)
    result, _, _ = run(policy, None, algorithm, batch(ADVANTAGES), cosines=True)
    assert result.cosines == {}
