"""benchmarks/cost.py: its fits, and a step of each kind of sweep."""

from __future__ import annotations

import math

import cost
import pytest


def test_a_power_law_is_found_with_its_interval() -> None:
    sizes = [1.0, 2.0, 4.0, 8.0]
    exact = cost.fitted(sizes, [3 * size**1.5 for size in sizes])
    assert exact.exponent == pytest.approx(1.5)
    assert (exact.low, exact.high) == pytest.approx((1.5, 1.5))
    # Logs to base 2: y = 0, 1.5, 1.5, 3 over x = 0..3. Slope 4.5 / 5 = 0.9, residuals -.15, .45, -.45, .15, whose
    # squares add up to 0.45; the slope's error is sqrt(0.45 / 2 / 5) = 0.2121, times t(0.975; 2) = 4.3027 is 0.9127.
    scattered = cost.fitted(sizes, [2.0**y for y in (0, 1.5, 1.5, 3)])
    assert scattered.exponent == pytest.approx(0.9)
    assert (scattered.low, scattered.high) == pytest.approx((0.9 - 0.9127, 0.9 + 0.9127), abs=1e-4)


def test_two_points_have_no_interval() -> None:
    fit = cost.fitted([1.0, 2.0], [1.0, 4.0])
    assert fit.exponent == pytest.approx(2.0)
    assert math.isnan(fit.low)


def test_a_table_has_a_column_a_size() -> None:
    lines = cost.table("length", {"sizes": [32.0, 64.0], "parts": {"rollout": [1.0, 2.0]}})
    assert lines[0] == "| length | 32 | 64 | exponent |"
    assert lines[2] == "| rollout | 1.000 s | 2.000 s | 1.00 [nan, nan] |"


def test_a_step_is_drawn_and_trained_and_its_weights_are_counted() -> None:
    step, weights = cost.step_of(cost.Point(group=2, length=4, vocabulary=64, width=16, prompts=2, prompt=3, layers=1))
    rollout, training = step()
    assert rollout > 0
    assert training > 0
    # width 16: four heads of 4, two of them with keys and values; 64 within. q 16x16, k and v 16x8, o 16x16, their
    # biases 16 + 8 + 8, the MLP 3 x 16x64, two norms of 16, and the last one.
    assert weights == 256 + 2 * 128 + 256 + 32 + 3 * 1024 + 32 + 16
