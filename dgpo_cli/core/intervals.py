"""Error bars of avg@k: how far it moves with other samples, and with other problems."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dgpo_cli.core.pass_at_k import avg_at_k
from dgpo_cli.core.quantiles import student_quantile


@dataclass(frozen=True)
class AvgAtK:
    """avg@k with its uncertainty; None where the data cannot say. All are shares of 1."""

    k: int  # samples a problem; the fewest, where problems have different numbers
    value: float
    se_sampling: float | None  # other samples of the same problems; None with one sample a problem
    se_total: float | None  # other problems of the same kind as well; None with one problem
    ci95: tuple[float, float] | None  # from se_total; None with one problem


@dataclass(frozen=True)
class MeanReward:
    """The mean reward of an evaluation with its uncertainty, in the reward's unit; None where the data cannot say."""

    mean: float  # over the problems, of each one's mean over its samples
    se_total: float | None  # other problems of the same kind; None with one problem
    ci95: tuple[float, float] | None  # None with one problem, or if all have the same reward


def mean_interval(rewards: Sequence[Sequence[float]]) -> MeanReward:
    """The mean of `rewards[i]`, those of the samples of problem i, with a 95% interval over P problems.

    With m_i the mean of problem i: se_total = std(m, ddof=1) / sqrt(P), ci95 = mean +- t(0.975, P - 1) * se_total. A
    reward has no bounds that the interval could be cut to.
    """
    means = np.asarray([sum(own) / len(own) for own in rewards], dtype=np.float64)  # [P]
    mean, problems = float(np.mean(means)), len(means)
    if problems == 1:
        return MeanReward(mean, None, None)
    if float(np.ptp(means)) == 0.0:
        return MeanReward(mean, 0.0, None)
    se_total = float(np.std(means, ddof=1)) / math.sqrt(problems)
    half = student_quantile(problems - 1, 0.975) * se_total
    return MeanReward(mean, se_total, (mean - half, mean + half))


def avg_interval(correct: Sequence[int], samples: Sequence[int]) -> AvgAtK:
    """avg@k of `correct[i]` right out of `samples[i]`, with standard errors and a 95% interval.

    With p_i = c_i / n_i over P problems:

        se_sampling = sqrt(sum p_i (1 - p_i) / (n_i - 1)) / P      unbiased in the variance
        se_total    = std(p, ddof=1) / sqrt(P)
        ci95        = value +- t(0.975, P - 1) * se_total, cut to [0, 1]

    When all problems have the same share, se_total is 0 and says nothing. If that share is 0 or 1 the interval is
    then the exact one for P of P problems (Clopper-Pearson); otherwise se_sampling takes its place.
    """
    value = avg_at_k(correct, samples)
    problems = len(correct)
    counts = np.asarray(samples, dtype=np.float64)
    shares = np.asarray(correct, dtype=np.float64) / counts  # [P]
    se_sampling = None
    if min(samples) > 1:
        se_sampling = math.sqrt(float(np.sum(shares * (1 - shares) / (counts - 1)))) / problems
    if problems == 1:
        return AvgAtK(min(samples), value, se_sampling, None, None)
    constant = float(np.ptp(shares)) == 0.0
    se_total = 0.0 if constant else float(np.std(shares, ddof=1)) / math.sqrt(problems)
    if constant and shares[0] in (0.0, 1.0):
        margin = float(0.025 ** (1 / problems))  # the share at which P of P has a chance of 2.5%
        ci95 = (margin, 1.0) if shares[0] == 1.0 else (0.0, 1.0 - margin)
    else:
        half = student_quantile(problems - 1, 0.975) * (se_total or se_sampling or 0.0)
        ci95 = (max(0.0, value - half), min(1.0, value + half))
    return AvgAtK(min(samples), value, se_sampling, se_total, ci95)
