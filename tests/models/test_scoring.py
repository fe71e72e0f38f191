"""Rollouts through a model: packing never changes what is measured, and agrees with plain transformers logits."""

from __future__ import annotations

import pytest
import torch
from rollout_factory import LENGTHS, uneven_rollouts
from torch import Tensor

from dgpo_cli.models.frozen import frozen_copy
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import make_microbatches, scatter_rows
from dgpo_cli.models.scoring import logprobs_and_stats, predictive_states, score_rollouts
from dgpo_cli.types import Rollout


def dense(model: LanguageModel, rollout: Rollout, temperature: float) -> Tensor:
    """log p [T, V] in float64 from plain transformers logits."""
    ids = [*rollout.request.prompt.token_ids, *rollout.token_ids]
    double = frozen_copy(model).model.double()
    with torch.no_grad():
        logits = double(torch.tensor([ids])).logits[0, len(rollout.request.prompt.token_ids) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)


@pytest.mark.parametrize("has_head", [True, False])
def test_signals_agree_with_float64_logits(policy: LanguageModel, reference: LanguageModel, has_head: bool) -> None:
    model = LanguageModel(policy.model, policy.tokenizer, policy.path, has_head)
    made = uneven_rollouts()
    signals = score_rollouts(model, reference, made, LENGTHS, temperature=0.8, tokens=40)
    assert signals.ref_logprobs is not None
    assert signals.hellinger is not None
    for row, rollout in enumerate(made):
        length = LENGTHS[row]
        assert int(signals.mask[row].sum()) == length
        if not length:
            continue
        p, q = dense(policy, rollout, 0.8), dense(reference, rollout, 0.8)
        chosen = torch.tensor(rollout.token_ids)[:, None]
        checks = {
            "logprobs": p.gather(1, chosen)[:, 0],
            "ref_logprobs": q.gather(1, chosen)[:, 0],
            "entropy": -(p.exp() * p).sum(1),
            "hellinger": ((p / 2).exp() - (q / 2).exp()).square().sum(1) / 2,
        }
        for name, expected in checks.items():
            assert torch.allclose(getattr(signals, name)[row, :length].double(), expected, atol=2e-5), name


def test_packing_and_padding_change_nothing(policy: LanguageModel, reference: LanguageModel) -> None:
    results = [
        score_rollouts(policy, reference, uneven_rollouts(), LENGTHS, temperature=1.0, tokens=tokens)
        for tokens in (1, 20, 10_000)
    ]
    for other in results[1:]:
        for name in ("logprobs", "entropy", "grad_norm", "ref_logprobs", "hellinger"):
            assert torch.allclose(getattr(results[0], name), getattr(other, name), atol=1e-5), name


def test_a_model_against_itself_is_at_distance_zero(policy: LanguageModel) -> None:
    signals = score_rollouts(policy, frozen_copy(policy), uneven_rollouts(), LENGTHS, temperature=1.0, tokens=30)
    assert signals.hellinger is not None
    assert bool((signals.hellinger == 0.0).all())


def test_only_counted_positions_reach_the_head(policy: LanguageModel) -> None:
    batch = make_microbatches(uneven_rollouts(), list(range(5)), LENGTHS, tokens=1000, pad_id=0)[0]
    assert predictive_states(policy, batch).shape[0] == sum(LENGTHS)


def test_gradient_of_padded_rows_is_that_of_rows_alone(policy: LanguageModel) -> None:
    gradients = []
    for tokens in (1, 10_000):
        policy.model.zero_grad()
        for batch in make_microbatches(uneven_rollouts(), list(range(5)), LENGTHS, tokens=tokens, pad_id=7):
            states = predictive_states(policy, batch)
            flat, _ = logprobs_and_stats(policy, states, batch, temperature=1.0)
            logprobs = scatter_rows(flat, batch)
            logprobs.sum().backward()
        gradients.append(policy.model.model.embed_tokens.weight.grad.clone())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)
