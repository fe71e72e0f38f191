"""Credit by a scoring pass of its own: once a step, or before each update."""

from __future__ import annotations

import copy
import gc
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from step_factory import ADVANTAGES, MAX_TOKENS, batch, current, run

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.groups import ScorePolicy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.training.current_credit import ReferenceStates
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.stopping import StopGuard, StopRequested
from dgpo_cli.training.update import Updater


@pytest.mark.parametrize("gating", ["paper", "calibrated", "top_entropy", "random"])
def test_credit_by_the_current_policy_is_reported_as_it_was_used(
    policy: LanguageModel,
    reference: LanguageModel,
    gating: str,
) -> None:
    """2 minibatches x 2 epochs, each scored here again by a model that took the updates before it one by one."""
    algorithm = current(gating)
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
                    advantages=step.advantages,
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
    assert result.signals is not None
    assert torch.equal(result.credit.weights, weights)
    assert result.used.times() == [2] * 8
    names = {"credit/ess", "credit/max", "credit/std", "score/mean", "credit/noise_gate"}
    for name in names | ({"hellinger/max"} if algorithm.needs_reference else set()):
        values = [value for one in diagnostics if (value := one[name]) is not None]
        assert result.used.diagnostics()[name] == pytest.approx(sum(values) / 4, rel=1e-12)
    first = algorithm.diagnostics(result.signals, found[0], batch(ADVANTAGES).advantages)
    assert result.used.diagnostics()["credit/ess"] != first["credit/ess"]


@pytest.mark.parametrize("gating", ["paper", "top_entropy"])
def test_the_reference_runs_once_a_step_however_often_the_policy_is_scored(
    policy: LanguageModel,
    reference: LanguageModel,
    gating: str,
) -> None:
    sequences = 0

    def counted(_: Any, __: Any, inputs: dict[str, Any]) -> None:
        nonlocal sequences
        sequences += len(inputs["input_ids"])

    hook = reference.model.model.register_forward_pre_hook(counted, with_kwargs=True)
    step = batch(ADVANTAGES)
    try:
        run(policy, reference, current(gating, "grpo"), step, True, minibatches=2, epochs=3)
    finally:
        hook.remove()
    assert sequences == len(step.rollouts)


def test_one_update_by_the_current_policy_is_one_by_the_policy_that_sampled(
    policy: LanguageModel, reference: LanguageModel
) -> None:
    algorithm = current("paper")
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


def test_an_update_that_was_not_applied_used_no_credit(policy: LanguageModel, reference: LanguageModel) -> None:
    """Of three minibatches the first has no finite gradient and the second no signal: the third alone counts."""
    algorithm = current("paper")
    advantages = [math.inf, 0.0, 0.0, 0.0, *[0.0] * 4, *ADVANTAGES[:3], 0.0]
    result, _, _ = run(policy, reference, algorithm, batch(advantages), minibatches=3)
    assert result.used is not None
    assert result.used.times() == [0] * 8 + [1, 1, 1, 0]
    assert (result.skipped, result.nonfinite, result.nonfinite_streak) == (2, 1, 0)
    assert result.credit is not None
    assert not result.credit.weights[:8].any()
    assert result.credit.weights[8:11].sum(1).tolist() == pytest.approx([3, 5, 7], rel=1e-5)  # mean 1 over the tokens


def test_a_stopped_step_leaves_nothing_of_the_reference_in_memory(
    policy: LanguageModel, reference: LanguageModel
) -> None:
    """The signal comes in the scoring pass; the run is saved while the exception is handled."""

    class Stopped(StopGuard):
        def agree(self) -> None:
            assert kept()  # the states are there when it comes
            raise StopRequested

    def kept() -> list[object]:
        gc.collect()
        return [thing for thing in gc.get_objects() if type(thing) is ReferenceStates]

    optim = replace(OptimConfig(), minibatches=2)
    updater = Updater(policy, reference, current("paper"), Optimizer(policy.model, optim), optim, temperature=1.0)
    with pytest.raises(StopRequested) as stop:
        updater.run(batch(ADVANTAGES), lr=1e-3, noise_floor=1e-7, guard=Stopped(0.0))
    assert stop.value.__traceback__ is not None
    assert kept() == []
