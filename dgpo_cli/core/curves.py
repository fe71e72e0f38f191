"""Learning curves of several seeds as one: their mean and the band between the lowest and the highest.

The band of a metric is the range: of three to five runs a standard deviation says little and a range is plain. The band
of held-out accuracy, which verdicts are about, is an interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.core.intervals import mean_interval

Floats = NDArray[np.float64]

MAX_POINTS = 200  # of a curve; a longer one is averaged within as many equal stretches


@dataclass(frozen=True)
class Band:
    """Mean over `runs` seeds at each x, and the lowest and highest of them. All arrays [points]."""

    x: Floats
    mean: Floats
    low: Floats
    high: Floats
    runs: int


def interval_band(
    x: Sequence[Sequence[float]],
    y: Sequence[Sequence[float]],
    own: Sequence[tuple[float, float] | None],
    *,
    bounds: tuple[float, float],
) -> Band:
    """The mean of the runs' values at each of some points, with a 95% interval in place of the range.

    x, y: [points][runs], all finite; a point stands at the mean x. own: the interval of each point if there is one run;
    of several it is Student's t over runs, cut to `bounds`. NaN where there is none.
    """
    runs = len(y[0])
    ends = own if runs == 1 else [mean_interval([[value] for value in values]).ci95 for values in y]
    low, high = (np.array([math.nan if one is None else one[end] for one in ends], dtype=np.float64) for end in (0, 1))
    means = [np.asarray(values, dtype=np.float64).mean(axis=1) for values in (x, y)]
    return Band(means[0], means[1], np.maximum(low, bounds[0]), np.minimum(high, bounds[1]), runs)


def seed_band(series: Sequence[tuple[Sequence[float], Sequence[float]]], *, points: int = MAX_POINTS) -> Band | None:
    """The band of (x, y) of each run, with x rising, over the stretch of x that all of them cover.

    Values that are not finite are left out, and a run without any counts as absent. Runs need not share their x: each
    is brought to a common, equally spaced grid, by straight lines between its points, or by the mean within each
    stretch where it has more points than the grid. None where no run has values or where they share no stretch.
    """
    known = [_finite(x, y) for x, y in series]
    known = [(x, y) for x, y in known if len(x)]
    if not known:
        return None
    low, high = max(float(x[0]) for x, _ in known), min(float(x[-1]) for x, _ in known)
    if low > high:
        return None
    count = min(points, max(len(x) for x, _ in known)) if high > low else 1
    grid = np.linspace(low, high, count)
    values = np.array([_resampled(x, y, grid) for x, y in known])  # [runs, points]
    return Band(grid, values.mean(axis=0), values.min(axis=0), values.max(axis=0), len(known))


def _finite(x: Sequence[float], y: Sequence[float]) -> tuple[Floats, Floats]:
    at, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if at.shape != values.shape or at.ndim != 1:
        raise ValueError(f"a curve needs as many x as y, got {at.shape} and {values.shape}")
    keep = np.isfinite(at) & np.isfinite(values)
    return at[keep], values[keep]


def _resampled(x: Floats, y: Floats, grid: Floats) -> Floats:
    """y on an equally spaced grid."""
    if len(x) <= len(grid) or len(grid) == 1:
        return np.interp(grid, x, y)
    width = grid[1] - grid[0]
    cell = np.floor((x - grid[0]) / width + 0.5).astype(int)
    inside = (cell >= 0) & (cell < len(grid))
    counts = np.bincount(cell[inside], minlength=len(grid))
    sums = np.bincount(cell[inside], weights=y[inside], minlength=len(grid))
    filled = counts > 0
    return np.interp(grid, grid[filled], sums[filled] / counts[filled])
