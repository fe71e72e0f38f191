"""Updates against a naive float64 implementation, and the invariants of the pipeline."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from model_factory import save_random_model
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import AlgoConfig, GatingConfig, LossAggregation, ScorePolicy
from dgpo_cli.models.adapted_layers import adapt_layers
from dgpo_cli.models.frozen import frozen_copy, renew, renewable_reference
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.lora import add_adapter
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.stopping import StopGuard
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
    result = updater.run(step, lr=1e-3, noise_floor=1e-7, guard=StopGuard(0.0), terms=terms)
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
        result, _, _ = run(policy, frozen_copy(policy), algorithm, batch(ADVANTAGES))
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
    result, _, model = run(policy, frozen_copy(policy), algorithm, step)
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
    policy: LanguageModel, reference: LanguageModel, algorithm: Algorithm, *, refresh: bool, **settings: int
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
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
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


def test_each_update_of_an_adapter_takes_two_products_with_the_head(
    tmp_path: Path, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    """Scoring before them: one for the policy, one for its distance. Then two an update for every token of it."""
    width, vocabulary = 32, 5000
    path = save_random_model(tmp_path / "model", vocab_size=vocabulary, hidden_size=width)
    policy, reference = adapted(path, renewed=False, checkpointing=False)
    algorithm = Algorithm(*options("dgpo", "paper"), max_completion_tokens=MAX_TOKENS)
    with HeadProducts(rows=2000) as products:
        trained(policy, reference, algorithm, refresh=False, minibatches=2, epochs=2)
    tokens = sum(batch(ADVANTAGES).lengths)
    assert products.count == 3 * (2 + 2 * 2) * tokens * width * vocabulary  # 3 steps, 2 epochs


def current(options: Callable[..., tuple[AlgoConfig, GatingConfig]], gating: str, name: str = "dgpo") -> Algorithm:
    algo, gate = options(name, gating)
    gate = replace(gate, score_policy=ScorePolicy.current, temperature=0.02 if gating == "paper" else gate.temperature)
    return Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)


@pytest.mark.parametrize("gating", ["paper", "calibrated", "top_entropy", "random"])
def test_credit_by_the_current_policy_is_reported_as_it_was_used(
    policy: LanguageModel,
    reference: LanguageModel,
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
    gating: str,
) -> None:
    """2 minibatches x 2 epochs, each scored here again by a model that took the updates before it one by one."""
    algorithm = current(options, gating)
    result, _, _ = run(policy, reference, algorithm, batch(ADVANTAGES), minibatches=2, epochs=2)
    model = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer, policy.path, policy.has_head)
    optim = replace(OptimConfig(), warmup_steps=0, grad_clip=0.0, minibatches=2, epochs=2)
    weights, diagnostics = torch.zeros(8, 9), []
    found: list[Credit] = []

    class Watching(Optimizer):
        """The real one; before each update it scores the minibatch with the weights as they are."""

        def update(self, lr: float, loss: float = 0.0) -> UpdateOutcome:
            rows = [0, 1, 2, 3] if len(found) % 2 == 0 else [4, 5, 6, 7]
            step = batch(ADVANTAGES)
            signals = score_rollouts(
                model, reference, step.rollouts, step.lengths, temperature=1.0, tokens=16384, rows=rows
            )
            found.append(
                algorithm.credit(
                    signals,
                    vocabulary_size=model.vocabulary_size,
                    noise_floor=1e-7,
                    control_seeds=step.control_seeds,
                )
            )
            diagnostics.append(algorithm.diagnostics(signals, found[-1], step.advantages))
            weights[rows] += found[-1].weights[rows] / 2
            return super().update(lr, loss)

    updater = Updater(model, reference, algorithm, Watching(model.model, optim), optim, temperature=1.0)
    updater.run(batch(ADVANTAGES), lr=1e-3, noise_floor=1e-7, guard=StopGuard(0.0))
    assert len(found) == 4
    assert result.credit is not None
    assert result.used is not None
    assert torch.equal(result.credit.weights, weights)
    assert result.used.times() == [2] * 8
    names = {"credit/ess", "credit/max", "credit/std", "score/mean", "credit/noise_gate"}
    for name in names | ({"hellinger/max"} if algorithm.needs_reference else set()):
        values = [one[name] for one in diagnostics]
        assert result.used.diagnostics()[name] == pytest.approx(sum(values) / 4, rel=1e-12)
    first = algorithm.diagnostics(result.signals, found[0], batch(ADVANTAGES).advantages)
    assert result.used.diagnostics()["credit/ess"] != first["credit/ess"]


@pytest.mark.parametrize("gating", ["paper", "top_entropy"])
def test_the_reference_runs_once_a_step_however_often_the_policy_is_scored(
    policy: LanguageModel,
    reference: LanguageModel,
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
    gating: str,
) -> None:
    tokens = 0

    def counted(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        nonlocal tokens
        mask = inputs["attention_mask"]
        tokens += inputs["input_ids"].numel() if mask is None else int(mask.sum())

    hook = reference.model.model.register_forward_pre_hook(counted, with_kwargs=True)
    step = batch(ADVANTAGES)
    try:
        run(policy, reference, current(options, gating, "grpo"), step, True, minibatches=2, epochs=3)
    finally:
        hook.remove()
    lengths = [len(rollout.request.prompt.token_ids) + len(rollout.token_ids) for rollout in step.rollouts]
    assert tokens == sum(lengths)


def test_one_update_by_the_current_policy_is_one_by_the_policy_that_sampled(
    policy: LanguageModel, reference: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    algorithm = current(options, "paper")
    old = Algorithm(
        algorithm.algo,
        replace(algorithm.gating, score_policy=ScorePolicy.old),
        max_completion_tokens=MAX_TOKENS,
    )
    ours, _, model = run(policy, reference, algorithm, batch(ADVANTAGES))
    theirs, _, same = run(policy, reference, old, batch(ADVANTAGES))
    assert ours.used is None
    assert ours.credit is not None
    assert theirs.credit is not None
    assert torch.equal(ours.credit.weights, theirs.credit.weights)
    assert all(torch.equal(a, b) for a, b in zip(model.model.parameters(), same.model.parameters(), strict=True))


def test_an_update_that_was_not_applied_used_no_credit(
    policy: LanguageModel, reference: LanguageModel, options: Callable[..., tuple[AlgoConfig, GatingConfig]]
) -> None:
    """Of three minibatches the first has no finite gradient and the second no signal: the third alone counts."""
    algorithm = current(options, "paper")
    advantages = [math.inf, 0.0, 0.0, 0.0, *[0.0] * 4, *ADVANTAGES[:3], 0.0]
    result, _, _ = run(policy, reference, algorithm, batch(advantages), minibatches=3)
    assert result.used is not None
    assert result.used.times() == [0] * 8 + [1, 1, 1, 0]
    assert (result.skipped, result.nonfinite, result.nonfinite_streak) == (2, 1, 0)
    assert result.credit is not None
    assert not result.credit.weights[:8].any()
    assert result.credit.weights[8:11].sum(1).tolist() == pytest.approx([3, 5, 7], rel=1e-5)  # mean 1 over the tokens


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
    options: Callable[..., tuple[AlgoConfig, GatingConfig]],
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
