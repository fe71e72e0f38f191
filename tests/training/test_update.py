"""Updates against a naive float64 implementation, and the invariants of the pipeline."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from model_factory import save_random_model
from step_factory import ADVANTAGES, MAX_TOKENS, RecordingOptimizer, batch, naive_loss, options, run
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config import keys
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import LossAggregation
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.frozen import frozen_copy, renew, renewable_reference
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import add_adapter
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater

GATINGS = tuple(keys.options("gating"))
OVER_BATCH = {"top_entropy", "rsi", "gmts", "gmts_exact"}  # mean 1 over the batch, not over a rollout


@pytest.mark.parametrize("aggregation", list(LossAggregation))
@pytest.mark.parametrize(("name", "gating"), [("grpo", "uniform"), ("dapo", "paper"), ("dgpo", "calibrated")])
def test_loss_and_gradient_agree_with_naive_float64(
    policy: LanguageModel,
    reference: LanguageModel,
    name: str,
    gating: str,
    aggregation: LossAggregation,
) -> None:
    algo, gate = options(name, gating)
    algo = replace(algo, loss_aggregation=aggregation)
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    result, optimizer, _ = run(policy, reference, algorithm, batch(ADVANTAGES))
    assert result.credit is not None
    model = copy.deepcopy(policy.model).double()
    loss = naive_loss(model, copy.deepcopy(reference.model).double(), algo, batch(ADVANTAGES), result.credit.weights)
    loss.backward()
    assert result.tallies[0].loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
    for mine, parameter in zip(optimizer.gradients[0], model.parameters(), strict=True):
        scale = float(parameter.grad.abs().max())
        assert torch.allclose(mine.double(), parameter.grad, atol=2e-4 * scale + 1e-9)


@pytest.mark.parametrize(("name", "gating"), [("grpo", "uniform"), ("dgpo", "calibrated")])
def test_loss_and_gradient_of_an_adapter_agree_with_naive_float64(random_model: Path, name: str, gating: str) -> None:
    """The same naive step, policy and reference being two models there and one with its adapter on and off here."""
    policy = load_model(str(random_model))
    policy.adapter = add_adapter(policy.model, rank=3, alpha=6, target_modules=None, base="", revision=None, seed=1)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in policy.adapter.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    algo, gate = options(name, gating)
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    optim = replace(OptimConfig(), grad_clip=0.0, tokens_per_microbatch=40)
    optimizer = RecordingOptimizer(policy.model, optim)
    naive = copy.deepcopy(policy.model).double()
    frozen = load_model(str(random_model)).model.double()
    before = {key: value.clone() for key, value in policy.model.state_dict().items()}
    updater = Updater(policy, frozen_copy(policy), algorithm, optimizer, optim, temperature=1.0)
    result = updater.run(batch(ADVANTAGES), lr=1e-3, noise_floor=1e-7, guard=StopGuard(0.0))
    assert result.credit is not None
    assert result.signals is not None
    assert result.signals.hellinger is not None
    assert float(result.signals.hellinger.max()) > 1e-4
    loss = naive_loss(naive, frozen, algo, batch(ADVANTAGES), result.credit.weights)
    loss.backward()
    assert result.tallies[0].loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
    trained = [parameter for parameter in naive.parameters() if parameter.requires_grad]
    assert 0 < len(trained) == len(optimizer.gradients[0])
    for mine, parameter in zip(optimizer.gradients[0], trained, strict=True):
        scale = float(parameter.grad.abs().max())
        assert torch.allclose(mine.double(), parameter.grad, atol=2e-4 * scale + 1e-9)
    after = policy.model.state_dict()
    assert {key for key in after if not torch.equal(after[key], before[key])} == {
        key for key in after if "lora_" in key
    }


@pytest.mark.parametrize("gating", GATINGS)
def test_micro_batches_change_nothing(
    policy: LanguageModel,
    reference: LanguageModel,
    gating: str,
) -> None:
    algorithm = Algorithm(*options("dgpo", gating), max_completion_tokens=MAX_TOKENS)
    outcomes = [
        run(policy, reference, algorithm, batch(ADVANTAGES), tokens_per_microbatch=tokens) for tokens in (1, 40, 9999)
    ]
    (first, optimizer, _), others = outcomes[0], outcomes[1:]
    for result, other, _ in others:
        assert result.tallies[0].loss == pytest.approx(first.tallies[0].loss, rel=1e-4, abs=1e-6)
        assert result.credit is not None
        assert first.credit is not None
        assert torch.allclose(result.credit.weights, first.credit.weights, atol=1e-4)
        for left, right in zip(optimizer.gradients[0], other.gradients[0], strict=True):
            assert torch.allclose(left, right, atol=1e-3 * float(left.abs().max()) + 1e-9)


@pytest.mark.parametrize("gating", sorted(set(GATINGS) - OVER_BATCH))
def test_mean_credit_is_one_in_every_rollout(
    policy: LanguageModel,
    reference: LanguageModel,
    gating: str,
) -> None:
    algorithm = Algorithm(*options("dapo", gating), max_completion_tokens=MAX_TOKENS)
    result, _, _ = run(policy, reference, algorithm, batch(ADVANTAGES))
    assert result.credit is not None
    assert result.signals is not None
    sums = result.credit.weights.double().sum(1) / result.signals.mask.sum(1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-6)


def test_uniform_gating_is_grpo_bit_for_bit(policy: LanguageModel, reference: LanguageModel) -> None:
    weights = []
    for name in ("grpo", "dgpo"):
        algo, gate = options(name, "uniform")
        algorithm = Algorithm(replace(algo, kl_coef=0.0), gate, max_completion_tokens=MAX_TOKENS)
        assert not algorithm.needs_reference
        _, _, model = run(policy, None, algorithm, batch(ADVANTAGES))
        weights.append(model.model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_at_the_reference_every_gating_of_distance_is_uniform(policy: LanguageModel) -> None:
    for gating in ("paper", "hellinger", "calibrated"):
        algorithm = Algorithm(*options("dgpo", gating), max_completion_tokens=MAX_TOKENS)
        result, _, _ = run(policy, frozen_copy(policy), algorithm, batch(ADVANTAGES))
        assert result.signals is not None
        assert result.credit is not None
        assert result.signals.hellinger is not None
        assert bool((result.signals.hellinger == 0.0).all())
        assert torch.equal(result.credit.weights, result.signals.mask.float())


def test_a_rollout_without_counted_tokens_raises_nothing(policy: LanguageModel, reference: LanguageModel) -> None:
    algorithm = Algorithm(*options("dgpo", "calibrated"), max_completion_tokens=MAX_TOKENS)
    result, _, _ = run(policy, reference, algorithm, batch(ADVANTAGES, [3, 0, 5, 0, 2, 1, 4, 4]))
    assert math.isfinite(result.tallies[0].loss)
    assert result.tallies[0].tokens == 19


def adapted(path: Path, *, renewed: bool, checkpointing: bool) -> tuple[LanguageModel, LanguageModel]:
    """A policy with a fresh adapter, and its reference: the base, or an earlier adapter that can be renewed."""
    policy = load_model(str(path))
    policy.adapter = add_adapter(policy.model, rank=3, alpha=6, target_modules=None, base="", revision=None, seed=1)
    adapt_layers(policy.model, checkpointing=checkpointing, compiled=False)
    return policy, renewable_reference(policy, None) if renewed else frozen_copy(policy)


def whole(path: Path, *, checkpointing: bool) -> tuple[LanguageModel, LanguageModel]:
    policy = load_model(str(path))
    adapt_layers(policy.model, checkpointing=checkpointing, compiled=False)
    return policy, frozen_copy(policy)


def trained(
    policy: LanguageModel, reference: LanguageModel, algorithm: Algorithm, *, refresh: bool, **settings: Any
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of every update of three steps, the reference renewed after each, and the weights that came of them."""
    optim = replace(OptimConfig(), **settings)
    optimizer = Optimizer(policy.model, optim)
    updater = Updater(policy, reference, algorithm, optimizer, optim, temperature=1.0)
    losses = []
    for _ in range(3):
        result = updater.run(batch(ADVANTAGES), lr=1e-2, noise_floor=1e-9, guard=StopGuard(0.0))
        losses += [tally.loss for tally in result.tallies]
        if refresh:
            renew(reference, policy)
    return losses, {name: weight.detach().clone() for name, weight in optimizer.named}


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize(("name", "gating"), [("grpo", "uniform"), ("dgpo", "calibrated")])
def test_checkpointed_activations_change_no_bit(
    random_model: Path,
    name: str,
    gating: str,
    rank: int,
    refresh: bool,
    minibatches: int,
) -> None:
    algorithm = Algorithm(*options(name, gating), max_completion_tokens=MAX_TOKENS)
    outcomes = []
    for checkpointing in (False, True):
        make = partial(adapted, renewed=refresh) if rank else whole
        policy, reference = make(random_model, checkpointing=checkpointing)
        outcomes.append(trained(policy, reference, algorithm, refresh=refresh, minibatches=minibatches))
    (losses, weights), (again, same) = outcomes
    assert again == losses
    assert len(losses) == 3 * minibatches
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())
    assert any(bool(weight.any()) for name, weight in weights.items() if not rank or "lora_B" in name)


class HeadProducts(TorchDispatchMode):
    """Multiplications in products with rows of the head, [v, D]."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows, self.count = rows, 0

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_):
            left, right = arguments[-2:]
            if max(*left.shape, *right.shape) > self.rows:
                self.count += left.shape[0] * left.shape[1] * right.shape[1]
        return function(*arguments, **(options or {}))


def test_each_update_of_an_adapter_takes_two_products_with_the_head(tmp_path: Path) -> None:
    """Scoring before them: one for the policy, one for its distance. Then two an update for every token of it."""
    width, vocabulary = 32, 5000
    path = save_random_model(tmp_path / "model", vocab_size=vocabulary, hidden_size=width)
    policy, reference = adapted(path, renewed=False, checkpointing=False)
    algorithm = Algorithm(*options("dgpo", "paper"), max_completion_tokens=MAX_TOKENS)
    with HeadProducts(rows=2000) as products:
        trained(policy, reference, algorithm, refresh=False, minibatches=2, epochs=2)
    tokens = sum(batch(ADVANTAGES).lengths)
    assert products.count == 3 * (2 + 2 * 2) * tokens * width * vocabulary  # 3 steps, 2 epochs
