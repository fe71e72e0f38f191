"""From rewards to advantages: the group-relative baseline of GRPO and the length shaping of DAPO."""

from __future__ import annotations

import torch
from torch import Tensor

EQUAL_REWARDS = 1e-8  # a group whose rewards lie within this carries no signal
STD_EPSILON = 1e-4  # as TRL adds it to the standard deviation


def group_advantages(rewards: Tensor, *, group_size: int, scale: str = "group") -> Tensor:
    """A[i] = (R[i] - mean_group) / (std + 1e-4), with the sample standard deviation (ddof = 1).

    Args:
        rewards: [B], the rollouts of a prompt standing together.
        group_size: G >= 2.
        scale: `group` divides by the group's std (GRPO, arXiv 2402.03300), `batch` by that of all rewards, `none` by 1.

    Returns:
        [B] float32. A group whose rewards are all equal is exactly 0 under every scale.

    Raises:
        ValueError: if G < 2 or B is not a multiple of G.
    """
    if group_size < 2 or rewards.numel() % group_size:
        raise ValueError(f"group_size must be at least 2 and divide {rewards.numel()} rewards, got {group_size}")
    if rewards.numel() == 0:
        return torch.zeros(0)
    groups = rewards.double().view(-1, group_size)  # [N, G]
    centred = groups - groups.mean(dim=1, keepdim=True)
    if scale == "group":
        centred = centred / (groups.std(dim=1, keepdim=True) + STD_EPSILON)
    elif scale == "batch":
        centred = centred / (groups.std() + STD_EPSILON)
    # The mean of equal floats can differ from them in the last bit: equal rewards must give 0, not 1e-13.
    centred = torch.where(groups_are_equal(rewards, group_size)[:, None], 0.0, centred)
    return centred.reshape(-1).float()


def advantages_of_groups(
    rewards: list[float | None], groups: list[list[int]], *, scale: str = "group"
) -> list[float | None]:
    """`group_advantages` of groups of any sizes. `groups`: the rows of each.

    None for a row without a reward, which is no part of its group's mean, and for a row that nothing stands beside.
    """
    known = torch.tensor([reward for reward in rewards if reward is not None], dtype=torch.float64)
    spread = float(known.std()) + STD_EPSILON if scale == "batch" and len(known) > 1 else 1.0
    found: list[float | None] = [None] * len(rewards)
    for rows in groups:
        graded = [(row, reward) for row in rows if (reward := rewards[row]) is not None]
        if len(graded) < 2:
            continue
        of_group = torch.tensor([reward for _, reward in graded], dtype=torch.float64)
        values = group_advantages(of_group, group_size=len(graded), scale="none" if scale == "batch" else scale)
        for (row, _), value in zip(graded, (values / spread).tolist(), strict=True):
            found[row] = value
    return found


def groups_are_equal(values: Tensor, group_size: int) -> Tensor:
    """[N] True where all values of a group are within 1e-8 of each other. values: [B]."""
    groups = values.double().view(values.numel() // group_size, group_size)
    return groups.amax(dim=1) - groups.amin(dim=1) <= EQUAL_REWARDS


def overlong_penalty(lengths: Tensor, *, max_tokens: int, buffer_tokens: int, reward_range: float) -> Tensor:
    """DAPO's soft overlong punishment (arXiv 2503.14476), to be added to the reward.

    0 up to max_tokens - buffer_tokens, then linear to -1 at max_tokens; the whole scaled by half the reward range, so
    that it reaches -1 for rewards of -1 and +1. lengths: [B] tokens, stop token included. Returns [B] float32 <= 0.
    """
    over = lengths.double() - (max_tokens - buffer_tokens)
    return (-(over / buffer_tokens).clamp(0.0, 1.0) * reward_range / 2).float()
