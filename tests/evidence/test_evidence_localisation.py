"""Measures of localisation by hand: ranks, ties, floors and the intervals by prompt."""

from __future__ import annotations

import numpy as np
import pytest

from dgpo_cli.evidence.localisation import (
    WrongCompletion,
    as_record,
    floors,
    located,
    measures,
    results,
    token_at,
    wrong_cells,
)


def scores(*values: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(values, dtype=np.float64)


def test_measures_by_hand() -> None:
    assert measures(scores(1, 4, 3), 1) == (1.0, 1.0, 0.5)
    assert measures(scores(1, 4, 3), 0) == pytest.approx((0.0, 1 / 3, 0.125))


def test_ties_are_worth_what_chance_makes_of_them() -> None:
    precision, rank, share = measures(scores(2, 2, 0), 0)
    assert (precision, rank, share) == (0.5, 0.75, 0.5)
    assert measures(scores(3, 1, 1), 1) == pytest.approx((0.0, (1 / 2 + 1 / 3) / 2, 0.2))


def test_a_constant_score_is_as_good_as_chance() -> None:
    assert measures(scores(1, 1, 1, 1), 2) == pytest.approx((0.25, (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, 0.25))
    assert measures(scores(0, 0), 1) == (0.5, 0.75, 0.0)  # no credit at all: none lies on the wrong token


def test_scores_below_zero_have_no_share() -> None:
    assert measures(scores(-1, 2), 1)[2] is None
    assert located("signal", "logratio", [WrongCompletion(0, 0, ("1", ""), 1)], [scores(-1, 2)]).share is None


def test_a_character_lies_in_its_token() -> None:
    assert [token_at(("ab", "c", ""), place) for place in range(5)] == [0, 0, 1, 2, None]
    assert token_at(("ab",), 2) is None  # cut off before its end was wrong


def test_results_follow_an_equals_sign() -> None:
    assert results(("9", "+1", "=", "0", " ", "-2=", "8", "#", "8")) == [3, 6]


def test_floors_look_at_the_text_and_at_other_prompts_alone() -> None:
    tokens = ("9", "=", "1", "=", "2", "")
    found = floors(
        [WrongCompletion(0, 0, tokens, 2), WrongCompletion(0, 1, tokens, 2), WrongCompletion(7, 0, tokens, 4)]
    )
    assert found["random"][0].tolist() == [1, 1, 1, 1, 1, 1]
    assert found["digits"][0].tolist() == [1, 0, 1, 0, 1, 0]
    assert found["results"][0].tolist() == [0, 0, 1, 0, 1, 0]
    assert found["first result"][0].tolist() == [0, 0, 1, 0, 0, 0]
    assert found["position"][0].tolist() == [0, 0, 0, 0, 1, 0]  # the other prompt's mistake, none of its own
    assert found["position"][2].tolist() == [0, 0, 2, 0, 0, 0]


def test_prompts_weigh_alike_and_carry_the_interval() -> None:
    """Three hits of one prompt and a miss of another: 1/2, not 3/4, and an interval over two prompts."""
    completions = [WrongCompletion(0, sample, ("1", "2"), 0) for sample in range(3)] + [
        WrongCompletion(1, 0, ("1", "2"), 1)
    ]
    row = located("signal", "x", completions, [scores(1, 0)] * 4)
    assert row.precision_at_1.mean == 0.5
    assert row.precision_at_1.se_total == pytest.approx(0.5)  # std 0.707 over root 2
    assert row.precision_at_1.ci95 == (0.0, 1.0)  # +- 12.7 standard errors, cut to shares
    assert as_record([row])[0]["precision_at_1"] == {"value": 0.5, "ci95": (0.0, 1.0)}


def test_the_cells_of_first_wrong_tokens_by_hand() -> None:
    """d is high above 0.5 and H above 1: the wrong token of the first lies high, high; that of the other low, low."""
    completions = [WrongCompletion(0, 0, ("1", "2"), 0), WrongCompletion(1, 0, ("1", "2", "3", ""), 3)]
    found = wrong_cells(
        completions,
        [scores(0.9, 0.1), scores(0.9, 0.9, 0.1, 0.1)],
        [scores(2, 2), scores(0, 2, 2, 1)],  # the last lies at the bound itself, which is low
        (0.5, 1.0),
    )
    shares = {row["cell"]: (row["wrong"], row["tokens"]) for row in found}
    wrong = {cell: one["value"] for cell, (one, _) in shares.items() if isinstance(one, dict)}
    tokens = {cell: one["value"] for cell, (_, one) in shares.items() if isinstance(one, dict)}
    assert wrong == {"high_d_high_h": 0.5, "high_d_low_h": 0.0, "low_d_high_h": 0.0, "low_d_low_h": 0.5}
    assert tokens == {"high_d_high_h": 0.375, "high_d_low_h": 0.125, "low_d_high_h": 0.375, "low_d_low_h": 0.125}
