"""A signal in the middle of a step, sent to this process after a known micro-batch of a real update."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.compose import compose
from dgpo_cli.models.loading import load_model
from dgpo_cli.processes import Processes
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.stopping import StopGuard, StopRequested, UnfinishedStep
from dgpo_cli.training.update import StepBatch, Updater
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

ROLLOUTS = 8


def batch() -> StepBatch:
    """Two groups of four, each rollout a micro-batch of its own."""
    ids = torch.randint(2, 400, (ROLLOUTS, 9), generator=torch.Generator().manual_seed(1)).tolist()
    rollouts = [
        Rollout(
            SampleRequest(Prompt(Problem(0, "0", (("user", ""),), ""), "", tuple(row[:4])), 0, 0),
            tuple(row[4:]),
            "",
            "stop",
        )
        for row in ids
    ]
    return StepBatch(rollouts, [5] * ROLLOUTS, torch.tensor([1.0, -1.0] * 4), 4, list(range(ROLLOUTS)))


@pytest.fixture(scope="module")
def algorithm() -> Algorithm:
    config = compose("train", ["algo=grpo"])
    return Algorithm(config.algo, config.gating, max_completion_tokens=5)


class Step:
    """One step, with SIGUSR1 after the micro-batch of that number (from 1; scoring comes first), and what it did."""

    def __init__(
        self,
        model: Path,
        algorithm: Algorithm,
        *,
        signal_after: int | None,
        grace_seconds: float,
        minibatches: int = 1,
    ) -> None:
        settings = replace(OptimConfig(), tokens_per_microbatch=1, minibatches=minibatches)
        policy = load_model(str(model))
        self.weights = list(policy.model.parameters())
        self.before = [weight.detach().clone() for weight in self.weights]
        self.guard = StopGuard(grace_seconds, ["SIGUSR1"])
        self.micro_batches = 0

        def beat() -> None:
            self.micro_batches += 1
            if self.micro_batches == signal_after:
                os.kill(os.getpid(), signal.SIGUSR1)

        updater = Updater(
            policy,
            None,
            algorithm,
            Optimizer(policy.model, settings),
            settings,
            temperature=1.0,
            processes=Processes(beat=beat),
        )
        self.ended = "done"
        with self.guard.listening(), suppress(StopRequested), self.guard.protected():
            try:
                updater.run(batch(), lr=1e-2, noise_floor=0.0, guard=self.guard)
            except (StopRequested, UnfinishedStep) as stop:
                self.ended = type(stop).__name__

    @property
    def moved(self) -> bool:
        return not all(torch.equal(now, then) for now, then in zip(self.weights, self.before, strict=True))


@pytest.mark.parametrize(("minibatches", "at"), [(1, 1), (1, 5), (1, 8), (2, 3), (2, 8), (2, 10), (2, 12)])
def test_before_the_first_update_the_step_is_abandoned_after_the_micro_batch(
    random_model: Path, algorithm: Algorithm, minibatches: int, at: int
) -> None:
    """Whatever the grace time. Of two updates a step, 8 micro-batches are scored and 4 trained before the first."""
    step = Step(random_model, algorithm, signal_after=at, grace_seconds=1000.0, minibatches=minibatches)
    assert (step.ended, step.micro_batches) == ("StopRequested", at)
    assert not step.moved
    assert all(weight.grad is None for weight in step.weights)


@pytest.mark.parametrize(("grace_seconds", "ended", "at"), [(1000.0, "done", 16), (0.0, "UnfinishedStep", 13)])
def test_after_it_the_step_is_finished_if_that_fits_the_grace_time(
    random_model: Path, algorithm: Algorithm, grace_seconds: float, ended: str, at: int
) -> None:
    step = Step(random_model, algorithm, signal_after=13, grace_seconds=grace_seconds, minibatches=2)
    assert (step.ended, step.micro_batches) == (ended, at)
    assert step.moved
    assert step.guard.received == signal.SIGUSR1


def test_without_a_signal_the_step_is_done_whatever_the_grace_time(random_model: Path, algorithm: Algorithm) -> None:
    step = Step(random_model, algorithm, signal_after=None, grace_seconds=0.0, minibatches=2)
    assert (step.ended, step.micro_batches) == ("done", 16)
