"""What a gating needs: the rules by hand, and that the plan and the updates of training go by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.config.gating_needs import (
    needed_fields,
    needed_from_reference,
    needs_reference,
    needs_whole_batch,
    scores_each_update,
    scores_first,
)
from dgpo_cli.config.groups import AlgoConfig, GatingConfig, Normalizer, ScorePolicy, Signal
from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.planning.architecture import from_json
from dgpo_cli.planning.batches import Data
from dgpo_cli.planning.layout import Machine
from dgpo_cli.planning.plan import plan_training
from dgpo_cli.planning.plan_record import Plan
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.step import StepBatch
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

UNIFORM = GatingConfig()
PAPER = GatingConfig(signal=Signal.hellinger, entropy_exponent=1.0)
GATINGS = {
    "uniform": UNIFORM,
    "uniform, its gate set": GatingConfig(noise_gate=True),
    "paper": PAPER,
    "surprisal": GatingConfig(signal=Signal.surprisal),
    "surprisal, gated": GatingConfig(signal=Signal.surprisal, noise_gate=True),
    "saturated": GatingConfig(signal=Signal.entropy, normalizer=Normalizer.saturate),
    "top": GatingConfig(signal=Signal.entropy, top_fraction=0.2),
    "uniform, current": GatingConfig(score_policy=ScorePolicy.current),
    "paper, current": replace(PAPER, score_policy=ScorePolicy.current),
    "gated, current": replace(PAPER, noise_gate=True, score_policy=ScorePolicy.current),
}


def test_a_field_is_needed_by_the_setting_that_reads_it() -> None:
    assert needed_fields(UNIFORM) == needed_fields(GATINGS["uniform, its gate set"]) == {}
    assert needed_fields(PAPER) == {"hellinger": "gating.signal=hellinger", "entropy": "gating.entropy_exponent"}
    gated = GATINGS["surprisal, gated"]
    assert needed_fields(gated) == {"hellinger": "gating.noise_gate", "logprobs": "gating.signal=surprisal"}
    assert needed_from_reference(gated) == {"hellinger": "gating.noise_gate"}
    assert needed_from_reference(GATINGS["surprisal"]) == {}


def test_credit_that_a_whole_batch_decides() -> None:
    assert {name for name, gating in GATINGS.items() if needs_whole_batch(gating)} == {
        "surprisal, gated",
        "saturated",
        "top",
        "gated, current",
    }


def test_scoring_goes_first_before_several_updates_and_for_a_batch_in_parts() -> None:
    assert not scores_first(PAPER, updates=1, micro_batches=9)
    assert scores_first(PAPER, updates=2, micro_batches=1)
    assert scores_first(UNIFORM, updates=2, micro_batches=1)
    assert not scores_first(GATINGS["top"], updates=1, micro_batches=1)
    assert scores_first(GATINGS["top"], updates=1, micro_batches=2)


def test_the_only_update_of_a_step_has_the_policy_that_sampled() -> None:
    current = GATINGS["paper, current"]
    assert not scores_each_update(current, updates=1)
    assert scores_each_update(current, updates=2)
    assert not scores_each_update(PAPER, updates=2)
    assert not scores_each_update(GATINGS["uniform, current"], updates=2)


PROMPT, COMPLETION, GROUPS, SIZE = 4, 3, 2, 4


@pytest.fixture(scope="module")
def policy(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


@pytest.fixture(scope="module")
def base() -> TrainConfig:
    config: TrainConfig = compose("train", ["model=tiny"])
    rollout = replace(config.rollout, prompts_per_step=GROUPS, group_size=SIZE, max_completion_tokens=COMPLETION)
    return replace(config, rollout=rollout, benchmark=replace(config.benchmark, name=None))


def with_updates(base: TrainConfig, gating: GatingConfig, kl_coef: float, **optim: Any) -> TrainConfig:
    algo = replace(base.algo, kl_coef=kl_coef)
    return replace(base, gating=gating, algo=algo, optim=replace(base.optim, warmup_steps=0, **optim))


def step_batch() -> StepBatch:
    """Two groups of four rollouts, all of full length, each with an advantage."""
    rollouts = []
    for row in range(GROUPS * SIZE):
        ids = tuple(5 + (7 * row + 11 * place) % 200 for place in range(PROMPT + COMPLETION))
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", ids[:PROMPT])
        rollouts.append(Rollout(SampleRequest(prompt, row, 0), ids[PROMPT:], "", "stop"))
    count = len(rollouts)
    advantages = torch.tensor([1.0, -1.0] * (count // 2))
    return StepBatch(rollouts, [COMPLETION] * count, advantages, SIZE, list(range(count)))


@contextmanager
def passes_of(model: LanguageModel) -> Iterator[list[bool]]:
    """For each pass of the model's body within, in order: whether a gradient is taken of it."""
    seen: list[bool] = []
    handle = model.model.base_model.register_forward_pre_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    try:
        yield seen
    finally:
        handle.remove()


def trained(config: TrainConfig, policy: LanguageModel, reference: LanguageModel) -> tuple[list[bool], list[bool]]:
    """Passes of policy and reference in one step of the real updates; the policy's weights are put back."""
    before = {name: weight.clone() for name, weight in policy.model.state_dict().items()}
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=COMPLETION)
    optimizer = Optimizer(policy.model, config.optim)
    updater = Updater(policy, reference, algorithm, optimizer, config.optim, temperature=1.0)
    with passes_of(policy) as own, passes_of(reference) as others:
        updater.run(step_batch(), lr=1e-3, noise_floor=1e-7, guard=StopGuard(0.0))
    policy.model.load_state_dict(before)
    return own, others


def planned(config: TrainConfig, model: Path) -> Plan:
    data = Data(rows=GROUPS, longest_prompt=PROMPT)
    return plan_training(config, from_json(model / "config.json"), Machine(), data)


ONE, SEVERAL = GROUPS * SIZE * (PROMPT + COMPLETION), 2 * (PROMPT + COMPLETION)  # tokens of a micro-batch
COMBINATIONS: list[dict[str, Any]] = [
    {"minibatches": minibatches, "epochs": epochs, "tokens_per_microbatch": tokens}
    for minibatches, epochs in ((1, 1), (2, 1), (1, 2))
    for tokens in (ONE, SEVERAL)
]


@pytest.mark.parametrize("kl_coef", [0.0, 0.1])
@pytest.mark.parametrize("gating", GATINGS.values(), ids=list(GATINGS))
def test_the_plan_has_the_passes_that_training_makes(
    gating: GatingConfig, kl_coef: float, base: TrainConfig, policy: LanguageModel, random_model: Path
) -> None:
    reference = frozen_copy(policy)
    for optim in COMBINATIONS if not kl_coef else COMBINATIONS[:1]:
        config = with_updates(base, gating, kl_coef, **optim)
        own, others = trained(config, policy, reference)
        plan = planned(config, random_model)
        updates, parts = optim["minibatches"] * optim["epochs"], ONE // optim["tokens_per_microbatch"]
        assert own.count(True) >= updates
        scored = own.count(False)  # passes without a gradient, beside those that train
        assert bool(scored) is ("score" in plan.phases) is scores_first(gating, updates=updates, micro_batches=parts)
        assert (scored > own.count(True)) is scores_each_update(gating, updates=updates)
        assert bool(others) is (plan.memory["reference"] > 0) is needs_reference(config.algo, gating)


def test_several_processes_never_have_a_batch_in_one_micro_batch(base: TrainConfig, random_model: Path) -> None:
    """Credit of the whole batch is then scored first, although each process has one micro-batch."""

    def over(processes: int, gating: GatingConfig) -> Plan:
        config = with_updates(base, gating, 0.0, tokens_per_microbatch=ONE)
        strategy = replace(base.strategy, name="ddp", num_processes=processes, device=type(base.strategy.device).cpu)
        return planned(replace(config, strategy=strategy), random_model)

    assert over(2, GATINGS["top"]).batch["batch"]["micro_batches_per_update"] == 1
    assert "score" in over(2, GATINGS["top"]).phases
    assert "score" not in over(1, GATINGS["top"]).phases
    assert "score" not in over(2, PAPER).phases


def test_the_algorithm_goes_by_the_same_rules() -> None:
    for gating in GATINGS.values():
        algorithm = Algorithm(AlgoConfig(), gating, max_completion_tokens=4)
        assert algorithm.needs_reference is needs_reference(AlgoConfig(), gating)
        assert algorithm.credit_needs_batch is needs_whole_batch(gating)
        assert algorithm.gates is bool(needed_fields(gating))
