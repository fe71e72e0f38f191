"""Looking at a comparison more than once without more false alarms: alpha spending over looks.

A comparison of seeds is looked at whenever each side has got further runs. Each look may spend a part of alpha: what
the spending function allows by then (Lan and DeMets, Biometrika 1983), less what earlier looks have spent. How often
several looks would all have found the same is worked out for sums of normal increments, as in every group-sequential
design, by integrating from look to look (Armitage, McPherson and Rowe, JRSS A 1969).

p-values of a permutation test are multiples of a smallest one. A look spends the largest multiple that it is allowed,
so that one which could not have decided costs nothing, and what it leaves is there for the looks after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.core.comparison import smallest_seed_p
from dgpo_cli.core.quantiles import normal_cdf, normal_quantile

Floats = NDArray[np.float64]

GRID = 1001  # points of the density between the bounds: halving their distance moves a level by less than 1e-6
FINEST = 1e-12  # p-values in smaller steps are as good as continuous
WIDEST = 8.0  # standard deviations; further out there is nothing


def spent(fraction: float, alpha: float) -> float:
    """Of alpha, what may be spent by the look at which `fraction` of the largest number of runs is there.

        4 - 4 Phi(z(1 - alpha / 4) / sqrt(t))

    For either side half of alpha. It goes with bounds of O'Brien and Fleming's type: little is spent on few runs, so
    that a study which goes to its end finds about as much as one of that size without looks.
    """
    if fraction <= 0:
        return 0.0
    return 4 * float(normal_cdf(normal_quantile(alpha / 4) / math.sqrt(min(1.0, fraction))))


def look_levels(looks: Sequence[int], alpha: float, most: int | None = None) -> list[float]:
    """The level that the two-sided p-value of `comparison.compare_seeds` is held against at each look.

    looks: runs a side, ascending. most: runs a side of the last look that may come, if it is not among them.
    p <= level decides. A level of 0 decides nothing: so few runs cannot.

    Raises:
        ValueError: looks do not ascend, or begin below 1.
    """
    if not looks or looks[0] < 1 or any(later <= earlier for earlier, later in pairwise(looks)):
        raise ValueError(f"expected ascending numbers of runs, got {list(looks)}")
    largest = most or looks[-1]
    levels: list[float] = []
    used = 0.0
    density: Floats | None = None  # of the sum, over `points`, and not decided before
    points = np.zeros(1)
    for number, runs in enumerate(looks):
        step = math.sqrt(runs - (looks[number - 1] if number else 0))
        allowed = spent(runs / largest, alpha) - used
        level = _level(allowed, smallest_seed_p(runs, runs), density, points, step, math.sqrt(runs))
        bound = math.sqrt(runs) * (WIDEST if level <= 0 else min(WIDEST, -normal_quantile(level / 2)))
        used += _beyond(bound, density, points, step) if level > 0 else 0.0
        levels.append(level)
        grid = np.linspace(-bound, bound, GRID)
        density = _moved(grid, density, points, step)
        points = grid
    return levels


def _level(
    allowed: float, smallest: float, density: Floats | None, points: Floats, step: float, deviation: float
) -> float:
    """The largest multiple of `smallest` with which no more than `allowed` is spent; 0 if one is too many."""
    smallest = max(smallest, FINEST)
    low, high = 0, int(1 / smallest) + 1
    while high - low > 1:
        middle = (low + high) // 2
        bound = -normal_quantile(min(1.0, middle * smallest) / 2) * deviation
        if _beyond(bound, density, points, step) <= allowed * (1 + 1e-9):
            low = middle
        else:
            high = middle
    return low * smallest


def _beyond(bound: float, density: Floats | None, points: Floats, step: float) -> float:
    """The chance that a path undecided so far is outside of +- bound after a step of this standard deviation."""
    if density is None:
        return 2 * float(normal_cdf(-bound / step))
    tails = normal_cdf((-bound - points) / step) + normal_cdf((points - bound) / step)
    return float(np.trapezoid(density * tails, points))


def _moved(grid: Floats, density: Floats | None, points: Floats, step: float) -> Floats:
    """The density of the sum after a further step, on `grid`."""
    if density is None:
        return np.exp(-0.5 * (grid / step) ** 2) / (step * math.sqrt(2 * math.pi))
    kernel = np.exp(-0.5 * ((grid[:, None] - points[None, :]) / step) ** 2) / (step * math.sqrt(2 * math.pi))
    return np.asarray(np.trapezoid(kernel * density[None, :], points, axis=1))  # [grid]


def decides(p_value: float, level: float) -> bool:
    """p <= level, whatever the last bits of either say."""
    return p_value <= level * (1 + 1e-9)
