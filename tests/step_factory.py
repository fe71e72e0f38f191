"""Small steps of real updates, for tests: their batches, a run of one, and the same loss in plain float64."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import AlgoConfig, GatingConfig, LossAggregation, ScorePolicy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.training.correction import UNCORRECTED, Correction
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.step import StepBatch, StepResult
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

GROUP = 4
MAX_TOKENS = 12
ADVANTAGES = [1.2, -0.4, -0.4, -0.4, 0.9, 0.9, -0.9, -0.9]


class RecordingOptimizer(Optimizer):
    """The real optimizer; it also keeps the gradients that it was given."""

    def __init__(self, model: torch.nn.Module, settings: OptimConfig) -> None:
        super().__init__(model, settings)
        self.gradients: list[list[Tensor]] = []

    def update(self, lr: float, loss: float = 0.0) -> UpdateOutcome:
        gradients = [parameter.grad for parameter in self.parameters]
        self.gradients.append([gradient.clone() for gradient in gradients if gradient is not None])
        return super().update(lr, loss)


@cache
def options(algo: str, gating: str = "uniform") -> tuple[AlgoConfig, GatingConfig]:
    """The settings of an algo and a gating option, as the command composes them."""
    config = compose("train", [f"algo={algo}", f"gating={gating}"])
    return config.algo, config.gating


def batch(advantages: list[float], lengths: list[int] | None = None) -> StepBatch:
    """Rollouts of random ids, in groups of four, of 3, 5, 7 and 9 tokens unless `lengths` says otherwise."""
    generator = torch.Generator().manual_seed(5)
    lengths = lengths or [3 + 2 * (row % 4) for row in range(len(advantages))]
    rollouts = []
    for row, length in enumerate(lengths):
        ids = torch.randint(2, 400, (5 + row % 3 + length,), generator=generator).tolist()
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(ids[: len(ids) - length]))
        rollouts.append(Rollout(SampleRequest(prompt, row, 0), tuple(ids[len(ids) - length :]), "", "stop"))
    places = [None if advantage > 0 else row % 3 for row, advantage in enumerate(advantages)]
    seeds = list(range(len(advantages)))
    return StepBatch(rollouts, lengths, torch.tensor(advantages), GROUP, seeds, first_errors=places)


def run(
    policy: LanguageModel,
    reference: LanguageModel | None,
    algorithm: Algorithm,
    step: StepBatch,
    terms: bool = False,
    cosines: bool = False,
    off_policy: Correction = UNCORRECTED,
    **settings: Any,
) -> tuple[StepResult, RecordingOptimizer, LanguageModel]:
    """One step on a copy of the policy."""
    model = LanguageModel(copy.deepcopy(policy.model), policy.tokenizer, policy.path, policy.has_head)
    optim = replace(OptimConfig(), warmup_steps=0, grad_clip=0.0, **settings)
    optimizer = RecordingOptimizer(model.model, optim)
    updater = Updater(model, reference, algorithm, optimizer, optim, temperature=1.0, off_policy=off_policy)
    result = updater.run(step, lr=1e-3, noise_floor=1e-7, guard=StopGuard(0.0), terms=terms, cosines=cosines)
    return result, optimizer, model


def naive_loss(
    model: torch.nn.Module, reference: torch.nn.Module, algo: AlgoConfig, step: StepBatch, credit: Tensor
) -> Tensor:
    """The loss in float64, rollout by rollout, on plain transformers logits. Old log-probs are its own."""
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


def current(gating: str, name: str = "dgpo") -> Algorithm:
    """An algorithm whose every update gets credit by the policy as it is then."""
    algo, gate = options(name, gating)
    gate = replace(gate, score_policy=ScorePolicy.current, temperature=0.02 if gating == "paper" else gate.temperature)
    return Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
