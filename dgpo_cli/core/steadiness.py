"""How steady a series of training steps is, and what a figure is over several runs: no I/O, numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from dgpo_cli.core.intervals import MeanReward, mean_interval


def variation(values: Sequence[float]) -> float | None:
    """Coefficient of variation: std(ddof=1) / mean of at least two positive numbers; None otherwise.

    A trend counts as variation too: a norm that falls by half in the course of a run is not constant.
    """
    if len(values) < 2 or min(values) <= 0:
        return None
    series = np.asarray(values, dtype=np.float64)
    return float(np.std(series, ddof=1) / np.mean(series))


def over_runs(values: Sequence[float], *, geometric: bool = False) -> MeanReward | None:
    """The mean of one value a run with its 95% interval (Student's t over runs); None of no runs.

    geometric: the mean and the interval are those of the logarithms, brought back by exp. For maxima without a bound,
    which scatter over powers of ten; None if one of them is not positive. Its se_total is None.
    """
    if not values or (geometric and min(values) <= 0):
        return None
    if not geometric:
        return mean_interval([[value] for value in values])
    of_logs = mean_interval([[math.log(value)] for value in values])
    ci95 = None if of_logs.ci95 is None else (math.exp(of_logs.ci95[0]), math.exp(of_logs.ci95[1]))
    return MeanReward(math.exp(of_logs.mean), None, ci95)
