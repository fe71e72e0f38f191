"""Updates against a naive float64 implementation, and the invariants of the pipeline."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model
from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import AlgoConfig, GatingConfig, LossAggregation
from dgpo_cli.lora import add_adapter
from dgpo_cli.models import LanguageModel, load_model
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.signals import SignalGuard
from dgpo_cli.training.update import StepBatch, StepResult, Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

GROUP = 4
MAX_TOKENS = 12
GATINGS = ("uniform", "paper", "hellinger", "calibrated", "surprisal", "top_entropy", "random")


class RecordingOptimizer(Optimizer):
    """The real optimizer; it also keeps the gradients that it was given."""

    def __init__(self, model: torch.nn.Module, settings: OptimConfig) -> None:
        super().__init__(model, settings)
        self.gradients: list[list[Tensor]] = []

    def update(self, lr: float, loss: float = 0.0) -> UpdateOutcome:
        self.gradients.append([parameter.grad.clone() for parameter in self.parameters])
        return super().update(lr, loss)


@pytest.fixture(scope="module")
def policy(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(str(save_random_model(tmp_path_factory.mktemp("m") / "reference", seed=3)))


@pytest.fixture(scope="module")
def options() -> Callable[..., tuple[AlgoConfig, GatingConfig]]:
    """The settings of an algo and a gating option, as the command composes them."""

    def composed(algo: str, gating: str = "uniform") -> tuple[AlgoConfig, GatingConfig]:
        config = compose("train", [f"algo={algo}", f"gating={gating}"])
        return config.algo, config.gating

    return composed


def batch(advantages: list[float], lengths: list[int] | None = None) -> StepBatch:
    generator = torch.Generator().manual_seed(5)
    lengths = lengths or [3 + 2 * (row % 4) for row in range(len(advantages))]
    rollouts = []
    for row, length in enumerate(lengths):
        ids = torch.randint(2, 400, (5 + row % 3 + length,), generator=generator).tolist()
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(ids[: len(ids) - length]))
        rollouts.append(Rollout(SampleRequest(prompt, row, 0), tuple(ids[len(ids) - length :]), "", "stop"))
    return StepBatch(rollouts, lengths, torch.tensor(advantages), GROUP, list(range(len(advantages))))


ADVANTAGES = [1.2, -0.4, -0.4, -0.4, 0.9, 0.9, -0.9, -0.9]


def run(
    policy: LanguageModel,
    reference: LanguageModel | None,
    algorithm: Algorithm,
    step: StepBatch,
    terms: bool = False,
    **settings: float | int,
) -> tuple[StepResult, RecordingOptimizer, LanguageModel]:
    """One step on a copy of the policy."""
    model = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer, policy.path, policy.has_head)
    optim = replace(OptimConfig(), warmup_steps=0, grad_clip=0.0, **settings)
    optimizer = RecordingOptimizer(model.model, optim)
    updater = Updater(model, reference, algorithm, optimizer, optim, temperature=1.0)
    result = updater.run(step, lr=1e-3, noise_floor=1e-7, signals=SignalGuard(0.0), terms=terms)
    return result, optimizer, model


def naive_loss(
    model: torch.nn.Module, reference: torch.nn.Module, algo: AlgoConfig, step: StepBatch, credit: Tensor
) -> Tensor:
    """The loss of ALGORITHMS in float64, rollout by rollout, on plain transformers logits; old = current policy."""
    total = torch.zeros((), dtype=torch.float64)
    for row, rollout in enumerate(step.rollouts):
        length = step.lengths[row]
        ids = torch.tensor([[*rollout.request.prompt.token_ids, *rollout.token_ids]])
        start = ids.shape[1] - length
        chosen = ids[0, start:, None]
        logp = torch.log_softmax(model(ids).logits[0, start - 1 : -1], -1).gather(1, chosen)[:, 0]
        with torch.no_grad():
            logq = torch.log_softmax(reference(ids).logits[0, start - 1 : -1], -1).gather(1, chosen)[:, 0]
        ratio, advantage = (logp - logp.detach()).exp(), float(step.advantages[row])
        clipped = ratio.clamp(1 - algo.clip_low, 1 + algo.clip_high)
        token = -credit[row, :length].double() * torch.minimum(ratio * advantage, clipped * advantage)
        token = token + algo.kl_coef * ((logq - logp).exp() - (logq - logp) - 1)
        if algo.loss_aggregation is LossAggregation.rollout_mean:
            total = total + token.sum() / length / len(step.rollouts)
        elif algo.loss_aggregation is LossAggregation.token_mean:
            total = total + token.sum() / sum(step.lengths)
        else:
            total = total + token.sum() / (len(step.rollouts) * MAX_TOKENS)
    return total


@pytest.mark.parametrize("aggregation", list(LossAggregation))
@pytest.mark.parametrize(("name", "gating"), [("grpo", "uniform"), ("dapo", "paper"), ("dgpo", "calibrated")])
def test_loss_and_gradient_agree_with_naive_float64(
    policy: LanguageModel,
    reference: LanguageModel,
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
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
def test_loss_and_gradient_of_an_adapter_agree_with_naive_float64(
    random_model: Path, options: Callable[..., tuple[AlgoConfig, GatingConfig]], name: str, gating: str
) -> None:
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
    updater = Updater(policy, policy.frozen_copy(), algorithm, optimizer, optim, temperature=1.0)
    result = updater.run(batch(ADVANTAGES), lr=1e-3, noise_floor=1e-7, signals=SignalGuard(0.0))
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
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
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


@pytest.mark.parametrize("gating", sorted(set(GATINGS) - {"top_entropy"}))
def test_mean_credit_is_one_in_every_rollout(
    policy: LanguageModel,
    reference: LanguageModel,
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
    gating: str,
) -> None:
    algorithm = Algorithm(*options("dapo", gating), max_completion_tokens=MAX_TOKENS)
    result, _, _ = run(policy, reference, algorithm, batch(ADVANTAGES))
    assert result.credit is not None
    assert result.signals is not None
    sums = result.credit.weights.double().sum(1) / result.signals.mask.sum(1)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-6)


def test_uniform_gating_is_grpo_bit_for_bit(
    policy: LanguageModel, reference: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    weights = []
    for name in ("grpo", "dgpo"):
        algo, gate = options(name, "uniform")
        algorithm = Algorithm(replace(algo, kl_coef=0.0), gate, max_completion_tokens=MAX_TOKENS)
        assert not algorithm.needs_reference
        _, _, model = run(policy, None, algorithm, batch(ADVANTAGES))
        weights.append(model.model.state_dict())
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_at_the_reference_every_gating_of_distance_is_uniform(
    policy: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    for gating in ("paper", "hellinger", "calibrated"):
        algorithm = Algorithm(*options("dgpo", gating), max_completion_tokens=MAX_TOKENS)
        result, _, _ = run(policy, policy.frozen_copy(), algorithm, batch(ADVANTAGES))
        assert result.signals is not None
        assert result.credit is not None
        assert result.signals.hellinger is not None
        assert bool((result.signals.hellinger == 0.0).all())
        assert torch.equal(result.credit.weights, result.signals.mask.float())


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
def test_equal_rewards_move_no_weight_without_kl(
    policy: LanguageModel,
    reference: LanguageModel,
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
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


def test_rollouts_without_signal_stay_in_the_denominator(
    policy: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    algo, gate = options("dapo")
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    alone, _, _ = run(policy, None, algorithm, batch(ADVANTAGES[:4], [4] * 4))
    beside, _, _ = run(policy, None, algorithm, batch(ADVANTAGES[:4] + [0.0] * 4, [4] * 8))
    assert beside.tallies[0].loss == pytest.approx(alone.tallies[0].loss / 2, rel=1e-5)


def test_a_rollout_without_counted_tokens_raises_nothing(
    policy: LanguageModel, reference: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    algorithm = Algorithm(*options("dgpo", "calibrated"), max_completion_tokens=MAX_TOKENS)
    result, _, _ = run(policy, reference, algorithm, batch(ADVANTAGES, [3, 0, 5, 0, 2, 1, 4, 4]))
    assert math.isfinite(result.tallies[0].loss)
    assert result.tallies[0].tokens == 19


@pytest.mark.parametrize("score_policy", ["old", "current"])
def test_minibatches_and_epochs_update_so_often(
    policy: LanguageModel,
    reference: LanguageModel,
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
    score_policy: str,
) -> None:
    algo, gate = options("dgpo", "paper")
    gate = replace(gate, score_policy=type(gate.score_policy)[score_policy])
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    result, optimizer, _ = run(policy, reference, algorithm, batch(ADVANTAGES), minibatches=2, epochs=3)
    assert len(result.outcomes) == len(optimizer.gradients) == 6
    assert result.tallies[0].ratio_error / result.tallies[0].tokens < 1e-6
    assert result.tallies[2].ratio_error / result.tallies[2].tokens > 1e-4


def test_first_of_several_minibatches_has_its_own_denominator(
    policy: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    algo, gate = options("grpo")
    algorithm = Algorithm(replace(algo, kl_coef=0.0), gate, max_completion_tokens=MAX_TOKENS)
    halves, optimizer, _ = run(policy, None, algorithm, batch(ADVANTAGES), minibatches=2)
    alone, other, _ = run(policy, None, algorithm, batch(ADVANTAGES[:4]))
    assert halves.tallies[0].loss == pytest.approx(alone.tallies[0].loss, rel=1e-5, abs=1e-6)
    for left, right in zip(optimizer.gradients[0], other.gradients[0], strict=True):
        assert torch.allclose(left, right, atol=1e-5 * float(right.abs().max()) + 1e-9)


def test_a_gradient_that_is_not_finite_is_skipped(
    policy: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    algorithm = Algorithm(*options("grpo"), max_completion_tokens=MAX_TOKENS)
    step = batch([float("inf"), 0.0, 0.0, 0.0, 1.0, 1.0, -1.0, -1.0])
    result, _, model = run(policy, policy.frozen_copy(), algorithm, step)
    assert result.nonfinite == result.skipped == 1
    assert all(
        torch.equal(left, right)
        for left, right in zip(policy.model.parameters(), model.model.parameters(), strict=True)
    )


def test_the_terms_gradient_norms_are_those_of_each_alone_and_move_nothing(
    policy: LanguageModel, reference: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
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
