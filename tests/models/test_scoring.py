"""Rollouts through a model: packing never changes what is measured, and agrees with plain transformers logits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from model_factory import save_random_model
from torch import Tensor

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.microbatch import make_microbatches, mask_of, scatter_rows
from dgpo_cli.models.noise_floor import measure_noise_floor, noise_sizes
from dgpo_cli.models.scoring import logprobs_and_stats, predictive_states, score_rollouts
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

LENGTHS = [5, 1, 9, 0, 3]


def rollouts(vocabulary: int = 400) -> list[Rollout]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for row, length in enumerate(LENGTHS):
        ids = torch.randint(2, vocabulary, (4 + row + length,), generator=generator).tolist()
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(ids[: 4 + row]))
        made.append(Rollout(SampleRequest(prompt, 0, 0), tuple(ids[4 + row :]), "", "stop"))
    return made


@pytest.fixture(scope="module")
def policy(random_model: Path) -> LanguageModel:
    return load_model(str(random_model))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return load_model(str(save_random_model(tmp_path_factory.mktemp("m") / "other", seed=1)))


def dense(model: LanguageModel, rollout: Rollout, temperature: float) -> Tensor:
    """log p [T, V] in float64 from plain transformers logits."""
    ids = [*rollout.request.prompt.token_ids, *rollout.token_ids]
    double = model.frozen_copy().model.double()
    with torch.no_grad():
        logits = double(torch.tensor([ids])).logits[0, len(rollout.request.prompt.token_ids) - 1 : -1]
    return torch.log_softmax(logits / temperature, dim=-1)


@pytest.mark.parametrize("has_head", [True, False])
def test_signals_agree_with_float64_logits(policy: LanguageModel, reference: LanguageModel, has_head: bool) -> None:
    model = LanguageModel(policy.model, policy.tokenizer, policy.path, has_head)
    made = rollouts()
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
        score_rollouts(policy, reference, rollouts(), LENGTHS, temperature=1.0, tokens=tokens)
        for tokens in (1, 20, 10_000)
    ]
    for other in results[1:]:
        for name in ("logprobs", "entropy", "ref_logprobs", "hellinger"):
            assert torch.allclose(getattr(results[0], name), getattr(other, name), atol=1e-5), name


def test_a_model_against_itself_is_at_distance_zero(policy: LanguageModel) -> None:
    signals = score_rollouts(policy, policy.frozen_copy(), rollouts(), LENGTHS, temperature=1.0, tokens=30)
    assert signals.hellinger is not None
    assert bool((signals.hellinger == 0.0).all())


def test_microbatches_hold_the_budget_and_every_counted_row() -> None:
    made = rollouts()
    batches = make_microbatches(made, list(range(5)), LENGTHS, tokens=30, pad_id=0)
    assert sorted(row for batch in batches for row in batch.rows) == [0, 1, 2, 4]  # row 3 counts no token
    assert all(batch.input_ids.numel() <= 30 for batch in batches)
    assert sum(len(batch.targets) for batch in batches) == sum(LENGTHS)
    oversize = make_microbatches(made, [2], LENGTHS, tokens=1, pad_id=0)
    assert [batch.rows for batch in oversize] == [[2]]


def test_only_counted_positions_reach_the_head(policy: LanguageModel) -> None:
    batch = make_microbatches(rollouts(), list(range(5)), LENGTHS, tokens=1000, pad_id=0)[0]
    assert predictive_states(policy, batch).shape[0] == sum(LENGTHS)


def test_gradient_of_padded_rows_is_that_of_rows_alone(policy: LanguageModel) -> None:
    gradients = []
    for tokens in (1, 10_000):
        policy.model.zero_grad()
        for batch in make_microbatches(rollouts(), list(range(5)), LENGTHS, tokens=tokens, pad_id=7):
            states = predictive_states(policy, batch)
            flat, _ = logprobs_and_stats(policy, states, batch, temperature=1.0)
            logprobs = scatter_rows(flat, batch)
            logprobs.sum().backward()
        gradients.append(policy.model.model.embed_tokens.weight.grad.clone())
    assert torch.allclose(gradients[0], gradients[1], atol=1e-4, rtol=1e-4)


def test_noise_floor_is_small_and_not_of_identical_passes(policy: LanguageModel) -> None:
    floor = measure_noise_floor(policy, rollouts(), LENGTHS, temperature=1.0, tokens=16384)
    assert 0.0 <= floor < 1e-9
    assert measure_noise_floor(policy, rollouts(), [0] * 5, temperature=1.0, tokens=16384) == 0.0


@pytest.mark.parametrize(
    ("tokens", "shapes"),
    [
        # Rows of 15, 11, 9 and 6 tokens: all of them padded to 15, then each alone.
        (60, [(4, 15), (1, 15), (1, 11), (1, 9), (1, 6)]),
        (59, [(3, 15), (1, 15), (1, 11), (1, 9), (1, 6), (1, 6)]),  # one counted token of row 1 has no half
        (30, [(2, 15), (1, 15), (1, 11), (2, 9), (1, 9), (1, 6)]),
        # None fits beside another: 15, 11, 9 and 6 whole, and with 5 of 9, 2 of 3, 3 of 5 and 1 of 1 counted tokens.
        (1, [(1, 15), (1, 11), (1, 11), (1, 10), (1, 9), (1, 7), (1, 6), (1, 6)]),
    ],
)
def test_the_noise_floor_is_measured_within_the_token_budget(
    policy: LanguageModel, tokens: int, shapes: list[tuple[int, int]]
) -> None:
    seen: list[tuple[int, ...]] = []
    hook = policy.model.model.register_forward_pre_hook(
        lambda _, __, inputs: seen.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
    )
    try:
        floor = measure_noise_floor(policy, rollouts(), LENGTHS, temperature=1.0, tokens=tokens)
    finally:
        hook.remove()
    assert seen == shapes
    assert 0.0 <= floor < 1e-9
    largest, longest = noise_sizes(rollouts(), LENGTHS, tokens=tokens)
    assert (largest, longest) == (max(rows * width for rows, width in shapes), 15)


def test_two_ways_of_scoring_that_differ_are_told_whatever_the_budget(policy: LanguageModel) -> None:
    """A model that looks at what is beside a sequence, or behind it, has a floor above 0."""
    layer = policy.model.model.layers[0]
    hook = layer.register_forward_hook(lambda _, __, output: output * (1.0 + 0.01 * output.shape[0] * output.shape[1]))
    try:
        floors = [
            measure_noise_floor(policy, rollouts(), LENGTHS, temperature=1.0, tokens=tokens) for tokens in (1, 30, 60)
        ]
    finally:
        hook.remove()
    assert min(floors) > 1e-8


def test_mask_is_made_of_lengths() -> None:
    assert mask_of([2, 0, 3]).tolist() == [[True, True, False], [False] * 3, [True] * 3]
    assert mask_of([1], width=3).tolist() == [[True, False, False]]


@pytest.mark.parametrize(
    ("count", "median", "longest", "processes"), [(512, 900, 8192, 1), (512, 900, 8192, 8), (256, 600, 2048, 1)]
)
def test_padding_is_below_five_percent_on_lengths_like_real_ones(
    count: int, median: int, longest: int, processes: int
) -> None:
    """Log-normal completion lengths, cut at the limit, after prompts of 60 to 300 tokens."""
    generator = torch.Generator().manual_seed(1)
    drawn = (math.log(median) + 0.8 * torch.randn(count, generator=generator)).exp().long() + 1
    lengths = drawn.clamp(max=longest).tolist()
    prompts = torch.randint(60, 300, (count,), generator=generator).tolist()
    rollouts = [
        Rollout(SampleRequest(Prompt(Problem(0, "0", (), ""), "", (1,) * before), 0, 0), (1,) * length, "", "stop")
        for before, length in zip(prompts, lengths, strict=True)
    ]
    batches = make_microbatches(rollouts, list(range(count)), lengths, tokens=16384, pad_id=0, processes=processes)
    assert sorted(row for batch in batches for row in batch.rows) == list(range(count))
    assert max(batch.input_ids.numel() for batch in batches) <= 16384
    padding = sum(batch.padding for batch in batches) / sum(batch.input_ids.numel() for batch in batches)
    assert padding < 0.05
