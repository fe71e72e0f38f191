"""Intervals turned out of permutation tests, against enumeration, hand-worked numbers and their own definition."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpo_cli.core import inversion
from dgpo_cli.core.comparison import compare_seeds, smallest_seed_p
from dgpo_cli.core.inversion import Rearrangements, below, of_runs, of_signs

STEPS = st.lists(st.integers(-6, 9), min_size=1, max_size=9)
EIGHTHS = st.lists(st.integers(0, 8).map(lambda number: number / 8), min_size=1, max_size=5)
LEVELS = st.sampled_from([0.01, 0.05 / 3, 0.05, 0.0625, 0.125, 0.3, 0.5])


def enumerated_signs(steps: list[int], supposed: float = 0.0) -> float:
    left = [step - supposed for step in steps]
    sums = [abs(sum(s * d for s, d in zip(signs, left, strict=True))) for signs in product((-1, 1), repeat=len(left))]
    return sum(total >= abs(sum(left)) - 1e-9 for total in sums) / len(sums)


def enumerated_runs(a: list[float], b: list[float], supposed: float = 0.0) -> float:
    values = [*a, *(value - supposed for value in b)]
    gaps = []
    for chosen in combinations(range(len(values)), len(a)):
        of_a = sum(values[place] for place in chosen)
        gaps.append(abs((sum(values) - of_a) / len(b) - of_a / len(a)))
    observed = abs(sum(values[len(a) :]) / len(b) - sum(a) / len(a))
    return sum(gap >= observed - 1e-9 for gap in gaps) / len(gaps)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(-20, 20))
def test_a_sign_flip_equals_enumeration_under_every_supposed_difference(steps: list[int], supposed: int) -> None:
    # an exact third is no multiple of the unit: nothing ties there but what ties everywhere
    for shift in (0.0, supposed / 2, supposed / 3):
        assert of_signs(steps, 1.0).p_value(shift) == pytest.approx(enumerated_signs(steps, shift), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(EIGHTHS, EIGHTHS, st.integers(-8, 8))
def test_a_permutation_of_runs_equals_enumeration_under_every_supposed_difference(
    a: list[float], b: list[float], supposed: int
) -> None:
    for shift in (0.0, supposed / 8, supposed / 11):
        p_value = of_runs(np.array(a), np.array(b)).p_value(shift)
        assert p_value == pytest.approx(enumerated_runs(a, b, shift), abs=1e-12)


def holds_what_it_says(test: Rearrangements, level: float) -> None:
    interval = test.interval(level)
    if interval is None:
        return
    low, high = interval
    assert low <= test.observed <= high
    assert (low <= 0 <= high) == (not below(test.p_value(), level))
    for end, outwards in ((low, -math.inf), (high, math.inf)):
        beyond = end + math.copysign(1e-7, outwards)
        assert below(test.p_value(beyond), level)
        assert not below(test.p_value(end), level)


@settings(max_examples=100, deadline=None)
@given(STEPS, LEVELS)
def test_the_interval_of_signs_holds_exactly_what_the_test_does_not_refuse(steps: list[int], level: float) -> None:
    test = of_signs(steps, 0.25)
    holds_what_it_says(test, level)
    turned = of_signs([-step for step in steps], 0.25)  # a and b change places
    assert turned.p_value() == pytest.approx(test.p_value(), abs=1e-15)
    one, other = test.interval(level), turned.interval(level)
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert other == (-one[1], -one[0])
        moved = of_signs([step + 3 for step in steps], 0.25).interval(level)
        assert moved == pytest.approx((one[0] + 0.75, one[1] + 0.75))
        assert of_signs([5 * step for step in steps], 0.25).interval(level) == pytest.approx((5 * one[0], 5 * one[1]))


@settings(max_examples=100, deadline=None)
@given(EIGHTHS, EIGHTHS, LEVELS)
def test_the_interval_of_runs_holds_exactly_what_the_test_does_not_refuse(
    a: list[float], b: list[float], level: float
) -> None:
    test = of_runs(np.array(a), np.array(b))
    holds_what_it_says(test, level)
    one, other = test.interval(level), of_runs(np.array(b), np.array(a)).interval(level)
    assert (one is None) == (other is None)
    if one is not None:
        assert other == pytest.approx((-one[1], -one[0]))
        moved = of_runs(np.array(a), np.array(b) + 0.25).interval(level)
        assert moved == pytest.approx((one[0] + 0.25, one[1] + 0.25))
        scaled = of_runs(3e-9 * np.array(a), 3e-9 * np.array(b)).interval(level)
        assert scaled == pytest.approx((3e-9 * one[0], 3e-9 * one[1]), rel=1e-6, abs=1e-18)


@pytest.mark.parametrize("tenths", [(1, 2, 3, 4, 6), (0, 1, 2, 7, 3), (3, 3, 3, 4, 9)])
def test_ties_that_floating_point_misses_count(tenths: tuple[int, ...]) -> None:
    """0.1 + 0.2 is not 0.3: in eighths the same runs tie exactly."""
    a, b = np.array(tenths), np.array(tenths[::-1]) + np.array([1, 0, 2, 0, 1])
    exact = of_runs(a / 8, b / 8).p_value()
    for factor in (0.1, 0.3, 1 / 7, 1e-6):
        assert of_runs(a * factor, b * factor).p_value() == exact


def test_sign_flips_worked_by_hand() -> None:
    assert of_signs([2, 2, 2, 2], 1.0).p_value() == pytest.approx(2 / 16)  # only all plus and all minus reach 8
    assert of_signs([5, 0, 0], 1.0).p_value() == 1.0
    assert of_signs([0, 0], 1.0).p_value() == 1.0
    assert of_signs([3, -3], 1.0).p_value() == 1.0


def test_an_interval_of_three_problems_worked_by_hand() -> None:
    # differences 0, 1, 5 (mean 2). Turned problems against the others: {0} 0 | 3, {1} 1 | 2.5, {5} 5 | 0.5, each
    # twice of 8; none and all (2 of 8) are as extreme under every difference. p is 2/8 below 0, 4/8 from 0 on, 6/8
    # from 0.5 on, all from 1 to 2.5, 6/8 up to 3, 4/8 up to 5, 2/8 above
    test = of_signs([0, 1, 5], 1.0)
    assert [test.p_value(shift) for shift in (-0.1, 0, 0.4, 0.5, 1)] == [0.25, 0.5, 0.5, 0.75, 1.0]
    assert [test.p_value(shift) for shift in (2.5, 2.6, 3, 3.1, 5, 5.1)] == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25]
    assert test.interval(0.5) == (0.0, 5.0)
    assert test.interval(0.6) == (0.5, 3.0)
    assert test.interval(0.25) is None  # no outcome of three problems has p < 0.25


def test_runs_worked_by_hand() -> None:
    # A = {0, 1}, B = {1, 2, 3}: mean gap 1.5. Ways to choose A: 10; |gap| >= 1.5 for A = {0,1} twice (either 1), {2,3}
    assert of_runs(np.array([0.0, 1.0]), np.array([1.0, 2.0, 3.0])).p_value() == pytest.approx(3 / 10)
    assert smallest_seed_p(2, 3) == 1 / 10
    # 5.1 - 0.05 = 5.05; the other extreme, {5.1, 5.2} against {0, 0.1, 5}, gives 3.45: one split of ten
    assert of_runs(np.array([0.0, 0.1]), np.array([5.0, 5.1, 5.2])).p_value() == pytest.approx(1 / 10)
    assert of_runs(np.arange(5.0), np.arange(5.0) + 10).p_value() == pytest.approx(2 / 252)


def test_welch_said_0_where_the_permutation_did_not() -> None:
    """Five runs a side whose Welch interval, [-0.013, 0.189], holds 0 beside a p-value of 0.0159 = 4 / 252."""
    result = compare_seeds([0.30, 0.31, 0.33, 0.33, 0.34], [0.34, 0.35, 0.37, 0.46, 0.53])
    assert result.p_value == pytest.approx(4 / 252)
    assert result.ci95 == pytest.approx((0.01, 0.19))


def test_what_does_not_scatter_has_no_interval() -> None:
    assert of_signs([3] * 10, 0.1).interval(0.05) is None
    assert of_runs(np.full(5, 0.5), np.full(5, 0.6)).interval(0.05) is None
    assert of_runs(np.full(5, 0.5), np.array([0.6] * 4 + [0.7])).interval(0.05) is not None


def test_one_run_against_twenty_has_an_interval_and_against_eighteen_none() -> None:
    others = np.linspace(0.3, 0.5, 20)  # the smallest p-value is 1 / 21 = 0.048, and 1 / 19 = 0.053
    interval = of_runs(np.array([0.9]), others).interval(0.05)
    assert interval is not None
    assert interval[1] < 0
    assert of_runs(np.array([0.9]), others[:18]).interval(0.05) is None


def test_sampled_signs_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.random.default_rng(5).integers(-30, 42, size=90).tolist()
    exact = of_signs(steps, 0.1)
    monkeypatch.setattr(inversion, "MAX_CELLS", 0)
    monkeypatch.setattr(inversion, "RESAMPLES", 20_000)
    sampled = of_signs(steps, 0.1, seed=3)
    assert sampled.p_value() == of_signs(steps, 0.1, seed=3).p_value() != of_signs(steps, 0.1, seed=4).p_value()
    chance = exact.p_value()
    assert abs(sampled.p_value() - chance) < 5 * math.sqrt(chance * (1 - chance) / 20_000)
    one, other = exact.interval(0.05), sampled.interval(0.05)
    assert other == pytest.approx(one, abs=0.05 * (one[1] - one[0]) if one else 0)
    for level in (0.01, 0.05, 0.5, sampled.p_value(), sampled.p_value() * 1.001):
        holds_what_it_says(sampled, level)


def test_sampled_runs_agree_with_counted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    a, b = generator.normal(0, 1, 7), generator.normal(0.8, 1, 7)
    exact = of_runs(a, b)
    monkeypatch.setattr(inversion, "MAX_SPLITS", 0)
    monkeypatch.setattr(inversion, "RESAMPLES", 20_000)
    sampled = of_runs(a, b, seed=1)
    chance = exact.p_value()
    assert sampled.p_value() != chance
    assert abs(sampled.p_value() - chance) < 5 * math.sqrt(chance * (1 - chance) / 20_000)
    for level in (0.01, 0.05, 0.5, sampled.p_value(), sampled.p_value() * 1.001):
        holds_what_it_says(sampled, level)


def test_cutting_off_what_cannot_happen_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.random.default_rng(1).integers(-4, 5, size=150).tolist()
    cut = of_signs(steps, 1.0)
    monkeypatch.setattr(inversion, "NEGLIGIBLE", 1e9)
    monkeypatch.setattr(inversion, "MAX_CELLS", math.inf)
    whole = of_signs(steps, 1.0)
    assert cut.interval(0.05) == whole.interval(0.05)
    assert cut.p_value() == pytest.approx(whole.p_value(), abs=1e-13)


def test_the_permutation_is_scipys() -> None:
    from scipy.stats import permutation_test

    generator = np.random.default_rng(3)
    a, b = generator.normal(size=4), generator.normal(size=6)
    for shift in (0.0, 0.4, -1.3):
        # scipy doubles the smaller tail for two-sided tests; of |gap| the greater tail is ours
        slow = permutation_test(
            (a, b - shift), lambda x, y: abs(x.mean() - y.mean()), n_resamples=math.inf, alternative="greater"
        )
        assert of_runs(a, b).p_value(shift) == pytest.approx(slow.pvalue)
