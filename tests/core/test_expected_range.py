"""Where another seed should lie, and on which side of that an interval stands."""

from __future__ import annotations

import pytest

from dgpo_cli.core.expected_range import placed, prediction_range


def test_another_seed_lies_within_students_t_of_the_mean() -> None:
    # Three seeds: t(0.975, 2) = 4.3027, times sqrt(1 + 1/3) = 1.1547: 4.968 standard deviations
    assert prediction_range(0.5, 0.01, 3) == pytest.approx((0.5 - 0.04968, 0.5 + 0.04968), abs=1e-5)
    assert prediction_range(0.5, 0.0, 2) == (0.5, 0.5)


@pytest.mark.parametrize(
    ("ci95", "expected"),
    [
        ((0.41, 0.49), "inside"),
        ((0.4, 0.5), "inside"),  # the ends belong to it
        ((0.3, 0.39), "below"),
        ((0.51, 0.6), "above"),
        ((0.39, 0.41), "undecided"),
        ((0.3, 0.6), "undecided"),
        (None, "undecided"),
    ],
)
def test_an_interval_beside_a_range(ci95: tuple[float, float] | None, expected: str) -> None:
    assert placed(ci95, 0.4, 0.5) == expected
