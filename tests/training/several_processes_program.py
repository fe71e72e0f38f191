"""One process of several that take real updates on stored rollouts, started by test_several_processes.py.

Arguments: two models' folders (tied head, head of its own). Rank 0 does the same alone first, and prints one JSON
object a case: how far gradient, loss and weights are from there. Then a step that a signal to the last rank stops.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.environment import place
from dgpo_cli.meeting import meet
from dgpo_cli.models.frozen import frozen_copy, renew, renewable_reference
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.placement import Placement
from dgpo_cli.models.policy import load_trainee
from dgpo_cli.models.sharding import full, is_sharded, local
from dgpo_cli.processes import SOLO, Processes, join, leave
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.step import StepBatch, StepResult
from dgpo_cli.training.stopping import StopGuard, StopRequested
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

STEPS = 4
GROUP = 4
LENGTHS = [300, 3, 5, 2, 9, 40, 7, 1, 12, 6, 3, 30, 8, 0, 4, 5]  # one long beside many short ones
CASES = {
    "dgpo": ["algo=dgpo"],
    "dgpo calibrated, 2 minibatches x 2 epochs": ["gating=calibrated", "optim.minibatches=2", "optim.epochs=2"],
    "grpo with KL": ["algo=grpo", "optim.minibatches=2"],
    "dapo, current scores, top entropy": ["algo=dapo", "gating=top_entropy", "gating.score_policy=current"],
    "LoRA": ["model.lora.rank=4", "algo=dgpo", "gating=calibrated"],
    "LoRA, checkpointed, 2 minibatches": [
        *("model.lora.rank=4", "algo=grpo", "optim.minibatches=2", "strategy.activation_checkpointing=true"),
    ],
    "LoRA, renewed reference, checkpointed, current scores": [
        *("model.lora.rank=4", "algo=grpo", "gating=paper", "gating.score_policy=current", "gating.temperature=0.01"),
        *("optim.minibatches=2", "optim.epochs=2", "reference.refresh_every=1"),
        "strategy.activation_checkpointing=true",
    ],
    "checkpointed activations": ["algo=dgpo", "strategy.activation_checkpointing=true"],
    "sequences shared by two, current scores, KL, checkpointed": [
        *("algo=grpo", "algo.kl_coef=0.04", "gating=top_entropy", "gating.score_policy=current", "optim.minibatches=2"),
        *("optim.epochs=2", "strategy.activation_checkpointing=true", "strategy.sequence_parallel=2"),
    ],
    "sequences shared by two, LoRA": ["algo=dgpo", "model.lora.rank=4", "strategy.sequence_parallel=2"],
    "padded": ["algo=grpo", "optim.minibatches=2", "strategy.packing=false"],
}


class Recording(Optimizer):
    """The real one, which also keeps the first whole gradient that it was given."""

    gradient: dict[str, Tensor] | None = None

    def clipped_norm(self, limit: float) -> float:
        if self.gradient is None:
            self.gradient = {name: full(weight.grad).clone() for name, weight in self.named if weight.grad is not None}
        return super().clipped_norm(limit)


def batch() -> StepBatch:
    generator = torch.Generator().manual_seed(3)
    rollouts = []
    for row, length in enumerate(LENGTHS):
        ids = torch.randint(2, 60, (6 + row % 3 + length,), generator=generator).tolist()
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(ids[: 6 + row % 3]))
        rollouts.append(Rollout(SampleRequest(prompt, row, 0), tuple(ids[6 + row % 3 :]), "", "stop"))
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5] * (len(LENGTHS) // GROUP))
    return StepBatch(rollouts, LENGTHS, advantages, GROUP, list(range(len(rollouts))))


def steps(config: TrainConfig, placement: Placement) -> tuple[list[StepResult], dict[str, Tensor], dict[str, Tensor]]:
    """Some steps from the loaded model, against a reference that is another one: results, first gradient, weights."""
    policy = load_trainee(config.model, placement, None, seed=0).model
    algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=max(LENGTHS))
    offloaded = config.strategy.name == "fsdp_offload"
    optimizer = Recording(policy.model, config.optim, placement.processes, offloaded=offloaded)
    refresh = bool(config.reference.refresh_every)
    if policy.adapter:
        reference = renewable_reference(policy, None) if refresh else frozen_copy(policy)
    else:
        reference = placement.reference(moved(config, placement.loads_on) if placement.loads_here else None)
    updater = Updater(
        policy, reference, algorithm, optimizer, config.optim, temperature=0.9, processes=placement.processes
    )
    results = []
    for _ in range(STEPS):
        results.append(updater.run(batch(), lr=1e-3, noise_floor=1e-9, guard=StopGuard(0.0)))
        if refresh:
            renew(reference, policy)
    weights = {name: full(weight.detach()).clone() for name, weight in optimizer.named}
    with torch.no_grad():  # what comes after an evaluation finds the weights where they belong, and as float32
        policy.hidden_states(torch.tensor([[5, 6, 7]]))
    for weight in policy.model.parameters():
        assert weight.dtype == torch.float32
        assert is_sharded(weight) == placement.shards
    if not policy.adapter:
        renew(reference, policy)
        for mine, theirs in zip(reference.model.parameters(), policy.model.parameters(), strict=True):
            assert torch.equal(local(mine), local(theirs))
    assert optimizer.gradient is not None
    return results, optimizer.gradient, weights


def moved(config: TrainConfig, device: str) -> LanguageModel:
    """The policy's model with every weight a little off."""
    model = load_model(str(config.model.path), device=device)
    with torch.no_grad():
        for number, weight in enumerate(model.model.parameters()):
            weight.mul_(1.0 + 0.05 * (number % 3))
    model.model.requires_grad_(False)
    return model


def relative(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    off = sum(float((ours[name] - theirs[name]).double().square().sum()) for name in ours)
    whole = sum(float(value.double().square().sum()) for value in theirs.values())
    return float((off / whole) ** 0.5)


def compared(name: str, model: str, strategies: list[str], processes: Processes) -> None:
    overrides = [*CASES[name], f"model.path={model}", "optim.tokens_per_microbatch=400", "strategy.device=cpu"]
    config = compose("train", overrides)
    alone = None
    if processes.main:
        alone = steps(config, Placement(replace(config.strategy, sequence_parallel=1), "cpu", SOLO))
    if config.reference.refresh_every:  # two adapters in one model are not sharded
        strategies = [strategy for strategy in strategies if strategy == "ddp"]
    for strategy in strategies:
        setting = replace(config.strategy, name=strategy)
        results, gradient, weights = steps(replace(config, strategy=setting), Placement(setting, "cpu", processes))
        if alone is None:
            continue
        record: dict[str, Any] = {
            "case": name,
            "strategy": strategy,
            "processes": processes.size,
            "gradient": relative(gradient, alone[1]),
            "weights": relative(weights, alone[2]),
            "loss": max(
                abs(ours.loss - theirs.loss)
                for mine, other in zip(results, alone[0], strict=True)
                for ours, theirs in zip(mine.tallies, other.tallies, strict=True)
            ),
            "tokens": [[tally.tokens for tally in result.tallies] for result in results]
            == [[tally.tokens for tally in result.tallies] for result in alone[0]],
        }
        print(json.dumps(record), flush=True)


def stopped(model: str, strategy: str, processes: Processes, *, at: int) -> None:
    """A signal to the last rank, at its beat number `at`, stops all of them, and the step done again is the same."""
    overrides = ["algo=dapo", "optim.minibatches=2", "strategy.device=cpu", "strategy.packing=false"]
    config = compose("train", [*overrides, f"model.path={model}"])
    settings = replace(config.optim, tokens_per_microbatch=100)
    placement = Placement(replace(config.strategy, name=strategy), "cpu", processes)
    signals, beats = StopGuard(0.0, ["SIGUSR1"]), 0
    signals.share(processes)

    def beat() -> None:
        nonlocal beats
        beats += 1
        if beats == at and processes.rank == processes.size - 1:
            os.kill(os.getpid(), signal.SIGUSR1)

    def stepped(*guards: StopGuard) -> tuple[list[bool], dict[str, Tensor]]:
        """Whether each try at the first step was stopped, and the weights after them."""
        policy = load_trainee(config.model, placement, None, seed=0).model
        algorithm = Algorithm(config.algo, config.gating, max_completion_tokens=max(LENGTHS))
        optimizer = Optimizer(policy.model, settings, processes)
        updater = Updater(policy, None, algorithm, optimizer, settings, temperature=0.9, processes=processes)
        were_stopped = []
        processes.beat = beat
        for guard in guards:
            try:
                updater.run(batch(), lr=1e-3, noise_floor=0.0, guard=guard)
                were_stopped.append(False)
            except StopRequested:
                were_stopped.append(True)
        processes.beat = lambda: None
        return were_stopped, {name: full(weight.detach()).clone() for name, weight in optimizer.named}

    with signals.listening():
        signals.hold()
        was_stopped, again = stepped(signals, StopGuard(0.0))
    _, whole = stepped(StopGuard(0.0))
    everywhere = processes.gathered(was_stopped)
    if processes.main:
        same = all(torch.equal(again[name], weight) for name, weight in whole.items())
        print(json.dumps({"strategy": strategy, "at": at, "stopped": everywhere, "same": same}), flush=True)


def main() -> None:
    torch.set_num_threads(1)
    here = place()
    assert here is not None
    processes = join(meet(here, 120), device="cpu", connect_seconds=120)
    tied, own_head, *strategies = sys.argv[1:]
    for name in CASES:
        if processes.size % 2 and "shared by two" in name:
            continue
        compared(name, tied, strategies, processes)
    compared("dgpo", own_head, strategies, processes)
    for strategy in strategies:
        # In the scores, and in the first gradient; a share of four processes is too small to be that far by then.
        for at in (1, 12) if processes.size <= 2 else (1,):
            stopped(tied, strategy, processes, at=at)
    leave()


if __name__ == "__main__":
    main()
