"""Micro-batches hold the token budget, and little of them is padding."""

from __future__ import annotations

import math

import pytest
import torch
from rollout_factory import LENGTHS, uneven_rollouts

from dgpo_cli.models.microbatch import make_microbatches, mask_of
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest


def test_microbatches_hold_the_budget_and_every_counted_row() -> None:
    made = uneven_rollouts()
    batches = make_microbatches(made, list(range(5)), LENGTHS, tokens=30, pad_id=0)
    assert sorted(row for batch in batches for row in batch.rows) == [0, 1, 2, 4]  # row 3 counts no token
    assert all(batch.input_ids.numel() <= 30 for batch in batches)
    assert sum(len(batch.targets) for batch in batches) == sum(LENGTHS)
    oversize = make_microbatches(made, [2], LENGTHS, tokens=1, pad_id=0)
    assert [batch.rows for batch in oversize] == [[2]]


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
