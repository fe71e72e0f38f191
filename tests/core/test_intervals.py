"""Standard errors worked by hand, edge cases, and the coverage of the interval by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dgpo_cli.core.intervals import MeanReward, avg_interval, mean_interval


def test_both_standard_errors_worked_by_hand() -> None:
    # shares 1, 1/2, 0 of 4 samples. sampling variance: (0 + (1/4)/3 + 0) / 9; spread: std 1/2, / sqrt(3)
    result = avg_interval([4, 2, 0], [4, 4, 4])
    assert (result.k, result.value) == (4, 0.5)
    assert result.se_sampling == pytest.approx(math.sqrt(0.25 / 3) / 3)
    assert result.se_total == pytest.approx(0.5 / math.sqrt(3))
    # t(0.975, 2) = 4.302653: 0.5 +- 1.242 is cut to [0, 1]
    assert result.ci95 == (0.0, 1.0)


def test_interval_is_the_t_interval_of_the_problem_shares() -> None:
    # shares 0.6, 0.5, 0.4, 0.5: mean 0.5, std sqrt(0.02/3); t(0.975, 3) = 3.182446
    result = avg_interval([6, 5, 4, 5], [10] * 4)
    half = 3.182446 * math.sqrt(0.02 / 3) / 2
    assert result.ci95 == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)


def test_thirty_problems_near_55_percent_have_the_two_errors_that_the_field_should_quote() -> None:
    generator = np.random.default_rng(0)
    shares = generator.beta(0.561, 0.459, size=(400, 30))  # mean 0.55, std 0.35 over problems
    results = [avg_interval(generator.binomial(32, row).tolist(), [32] * 30) for row in shares]
    assert np.mean([result.se_sampling for result in results]) == pytest.approx(0.011, abs=0.001)
    assert np.mean([result.se_total for result in results]) == pytest.approx(0.064, abs=0.002)


def test_one_sample_a_problem_says_nothing_of_the_sampling_error() -> None:
    result = avg_interval([1, 0, 1], [1, 1, 1])
    assert result.se_sampling is None
    assert result.se_total == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))


def test_one_problem_says_nothing_of_other_problems() -> None:
    result = avg_interval([3], [4])
    assert (result.value, result.se_total, result.ci95) == (0.75, None, None)
    assert result.se_sampling == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_all_right_and_all_wrong_still_have_an_interval_of_some_width() -> None:
    # 30 of 30: the share p with p^30 = 0.025 is 0.8843 (Clopper-Pearson)
    assert avg_interval([8] * 30, [8] * 30).ci95 == pytest.approx((0.8843, 1.0), abs=1e-4)
    assert avg_interval([0] * 30, [8] * 30).ci95 == pytest.approx((0.0, 0.1157), abs=1e-4)


def test_equal_shares_between_fall_back_to_the_sampling_error() -> None:
    result = avg_interval([1, 1], [2, 2])
    assert result.se_total == 0.0
    assert result.se_sampling == pytest.approx(math.sqrt(0.5) / 2)
    # sqrt(0.5)/2 = 0.354 times t(0.975, 1) = 12.7 is cut to everything
    assert result.ci95 == (0.0, 1.0)


def test_k_is_the_smallest_number_of_samples_where_they_differ() -> None:
    assert avg_interval([1, 2], [3, 5]).k == 3


@pytest.mark.parametrize(
    ("problems", "k", "a", "b"),
    [(30, 32, 0.561, 0.459), (30, 8, 2.0, 2.0), (30, 1, 1.0, 1.0), (512, 1, 1.0, 2.0)],
)
def test_coverage_of_the_interval_is_between_93_and_97_percent(problems: int, k: int, a: float, b: float) -> None:
    """Problems drawn from a Beta(a, b) of difficulties, then samples: the interval covers the mean difficulty."""
    generator = np.random.default_rng(1)
    repeats = 1500  # standard error 0.56%
    shares = generator.beta(a, b, size=(repeats, problems))
    counts = generator.binomial(k, shares).tolist()
    covered = 0
    for row in counts:
        interval = avg_interval(row, [k] * problems).ci95
        assert interval is not None
        covered += interval[0] <= a / (a + b) <= interval[1]
    assert 0.93 <= covered / repeats <= 0.97


def test_the_interval_of_a_mean_reward_is_a_t_interval_of_the_problems_means() -> None:
    # means 2, 4: mean 3, std sqrt(2), / sqrt(2) = 1; t(0.975, 1) = 12.7062
    found = mean_interval([[1.0, 3.0], [4.0]])
    assert found.mean == 3.0
    assert found.se_total == pytest.approx(1.0)
    assert found.ci95 == pytest.approx((3 - 12.7062, 3 + 12.7062), abs=1e-4)


def test_a_mean_reward_of_one_problem_or_of_equal_ones_has_no_interval() -> None:
    assert mean_interval([[0.25, 0.75]]) == MeanReward(0.5, None, None)
    assert mean_interval([[0.5], [0.5]]) == MeanReward(0.5, 0.0, None)
