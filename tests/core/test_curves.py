"""Bands of learning curves, worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from dgpo_cli.core.curves import seed_band


def test_seeds_with_the_same_steps_give_mean_and_range_at_each_step() -> None:
    band = seed_band([([1, 2, 3], [0.0, 0.5, 1.0]), ([1, 2, 3], [0.5, 0.5, 0.25])])
    assert band is not None
    assert band.x.tolist() == [1, 2, 3]
    assert band.mean.tolist() == [0.25, 0.5, 0.625]
    assert band.low.tolist() == [0.0, 0.5, 0.25]
    assert band.high.tolist() == [0.5, 0.5, 1.0]
    assert band.runs == 2


def test_runs_at_other_places_are_compared_at_equal_x_by_straight_lines() -> None:
    # The first passes 2 at y = 1 and 4 at y = 3, the second is flat; they share 1 to 5, in three points
    band = seed_band([([0, 3, 6], [-1.0, 2.0, 5.0]), ([1, 3, 5], [1.0, 1.0, 1.0])])
    assert band is not None
    assert band.x.tolist() == [1, 3, 5]
    assert band.mean.tolist() == [0.5, 1.5, 2.5]


def test_a_shorter_run_ends_the_band_rather_than_thinning_it() -> None:
    band = seed_band([([1, 2, 3, 4], [1.0, 1, 1, 1]), ([1, 2], [3.0, 3.0])])
    assert band is not None
    assert (band.x[-1], band.mean[-1], band.runs) == (2, 2.0, 2)


def test_long_curves_are_averaged_within_stretches_not_thinned() -> None:
    x = np.arange(1000.0)
    band = seed_band([(x.tolist(), ((-1.0) ** x).tolist())], points=11)  # +1 -1 +1 ...: thinning would give one sign
    assert band is not None
    assert len(band.x) == 11
    assert np.abs(band.mean[1:-1]).max() < 0.02


def test_what_is_no_number_is_left_out_and_an_empty_run_is_absent() -> None:
    band = seed_band([([1, 2, 3], [1.0, float("nan"), 3.0]), ([1, 2, 3], [float("nan")] * 3)])
    assert band is not None
    assert (band.mean.tolist(), band.runs) == ([1.0, 3.0], 1)
    assert seed_band([([1, 2], [float("inf")] * 2)]) is None
    assert seed_band([]) is None


def test_runs_without_a_shared_stretch_have_no_band() -> None:
    assert seed_band([([1, 2], [0.0, 0.0]), ([3, 4], [0.0, 0.0])]) is None


def test_single_points_are_a_band_of_one_point() -> None:
    band = seed_band([([1], [0.25]), ([1], [0.75])])
    assert band is not None
    assert (band.x.tolist(), band.mean.tolist()) == ([1], [0.5])


def test_as_many_x_as_y() -> None:
    with pytest.raises(ValueError, match="as many x as y"):
        seed_band([([1, 2], [1.0])])
