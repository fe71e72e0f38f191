"""The correction in real updates: what it multiplies, in each of the ways to train, and when it is left out."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from step_factory import ADVANTAGES, MAX_TOKENS, RecordingOptimizer, batch, current, naive_loss, options, run

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.groups import OffPolicyCorrection, RatioLevel
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.off_policy import KINDS, off_policy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.training.correction import Correction, correction_metrics
from dgpo_cli.training.step import StepBatch, StepResult

ELSEWHERE = {"computes_as_trained": False}


def drawn(policy: LanguageModel, *, policy_step: int | None = 5, off: float = 0.5) -> tuple[StepBatch, torch.Tensor]:
    """A batch that says how it was drawn, and log mu [B, T]: the policy's own log-probs of it, moved by noise."""
    step = replace(batch(ADVANTAGES), policy_step=5)
    algorithm = Algorithm(*options("grpo"), max_completion_tokens=MAX_TOKENS)
    scored, _, _ = run(policy, None, algorithm.without_kl(), step)
    assert scored.signals is not None
    noise = off * torch.randn(step.shape, generator=torch.Generator().manual_seed(7))
    told = scored.signals.logprobs + noise
    rollouts = [
        replace(rollout, logprobs=tuple(told[row, : step.lengths[row]].tolist()), policy_step=policy_step)
        for row, rollout in enumerate(step.rollouts)
    ]
    return replace(step, rollouts=rollouts), told


def trained(
    policy: LanguageModel,
    reference: LanguageModel | None,
    algorithm: Algorithm,
    step: StepBatch,
    correction: Correction,
    **settings: Any,
) -> tuple[StepResult, RecordingOptimizer, LanguageModel]:
    return run(policy, reference, algorithm, step, off_policy=correction, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "gating"), [("grpo", "uniform"), ("dgpo", "paper"), ("dapo", "calibrated")])
def test_loss_and_gradient_agree_with_naive_float64(
    policy: LanguageModel, reference: LanguageModel, name: str, gating: str, kind: str
) -> None:
    """Credit times factor; the KL term of `grpo` is not touched."""
    algo, gate = options(name, gating)
    algorithm = Algorithm(algo, gate, max_completion_tokens=MAX_TOKENS)
    step, told = drawn(policy)
    result, optimizer, _ = trained(policy, reference, algorithm, step, Correction(kind, 1.5, **ELSEWHERE))
    assert result.credit is not None
    assert result.signals is not None
    factors = off_policy(result.signals.logprobs, told, result.signals.mask, kind=kind, cap=1.5).factors
    assert float((factors - 1).abs().max()) > 0.1
    model = copy.deepcopy(policy.model).double()
    weights = result.credit.weights * factors
    loss = naive_loss(model, copy.deepcopy(reference.model).double(), algo, step, weights)
    loss.backward()
    assert result.tallies[0].loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-6)
    for mine, parameter in zip(optimizer.gradients[0], model.parameters(), strict=True):
        scale = float(parameter.grad.abs().max())
        assert torch.allclose(mine.double(), parameter.grad, atol=2e-4 * scale + 1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ratio_level", list(RatioLevel))
def test_inline_and_prescored_training_correct_alike(
    policy: LanguageModel,
    reference: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    ratio_level: RatioLevel,
    kind: str,
) -> None:
    algo, gate = options("dgpo", "paper")
    algorithm = Algorithm(replace(algo, ratio_level=ratio_level), gate, max_completion_tokens=MAX_TOKENS)
    step, _ = drawn(policy, policy_step=4)
    inline, ours, _ = trained(policy, reference, algorithm, step, Correction(kind, 1.5))
    monkeypatch.setattr("dgpo_cli.training.update.can_train_inline", lambda *_: False)
    before, theirs, _ = trained(policy, reference, algorithm, step, Correction(kind, 1.5))
    assert before.engine_gap == pytest.approx(inline.engine_gap, abs=1e-4)
    assert inline.tallies[0].loss == pytest.approx(before.tallies[0].loss, rel=1e-4, abs=1e-6)
    for mine, other in zip(ours.gradients[0], theirs.gradients[0], strict=True):
        assert torch.allclose(mine, other, atol=1e-4 * float(other.abs().max()) + 1e-9)


@pytest.mark.parametrize("score", ["old", "current"])
def test_factors_stay_those_of_the_step_over_its_updates(
    policy: LanguageModel, reference: LanguageModel, score: str
) -> None:
    """All tokens are masked before the first update, so no update moves a weight."""
    gated = Algorithm(*options("dgpo", "paper"), max_completion_tokens=MAX_TOKENS)
    algorithm = current("paper") if score == "current" else gated
    step, _ = drawn(policy)
    far = replace(
        step,
        rollouts=[
            replace(rollout, logprobs=tuple(value - 3.0 for value in rollout.logprobs or ()))
            for rollout in step.rollouts
        ],
    )
    updates = {"minibatches": 2, "epochs": 2, "weight_decay": 0.0}
    correction = Correction("mask", 2.0, **ELSEWHERE)
    result, optimizer, model = trained(policy, reference, algorithm, far, correction, **updates)
    assert result.engine_gap["engine/corrected_fraction"] == 1.0
    assert result.engine_gap["engine/correction_ess"] == 0.0
    assert len(optimizer.gradients) == 4
    for gradients in optimizer.gradients:  # nothing counts, in any update
        assert all(not bool(gradient.any()) for gradient in gradients)
    for before, after in zip(policy.model.parameters(), model.model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_denominators_stay_when_tokens_are_masked(policy: LanguageModel, reference: LanguageModel) -> None:
    """One rollout is masked as a whole: the loss is that of a batch in which its advantage is 0."""
    algorithm = Algorithm(*options("dapo", "uniform"), max_completion_tokens=MAX_TOKENS)
    step, _ = drawn(policy, off=0.0)
    first = step.rollouts[0]
    moved = replace(first, logprobs=tuple(value - 3.0 for value in first.logprobs or ()))
    masked = replace(step, rollouts=[moved, *step.rollouts[1:]])
    result, _, _ = trained(policy, reference, algorithm, masked, Correction("mask", 2.0, **ELSEWHERE))
    advantages = step.advantages.clone()
    advantages[0] = 0.0
    other, _, _ = run(policy, reference, algorithm, replace(step, advantages=advantages))
    assert result.tallies[0].loss == pytest.approx(other.tallies[0].loss, rel=1e-4, abs=1e-6)
    assert result.engine_gap["engine/corrected_fraction"] == pytest.approx(step.lengths[0] / sum(step.lengths))


@pytest.mark.parametrize("kind", [*KINDS, "none"])
def test_rollouts_of_the_trainers_own_policy_are_not_touched(
    policy: LanguageModel, reference: LanguageModel, kind: str
) -> None:
    """Bit for bit, though the last bits of their log-probs differ."""
    algorithm = Algorithm(*options("dgpo", "paper"), max_completion_tokens=MAX_TOKENS)
    step, _ = drawn(policy, off=1e-6)
    plain, ours, _ = run(policy, reference, algorithm, step)
    corrected, theirs, _ = trained(policy, reference, algorithm, step, Correction(kind, 2.0))
    assert plain.tallies[0].loss == corrected.tallies[0].loss
    assert all(torch.equal(mine, other) for mine, other in zip(ours.gradients[0], theirs.gradients[0], strict=True))
    told = {"engine/correction_ess": 1.0, "engine/corrected_fraction": 0.0}
    added = {key: value for key, value in corrected.engine_gap.items() if key not in plain.engine_gap}
    assert added == ({} if kind == "none" else told)


def test_ess_and_corrected_fraction_by_hand() -> None:
    """Ratios 4 (cut to 2), 1 and 1/2 over the three tokens that count: (3.5)^2 / (3 * 5.25) = 0.7778."""
    step = batch([1.0, -1.0, 0.5, -0.5])
    quarter, half = -1.0 - 1.3862943611198906, -1.0 + 0.6931471805599453
    told = [(quarter, -1.0), (half,), None, None]
    rollouts = [replace(rollout, logprobs=of) for rollout, of in zip(step.rollouts, told, strict=True)]
    mask = torch.tensor([[True, True], [True, False], [False, False], [False, False]])
    signals = TokenSignals(mask, torch.full((4, 2), -1.0), torch.zeros(4, 2), None, None)
    found = correction_metrics(Correction("token", 2.0, **ELSEWHERE), rollouts, signals, drawn_by_another=False)
    assert found["engine/correction_ess"] == pytest.approx(12.25 / (3 * 5.25), rel=1e-5)
    assert found["engine/corrected_fraction"] == pytest.approx(1 / 3)


def test_a_correction_is_due_only_if_its_factors_can_differ_from_one() -> None:
    assert not Correction("token").is_due(drawn_by_another=False)
    assert Correction("token").is_due(drawn_by_another=True)
    assert Correction("token", **ELSEWHERE).is_due(drawn_by_another=False)
    assert not Correction("none", **ELSEWHERE).is_due(drawn_by_another=True)


def test_the_kinds_of_the_configuration_are_those_of_the_maths() -> None:
    assert {kind.value for kind in OffPolicyCorrection} == {"none", *KINDS}
