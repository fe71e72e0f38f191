"""Advantages by hand: (R - mean) / (std with ddof 1 + 1e-4)."""

from __future__ import annotations

import math

import pytest
import torch

from dgpo_cli.core.advantages import advantages_of_groups, group_advantages, groups_are_equal, overlong_penalty


def test_one_right_of_four() -> None:
    # mean 0.25, deviations .75 -.25 -.25 -.25, sum of squares 0.75, std sqrt(0.75 / 3) = 0.5
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), group_size=4)
    assert advantages.tolist() == pytest.approx([0.75 / 0.5001, *[-0.25 / 0.5001] * 3], abs=1e-6)


def test_batch_scale_divides_by_the_std_of_all_rewards() -> None:
    rewards = torch.tensor([1.0, 0.0, 3.0, 1.0])  # group means 0.5 and 2; mean of all 1.25
    std = math.sqrt((0.0625 + 1.5625 + 3.0625 + 0.0625) / 3)
    expected = [value / (std + 1e-4) for value in (0.5, -0.5, 1.0, -1.0)]
    assert group_advantages(rewards, group_size=2, scale="batch").tolist() == pytest.approx(expected, abs=1e-6)


def test_no_scale_only_centres() -> None:
    assert group_advantages(torch.tensor([2.0, 0.0]), group_size=2, scale="none").tolist() == [1.0, -1.0]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_with_equal_rewards_carries_no_signal(scale: str) -> None:
    # The mean of three 0.1 is not 0.1 in floating point: the advantage must be 0 all the same.
    advantages = group_advantages(torch.tensor([0.1, 0.1, 0.1, 1.0, 0.0, 0.0]), group_size=3, scale=scale)
    assert advantages[:3].tolist() == [0.0, 0.0, 0.0]
    assert (advantages[3:] != 0).all()


def test_rewards_within_1e_8_are_equal_and_beyond_are_not() -> None:
    rewards = torch.tensor([0.0, 0.9e-8, 0.0, 1.1e-8], dtype=torch.float64)
    assert groups_are_equal(rewards, 2).tolist() == [True, False]


@pytest.mark.parametrize(("count", "group_size"), [(4, 1), (5, 2)])
def test_groups_that_cannot_be_formed_are_refused(count: int, group_size: int) -> None:
    with pytest.raises(ValueError, match="group_size"):
        group_advantages(torch.zeros(count), group_size=group_size)


def test_overlong_penalty_ramps_over_the_buffer() -> None:
    lengths = torch.tensor([10, 80, 90, 100, 120])
    penalty = overlong_penalty(lengths, max_tokens=100, buffer_tokens=20, reward_range=2.0)
    assert penalty.tolist() == [0.0, 0.0, -0.5, -1.0, -1.0]


def test_overlong_penalty_is_half_the_reward_range() -> None:
    assert overlong_penalty(torch.tensor([100]), max_tokens=100, buffer_tokens=20, reward_range=1.0).tolist() == [-0.5]


def test_groups_of_any_size_have_the_advantages_of_their_graded_rows() -> None:
    rewards: list[float | None] = [1.0, 0.0, 5.0, None, 0.0, 3.0]
    groups = [[0, 4, 5], [2, 3], [1]]  # 1, 0, 3; one graded row of two; a row alone
    std = (7 / 3) ** 0.5  # mean 4/3, squares 1/9 + 16/9 + 25/9 over 2
    centred = [1 - 4 / 3, None, None, None, -4 / 3, 3 - 4 / 3]
    for scale, divisor in (("group", std + 1e-4), ("none", 1.0), ("batch", 4.7**0.5 + 1e-4)):  # all five: mean 1.8
        expected = [None if value is None else pytest.approx(value / divisor) for value in centred]
        assert advantages_of_groups(rewards, groups, scale=scale) == expected
