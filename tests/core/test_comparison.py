"""Paired and unpaired comparisons against enumeration, hand-worked numbers and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpo_cli.core.comparison import (
    Comparison,
    compare_problems,
    compare_seeds,
    decide,
    deciding_levels,
    holm,
    seeds_needed,
)
from dgpo_cli.core.inversion import of_runs


def verdicts(comparisons: list[Comparison], alpha: float = 0.05) -> list[str]:
    return [decision.verdict for decision in decide(comparisons, alpha)]


def test_paired_comparison_counts_problems_and_takes_b_minus_a() -> None:
    # shares of A 1/2 1/2 0 1, of B 1 1/2 1/2 3/4: differences 1/2, 0, 1/2, -1/4
    result = compare_problems([2, 2, 0, 4], [4] * 4, [4, 2, 2, 3], [4] * 4)
    assert result.difference == pytest.approx(0.1875)
    assert (result.wins, result.ties, result.losses, result.unit) == (2, 1, 1, "problem")
    # |2 + 2 - 1| = 3 or more: signs of (2,2,1) with sum +-3, +-5 -> 4 of 8
    assert result.p_value == pytest.approx(0.5)
    assert result.smallest_p == 2 / 16
    assert result.minimum_detectable is None  # no outcome of four problems comes below 2 / 16


def test_the_minimum_detectable_difference_worked_by_hand() -> None:
    # p-values are multiples of 2 / 16; the largest below 0.3 is 0.25. t(0.875, 3) = 1.42263, t(0.8, 3) = 0.978472
    result = compare_problems([2, 2, 0, 4], [4] * 4, [4, 2, 2, 3], [4] * 4, alpha=0.3)
    deviation = np.std([0.5, 0, 0.5, -0.25], ddof=1)
    assert result.minimum_detectable == pytest.approx((1.42263 + 0.978472) * deviation / 2, rel=1e-5)


def test_thousands_of_problems_have_a_minimum_detectable_difference() -> None:
    generator = np.random.default_rng(0)
    a, b = generator.binomial(1, 0.5, size=(2, 1500)).tolist()
    detectable = compare_problems(a, [1] * 1500, b, [1] * 1500).minimum_detectable
    assert detectable == pytest.approx(2.803 * math.sqrt(0.5 / 1500), rel=0.05)  # (1.960 + 0.842) standard errors


def test_different_numbers_of_samples_are_compared_by_their_shares_exactly() -> None:
    # 1/3 = 2/6 is a tie, which floating point would not promise
    result = compare_problems([1, 1], [3, 3], [2, 3], [6, 6])
    assert (result.wins, result.ties, result.losses) == (1, 1, 0)
    assert result.difference == pytest.approx((0 + 1 / 6) / 2)


def test_equal_evaluations_are_indistinguishable() -> None:
    result = compare_problems([1, 2, 3], [4] * 3, [1, 2, 3], [4] * 3)
    assert (result.difference, result.p_value, result.ci95) == (0.0, 1.0, None)
    assert result.minimum_detectable is None
    assert verdicts([result]) == ["indistinguishable"]


def test_differences_that_do_not_scatter_give_no_interval() -> None:
    # 1/10 on each of ten problems: their mean in floating point is 0.09999999999999999, a scatter of 1e-17
    result = compare_problems([1] * 10, [10] * 10, [2] * 10, [10] * 10)
    assert (result.ci95, result.minimum_detectable) == (None, None)
    assert result.p_value == pytest.approx(2 / 2**10)
    # three runs of 0.6 sum to 1.7999999999999998
    for seeds in (3, 4):
        result = compare_seeds([0.5] * seeds, [0.6] * seeds)
        assert (result.ci95, result.minimum_detectable) == (None, None)
        assert result.difference == pytest.approx(0.1)
    assert compare_seeds([0.5] * 4, [0.6] * 3 + [0.7]).ci95 is not None  # one side scatters


def test_one_problem_gives_no_interval_and_no_verdict() -> None:
    result = compare_problems([0], [4], [4], [4])
    assert (result.ci95, result.minimum_detectable, result.p_value) == (None, None, 1.0)
    assert verdicts([result]) == ["indistinguishable"]


def test_unmatched_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="same problems"):
        compare_problems([1, 2], [4, 4], [1], [4])
    with pytest.raises(ValueError, match="same problems"):
        compare_problems([], [], [], [])


def simulated(gain: float, spread: float, repeats: int) -> tuple[float, float, float]:
    """Shares of better and worse, and coverage: 30 problems x 32 samples, A near 55%, B better by gain +- spread."""
    generator = np.random.default_rng(7)
    better = worse = covered = 0
    for _ in range(repeats):
        chances = generator.beta(0.561, 0.459, size=30)
        gains = np.clip(chances + gain + spread * generator.standard_normal(30), 0, 1)
        a, b = generator.binomial(32, chances), generator.binomial(32, gains)
        result = compare_problems(a.tolist(), [32] * 30, b.tolist(), [32] * 30)
        verdict = verdicts([result])[0]
        better, worse = better + (verdict == "better"), worse + (verdict == "worse")
        assert result.ci95 is not None
        covered += result.ci95[0] <= gain <= result.ci95[1]
    return better / repeats, worse / repeats, covered / repeats


def test_false_alarms_are_between_2_and_7_percent_and_the_interval_covers() -> None:
    better, worse, covered = simulated(0.0, 0.0, 600)
    assert 0.02 <= better + worse <= 0.07
    assert 0.93 <= covered <= 0.975


def test_a_gain_of_six_points_is_found_four_times_out_of_five() -> None:
    better, worse, _ = simulated(0.06, 0.0, 300)
    assert better >= 0.8
    assert worse == 0.0


def test_a_gain_that_differs_by_problem_is_found_less_often() -> None:
    better, worse, _ = simulated(0.06, 0.06, 300)  # docs/comparing.md: 69% of 2,000 pairs
    assert 0.58 <= better <= 0.79  # +- 4 standard errors
    assert worse <= 0.01


def test_the_minimum_detectable_difference_is_found_in_80_percent_of_comparisons() -> None:
    generator = np.random.default_rng(2)

    def draw(gain: float) -> Comparison:
        chances = generator.uniform(0.2, 0.7, size=40)
        a, b = generator.binomial(16, chances), generator.binomial(16, chances + gain)
        return compare_problems(a.tolist(), [16] * 40, b.tolist(), [16] * 40)

    detectable = float(np.mean([draw(0.0).minimum_detectable for _ in range(50)]))
    found = np.mean([draw(detectable).p_value < 0.05 for _ in range(300)])
    assert 0.72 <= found <= 0.88  # 80% +- 3.5 standard errors


@pytest.mark.parametrize("seeds", [4, 5])
def test_the_minimum_detectable_difference_between_seeds_is_found_in_80_percent(seeds: int) -> None:
    generator = np.random.default_rng(0)
    nulls = [compare_seeds(*generator.normal(size=(2, seeds)).tolist()).minimum_detectable for _ in range(300)]
    assert None not in nulls
    detectable = math.sqrt(np.mean(np.square(np.array(nulls, dtype=float))))  # the scatter is estimated from few runs
    draws = generator.normal(size=(400, 2, seeds))
    found = np.mean([of_runs(a, b + detectable).p_value() < 0.05 for a, b in draws])
    assert 0.72 <= found <= 0.88  # 80% +- 4 standard errors


def test_three_seeds_a_side_could_have_shown_nothing() -> None:
    assert compare_seeds([0.1, 0.2, 0.3], [0.7, 0.8, 0.9]).minimum_detectable is None
    assert compare_seeds([0.1, 0.2, 0.3, 0.4], [0.7, 0.8, 0.9, 1.0], alpha=0.02).minimum_detectable is None


def test_seed_permutation_worked_by_hand() -> None:
    # Every run of B above every run of A: the split and its mirror, of C(8,4) = 70
    result = compare_seeds([0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8])
    assert result.p_value == pytest.approx(2 / 70)
    assert result.smallest_p == pytest.approx(2 / 70)
    assert (result.unit, result.wins, result.ties, result.losses) == ("seed", 16, 0, 0)
    assert result.difference == pytest.approx(0.4)
    # 4/70 is more than 0.05, so that only the split and its mirror may be refused. The others: one run each changes
    # sides, 0.4 and 0.5 (0.1 apart) at the one end, 0.1 and 0.8 (0.7) at the other
    assert result.ci95 == pytest.approx((0.1, 0.7))
    assert verdicts([result]) == ["better"]


def test_three_against_three_is_not_enough_and_four_are_needed() -> None:
    # smallest p of 3 against 3: 2 / 20 = 0.1; of 4 against 4: 2 / 70 = 0.029
    result = compare_seeds([0.1, 0.2, 0.3], [0.7, 0.8, 0.9])
    assert verdicts([result]) == ["not enough seeds"]
    assert seeds_needed(0.05) == 4
    assert seeds_needed(0.01) == 5  # 2 / 252 = 0.0079
    assert seeds_needed(0.05, pairs=3) == 5  # 0.0167 lies between 2 / 70 and 2 / 252


def test_equal_runs_are_not_a_verdict() -> None:
    result = compare_seeds([0.5] * 4, [0.5] * 4)
    assert (result.p_value, result.minimum_detectable, result.ci95) == (1.0, None, None)
    assert verdicts([result]) == ["indistinguishable"]


def test_one_run_against_several_has_a_difference_without_an_interval() -> None:
    result = compare_seeds([0.5], [0.6, 0.8])
    assert result.difference == pytest.approx(0.2)
    assert result.ci95 is None
    assert verdicts([result]) == ["not enough seeds"]


def test_seed_verdicts_under_the_null_are_rarely_wrong() -> None:
    generator = np.random.default_rng(4)
    results = [compare_seeds(generator.normal(size=5).tolist(), generator.normal(size=5).tolist()) for _ in range(400)]
    wrong = np.mean([verdicts([result])[0] != "indistinguishable" for result in results])
    assert 0.02 <= wrong <= 0.08  # at most 12 / 252 = 4.8%, +- 3 standard errors


def test_holm_worked_by_hand() -> None:
    # sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1 = 0.04, 0.06, 0.06, 0.5; never decreasing
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([0.4, 0.6]) == pytest.approx([0.8, 0.8])
    assert holm([]) == []


def test_the_level_that_decides_is_that_of_holms_step() -> None:
    # 0.01 < 0.05/4; 0.015 < 0.05/3; 0.03 is not below 0.05/2, so 0.04 is held against that as well
    assert deciding_levels([0.03, 0.01, 0.04, 0.015], 0.05) == pytest.approx([0.025, 0.0125, 0.025, 0.05 / 3])
    assert deciding_levels([0.03, 0.04], 0.05) == [0.025, 0.025]
    assert deciding_levels([0.02, 0.04], 0.05) == [0.025, 0.05]
    assert deciding_levels([], 0.05) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.lists(st.integers(0, 8), min_size=8, max_size=8)] * 2), min_size=1, max_size=4),
    st.lists(st.tuples(*[st.lists(st.integers(0, 30), min_size=4, max_size=6)] * 2), max_size=4),
    st.sampled_from([0.01, 0.05, 0.0625, 0.1, 0.2]),
)
def test_a_verdict_is_given_exactly_if_its_interval_leaves_0_out(
    problems: list[tuple[list[int], list[int]]], seeds: list[tuple[list[int], list[int]]], alpha: float
) -> None:
    pairs = [compare_problems(a, [8] * 8, b, [8] * 8) for a, b in problems]
    pairs += [compare_seeds([value / 30 for value in a], [value / 30 for value in b]) for a, b in seeds]
    for one, decision in zip(pairs, decide(pairs, alpha), strict=True):
        told = decision.verdict in ("better", "worse")
        assert told == (decision.p_holm < alpha)
        if decision.interval is not None:
            low, high = decision.interval
            assert told == (not low <= 0 <= high)
            assert low <= one.difference <= high
            assert not told or (decision.verdict == "better") == (low > 0)
            assert decision.verdict != "not enough seeds"
            if decision.level == 0.05:
                assert decision.interval == one.ci95


def test_a_pair_that_holm_does_not_tell_apart_has_an_interval_that_holds_0_though_its_own_95_percent_does_not() -> None:
    # p = 2/2^6 = 0.031: below 0.05, not below 0.05 / 2
    single = compare_problems([0] * 6, [8] * 6, [1, 2, 3, 4, 5, 6], [8] * 6)
    other = compare_problems([1] * 6, [8] * 6, [1] * 6, [8] * 6)
    assert single.ci95 is not None
    assert single.ci95[0] > 0
    (alone,) = decide([single])
    assert (alone.verdict, alone.level, alone.interval) == ("better", 0.05, single.ci95)
    first, _ = decide([single, other])
    assert (first.verdict, first.level, first.interval) == ("indistinguishable", 0.025, None)  # 2/64 is the least
    first, _ = decide([compare_problems([0] * 7, [8] * 7, [0, 2, 3, 4, 5, 6, 7], [8] * 7), other])
    assert first.interval is not None  # p = 4/2^7 = 0.031 too, and the least is 2/128
    assert (first.interval[0], first.verdict) == (0, "indistinguishable")


def pair(p_value: float, *, difference: float = 0.1, unit: str = "problem", smallest: float = 1e-6) -> Comparison:
    return Comparison(difference, None, p_value, unit, 0, 0, 0, None, smallest)


def test_verdicts_are_taken_after_holm() -> None:
    assert verdicts([pair(0.03)]) == ["better"]
    assert verdicts([pair(0.03), pair(0.04, difference=-0.1)]) == ["indistinguishable"] * 2
    assert verdicts([pair(0.02), pair(0.04, difference=-0.1)]) == ["better", "worse"]
    assert verdicts([pair(0.05)]) == ["indistinguishable"]  # below alpha, not at it
    assert verdicts([pair(0.03)], alpha=0.01) == ["indistinguishable"]


def test_seeds_are_too_few_when_holm_alone_puts_a_verdict_out_of_reach() -> None:
    four = [pair(2 / 70, unit="seed", smallest=2 / 70) for _ in range(3)]
    assert verdicts(four[:1]) == ["better"]
    assert verdicts(four) == ["not enough seeds"] * 3  # 3 * 2/70 = 0.086
