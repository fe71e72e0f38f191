"""avg@k, pass@k and maj@k against hand-worked tables and enumeration."""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations

import pytest

from dgpo_cli.core.pass_at_k import avg_at_k, maj_at_k, majority, pass_at_k


def test_avg_is_the_mean_over_problems_of_the_share_of_right_samples() -> None:
    # 4/4, 1/4, 0/4: (1 + 0.25 + 0) / 3
    assert avg_at_k([4, 1, 0], [4, 4, 4]) == pytest.approx(1.25 / 3)
    # A problem with more samples does not weigh more: (1/2 + 0/8) / 2, not 1/10.
    assert avg_at_k([1, 0], [2, 8]) == 0.25


def test_pass_at_k_equals_enumeration_of_all_subsets() -> None:
    for samples in range(1, 9):
        for correct in range(samples + 1):
            right = set(range(correct))
            for k in range(1, samples + 1):
                subsets = list(combinations(range(samples), k))
                share = Fraction(sum(bool(right & set(subset)) for subset in subsets), len(subsets))
                assert pass_at_k(samples, correct, k) == pytest.approx(float(share), abs=1e-14)


def test_pass_at_k_worked_by_hand() -> None:
    # n=4, c=1, k=2: 1 - C(3,2)/C(4,2) = 1 - 3/6
    assert pass_at_k(4, 1, 2) == pytest.approx(0.5)
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 1, 4) == 1.0
    assert pass_at_k(32, 8, 1) == pytest.approx(0.25)


def test_pass_at_k_of_many_samples_neither_overflows_nor_loses_precision() -> None:
    # c = 1: exactly k / n
    assert pass_at_k(100_000, 1, 50_000) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize(("samples", "correct", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_refuses_what_the_samples_cannot_say(samples: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError):
        pass_at_k(samples, correct, k)


def test_majority_is_the_most_common_answer_and_ties_go_to_the_first_seen() -> None:
    assert majority(["7", "3", "3"]) == 1
    assert majority(["7", "3", "3", "7"]) == 0
    assert majority(["3", "7", "7", "3", "9"]) == 0


def test_samples_without_an_answer_do_not_vote() -> None:
    assert majority([None, None, None, "3"]) == 3
    assert majority([None, None]) is None


def test_maj_at_k_of_all_samples_is_one_vote() -> None:
    answers = ["5", None, "4", "4", None, "5", "5"]  # 5 wins by 3 to 2
    assert maj_at_k(answers, [answer == "5" for answer in answers], 7) == 1.0
    assert maj_at_k(answers, [answer == "4" for answer in answers], 7) == 0.0
    assert maj_at_k([None, None], [False, False], 2) == 0.0


def test_maj_at_k_below_n_averages_the_votes_of_consecutive_blocks() -> None:
    # blocks (3,4,4) (3,3,4) (4,-,-), gold 3: wrong, right, wrong. A tenth sample stands in no block.
    answers = ["3", "4", "4", "3", "3", "4", "4", None, None, "3"]
    assert maj_at_k(answers, [answer == "3" for answer in answers], 3) == pytest.approx(1 / 3)


def test_maj_at_1_is_the_share_of_right_samples() -> None:
    answers = ["3", None, "3", "4"]
    assert maj_at_k(answers, [True, False, True, False], 1) == 0.5


def test_maj_at_k_refuses_more_votes_than_samples() -> None:
    with pytest.raises(ValueError, match="maj@3 needs at least 3"):
        maj_at_k(["1", "2"], [True, False], 3)


def test_avg_refuses_no_problems_and_unmatched_counts() -> None:
    with pytest.raises(ValueError):
        avg_at_k([], [])
    with pytest.raises(ValueError):
        avg_at_k([1], [1, 1])
