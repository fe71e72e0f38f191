"""Where a figure should lie by what others found, and where an interval lies beside that range."""

from __future__ import annotations

import math

from dgpo_cli.core.quantiles import student_quantile


def prediction_range(mean: float, sd: float, seeds: int) -> tuple[float, float]:
    """Where one further seed lies with 95%, from the mean and the standard deviation (ddof=1) of `seeds` normal ones.

        mean +- t(0.975, seeds - 1) * sd * sqrt(1 + 1 / seeds)

    The range is wide with few seeds: 4.97 sd either way with three, 3.04 sd with five.
    """
    half = student_quantile(seeds - 1, 0.975) * sd * math.sqrt(1 + 1 / seeds)
    return mean - half, mean + half


def placed(ci95: tuple[float, float] | None, low: float, high: float) -> str:
    """`below`, `inside` or `above` if the whole interval lies there, else (and without one) `undecided`.

    The ends of the range belong to it.
    """
    if ci95 is None:
        return "undecided"
    if ci95[1] < low:
        return "below"
    if ci95[0] > high:
        return "above"
    return "inside" if low <= ci95[0] and ci95[1] <= high else "undecided"
