"""Levels of several looks: hand-worked ones, published bounds, and what all looks together spend."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtri

from dgpo_cli.core.comparison import smallest_seed_p
from dgpo_cli.core.sequential import decides, look_levels, spent


def test_all_of_alpha_is_spent_at_the_end_and_not_before() -> None:
    assert spent(1.0, 0.05) == pytest.approx(0.05)
    assert spent(0.5, 0.05) == pytest.approx(0.00305, abs=1e-5), "4 - 4 Phi(2.2414 / 0.7071)"
    assert spent(0.0, 0.05) == 0


def test_one_look_takes_the_largest_p_value_that_alpha_allows() -> None:
    """4 against 4 has 70 splits, two of them as extreme as any: p is a multiple of 2/70, and two of these are 0.057."""
    assert look_levels([4], 0.05) == [pytest.approx(2 / 70)]
    assert look_levels([3], 0.05) == [0.0], "2/20 is too much: three seeds decide nothing"


def test_a_look_that_can_decide_nothing_costs_the_later_ones_nothing() -> None:
    assert look_levels([3, 8], 0.05)[1] == look_levels([8], 0.05)[0]


def test_many_runs_have_the_published_bounds() -> None:
    """Lan and DeMets' function of O'Brien and Fleming's type, five equal looks, alpha 0.05 two-sided."""
    levels = look_levels([200, 400, 600, 800, 1000], 0.05)
    bounds = [-float(ndtri(level / 2)) for level in levels]
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=2e-3)


def test_all_looks_together_spend_no_more_than_alpha() -> None:
    """Sums of normal values, looked at with 4 to 8 of them: the share that is ever beyond its bound."""
    looks = [4, 5, 6, 7, 8]
    levels = look_levels(looks, 0.05)
    assert all(
        level / smallest_seed_p(runs, runs) % 1 == pytest.approx(0, abs=1e-9)
        for level, runs in zip(levels, looks, strict=True)
        if level
    )
    sums = np.random.default_rng(0).normal(size=(200_000, 8)).cumsum(axis=1)[:, 3:]
    bounds = np.array([-ndtri(level / 2) for level in levels]) * np.sqrt(looks)
    share = float((np.abs(sums) >= bounds).any(axis=1).mean())
    assert 0.04 < share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200_000)


def test_a_p_value_at_the_level_decides() -> None:
    assert decides(2 / 70, 2 / 70 * (1 - 1e-12))
    assert not decides(4 / 70, 2 / 70)
    assert not decides(0.0 + 1e-9, 0.0)


@pytest.mark.parametrize("looks", [[], [0, 4], [4, 4], [5, 4]])
def test_looks_ascend(looks: list[int]) -> None:
    with pytest.raises(ValueError, match="ascending"):
        look_levels(looks, 0.05)
