"""The numerical floor of the Hellinger distance: how far a model is from itself, if it is scored in two ways.

Credit from a distance that is not well above this floor is noise: the noise gate (core/credit.py) closes there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import microbatch_of, sequence_size
from dgpo_cli.models.scoring import predictive_states, stats_of_states
from dgpo_cli.planning.pieces import NOISE_ROLLOUTS
from dgpo_cli.types import Rollout


@torch.no_grad()
def measure_noise_floor(
    model: LanguageModel,
    rollouts: list[Rollout],
    lengths: list[int],
    *,
    temperature: float,
    tokens: int,
    after_each: Callable[[], None] = lambda: None,
) -> float:
    """Mean d of the same weights scored in two ways that should agree: sequences alone, and padded into batches.

    Identical passes would give 0 and measure nothing. It can still be exactly 0. A pass has at most `tokens` positions,
    or one sequence. If no other fits beside a sequence, it is scored once whole and once without its second half.
    """
    distances = []
    for rows in _noise_groups(rollouts, lengths, tokens):
        short = [lengths[row] if len(rows) > 1 else -(-lengths[row] // 2) for row in rows]
        together = microbatch_of(rollouts, rows, lengths, model.pad_id)
        joint = predictive_states(model, together)
        if len(rows) == 1:  # to a causal model a token is the same, whatever comes after it
            joint, together = joint[: short[0]], replace(together, targets=together.targets[: short[0]])
        after_each()
        alone = []
        for row, length in zip(rows, short, strict=True):
            apart = microbatch_of([rollouts[row]], [0], [length], model.pad_id)
            alone.append(predictive_states(model, apart))
            after_each()
        stats = stats_of_states(
            model, joint, together, temperature=temperature, reference=model, ref_states=torch.cat(alone)
        )
        assert stats.hellinger is not None
        distances.append(stats.hellinger)
    return float(torch.cat(distances).double().mean()) if distances else 0.0


def within(rollouts: list[Rollout], lengths: list[int], tokens: int) -> list[int]:
    """Counted tokens of each rollout that a pass of so many positions has room for; to a causal model the rest is no
    matter. One of each that has any.
    """
    return [
        min(length, max(1, tokens - len(rollout.request.prompt.token_ids))) if length else 0
        for rollout, length in zip(rollouts, lengths, strict=True)
    ]


def noise_sizes(rollouts: list[Rollout], lengths: list[int], *, tokens: int) -> tuple[int, int]:
    """Positions of the largest pass of `measure_noise_floor`, and of its longest sequence."""
    groups = _noise_groups(rollouts, lengths, tokens)
    widths = [sequence_size(rollouts, lengths, rows[0]) for rows in groups]
    return max(len(rows) * width for rows, width in zip(groups, widths, strict=True)), max(widths)


def _noise_groups(rollouts: list[Rollout], lengths: list[int], tokens: int) -> list[list[int]]:
    """The first rollouts with counted tokens, longest first, in groups that fit `tokens` padded to their longest."""
    rows = [row for row, length in enumerate(lengths) if length][:NOISE_ROLLOUTS]
    groups: list[list[int]] = []
    for row in sorted(rows, key=lambda row: (-sequence_size(rollouts, lengths, row), row)):
        if groups and sequence_size(rollouts, lengths, groups[-1][0]) * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups
