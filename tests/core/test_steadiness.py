"""How a series varies, and what one figure a run is over several runs."""

from __future__ import annotations

import pytest

from dgpo_cli.core.steadiness import over_runs, variation


def test_variation_is_the_standard_deviation_over_the_mean() -> None:
    assert variation([1.0, 2.0, 3.0]) == pytest.approx(1.0 / 2.0)
    assert variation([10.0, 20.0, 30.0]) == pytest.approx(0.5)  # another unit, the same variation
    assert variation([3.0, 3.0]) == 0.0
    assert (variation([3.0]), variation([]), variation([0.0, 1.0])) == (None, None, None)


def test_the_interval_over_runs_is_students() -> None:
    found = over_runs([1.0, 2.0, 3.0])
    assert found is not None
    assert found.mean == 2.0
    half = 4.302653 / 3**0.5  # t(0.975, 2) * 1 / sqrt(3)
    assert found.ci95 == pytest.approx((2 - half, 2 + half))
    alone = over_runs([2.0])
    assert alone is not None
    assert (alone.mean, alone.ci95) == (2.0, None)
    assert over_runs([]) is None


def test_a_maximum_without_bound_is_averaged_by_its_powers() -> None:
    found = over_runs([1.0, 10.0, 100.0], geometric=True)  # powers 0, 1, 2 of ten
    assert found is not None
    assert found.mean == pytest.approx(10.0)
    half = 4.302653 / 3**0.5
    assert found.ci95 == pytest.approx((10 ** (1 - half), 10 ** (1 + half)))
    assert over_runs([0.0, 1.0], geometric=True) is None
