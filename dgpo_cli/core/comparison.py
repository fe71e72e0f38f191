"""Is B better than A? Paired by problem for two evaluations, with the seed as the unit for several runs a side.

Differences are B minus A. Two evaluations of the same problems share the problems' difficulty, so the problem is the
unit of a sign-flip permutation. That is a statement about two sets of weights. A statement about two methods needs
several seeds, compared by an exact unpaired permutation. Pairing by seed would find more from six seeds a side on, if
runs of one seed end alike, and nothing with four or five (docs/comparing.md has the figures).

Interval and verdict come from the same test (`inversion`): a pair is better or worse exactly if the interval of its
verdict leaves 0 out. Both suppose a shift: without the true difference, the differences of problems would scatter
evenly about 0, and the runs of both sides alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.core.inversion import Rearrangements, below, of_runs, of_signs
from dgpo_cli.core.quantiles import student_quantile

Floats = NDArray[np.float64]

POWER = 0.8  # of `minimum_detectable`


@dataclass(frozen=True)
class Comparison:
    """B against A, before any correction for several pairs."""

    difference: float
    ci95: tuple[float, float] | None  # None where no outcome could have p < 0.05, and where nothing scatters
    p_value: float
    unit: str  # "problem" | "seed"
    wins: int  # problems where B is ahead; with seeds, pairs of a run of A and a run of B where B's is
    ties: int
    losses: int
    minimum_detectable: float | None  # smallest true difference found in 80% of such comparisons; None: see _detectable
    smallest_p: float  # smallest p-value that this many units could have given
    rearrangements: Rearrangements | None = field(default=None, repr=False, compare=False)  # of the test

    def interval(self, level: float) -> tuple[float, float] | None:
        """The true differences that the test does not refuse at `level`; None where it leaves all or only one."""
        return None if self.rearrangements is None else self.rearrangements.interval(level)


@dataclass(frozen=True)
class Decision:
    """What is said of a pair, given all pairs."""

    verdict: str  # better | worse | indistinguishable | not enough seeds, of B
    p_holm: float
    level: float  # that p was held against by Holm: from alpha / pairs to alpha
    interval: tuple[float, float] | None  # of confidence 1 - level: it leaves 0 out exactly if B is better or worse


def compare_problems(
    correct_a: Sequence[int],
    samples_a: Sequence[int],
    correct_b: Sequence[int],
    samples_b: Sequence[int],
    *,
    alpha: float = 0.05,
    seed: int = 0,
) -> Comparison:
    """Two evaluations of the same problems, in the same order: right samples and samples of each problem.

    The p-value is that of the two-sided sign-flip test: under the null each problem's difference is as likely with the
    other sign. Exact, or sampled with `seed` where there are too many problems and values for that. `alpha` is the
    level that `minimum_detectable` is worked out for.
    """
    sizes = {len(correct_a), len(samples_a), len(correct_b), len(samples_b)}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"a paired comparison needs the same problems on both sides, got counts of {sorted(sizes)}")
    common = math.lcm(*samples_a, *samples_b)
    steps = [
        right_b * (common // n_b) - right_a * (common // n_a)
        for right_a, n_a, right_b, n_b in zip(correct_a, samples_a, correct_b, samples_b, strict=True)
    ]  # differences in units of 1 / common: integers, so ties are exact
    differences = np.array(steps, dtype=np.float64) / common  # [P]
    problems, smallest = len(steps), 2.0 ** (1 - len(steps))
    scatters = len(set(steps)) > 1
    error = float(differences.std(ddof=1)) / math.sqrt(problems) if scatters else 0.0
    test = of_signs(steps, 1 / common, seed=seed)
    return Comparison(
        difference=float(differences.mean()),
        ci95=test.interval(0.05),
        p_value=test.p_value(),
        unit="problem",
        wins=sum(step > 0 for step in steps),
        ties=sum(step == 0 for step in steps),
        losses=sum(step < 0 for step in steps),
        minimum_detectable=_detectable(error, problems - 1, alpha, smallest),
        smallest_p=smallest,
        rearrangements=test,
    )


def compare_seeds(
    values_a: Sequence[float], values_b: Sequence[float], *, alpha: float = 0.05, seed: int = 0
) -> Comparison:
    """Several runs a side that differ only in their seed: one value (such as final accuracy) a run.

    The p-value is that of the exact unpaired permutation test on the difference of means, two-sided (sampled above
    400,000 ways to deal the runs, with `seed`).
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if not len(a) or not len(b):
        raise ValueError(f"a comparison of seeds needs runs on both sides, got {len(a)} and {len(b)}")
    difference, smallest = float(b.mean() - a.mean()), smallest_seed_p(len(a), len(b))
    detectable = None
    if len(a) > 1 and len(b) > 1:
        parts = np.array([_variance(a) / len(a), _variance(b) / len(b)])
        error = math.sqrt(float(parts.sum()))
        if error > 0:
            freedom = float(parts.sum() ** 2 / (parts**2 / np.array([len(a) - 1, len(b) - 1])).sum())
            detectable = _detectable(error, freedom, alpha, smallest)
    test = of_runs(a, b, seed=seed)
    gaps = b[:, None] - a[None, :]  # [runs of B, runs of A]
    return Comparison(
        difference=difference,
        ci95=test.interval(0.05),
        p_value=test.p_value(),
        unit="seed",
        wins=int((gaps > 0).sum()),
        ties=int((gaps == 0).sum()),
        losses=int((gaps < 0).sum()),
        minimum_detectable=detectable,
        smallest_p=smallest,
        rearrangements=test,
    )


def _variance(values: Floats) -> float:
    """Unbiased; 0 where all values are equal, which summing them would miss by the last bits."""
    return float(values.var(ddof=1)) if float(np.ptp(values)) > 0 else 0.0


def smallest_seed_p(runs_a: int, runs_b: int) -> float:
    """The smallest p-value that a comparison of seeds can give: one split (two mirrored ones on equal sides) of all."""
    return (2 if runs_a == runs_b else 1) / math.comb(runs_a + runs_b, runs_a)


def seeds_needed(alpha: float, pairs: int = 1) -> int:
    """Runs a side with which a verdict can be reached for each of `pairs` comparisons (4 for alpha 0.05 and one)."""
    runs = 2
    while not below(smallest_seed_p(runs, runs), alpha / pairs):
        runs += 1
    return runs


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for being several (Holm's step-down), in the order given."""
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = largest
    return corrected


def deciding_levels(p_values: Sequence[float], alpha: float) -> list[float]:
    """The level that Holm's step-down holds each p-value against: p is below it exactly if the pair is told apart.

    The smallest p is held against alpha / pairs, the next against alpha / (pairs - 1) and so on. From the first that
    is not below its level on, all are held against that one.
    """
    levels = [0.0] * len(p_values)
    told = 0
    for position in sorted(range(len(p_values)), key=lambda i: p_values[i]):
        levels[position] = alpha / (len(p_values) - told)
        told += below(p_values[position], levels[position])
    return levels


def decide(comparisons: Sequence[Comparison], alpha: float = 0.05) -> list[Decision]:
    """Of B against A for each pair: better | worse | indistinguishable | not enough seeds.

    better or worse: p < alpha after Holm over all pairs. not enough seeds: even the most extreme outcome of every
    comparison would not have got there.
    """
    p_values = [comparison.p_value for comparison in comparisons]
    reachable = holm([comparison.smallest_p for comparison in comparisons])
    return [
        Decision(
            _verdict(comparison, told=below(comparison.p_value, level), possible=below(best, alpha)),
            p_holm,
            level,
            comparison.interval(level),
        )
        for comparison, p_holm, level, best in zip(
            comparisons, holm(p_values), deciding_levels(p_values, alpha), reachable, strict=True
        )
    ]


def _verdict(comparison: Comparison, *, told: bool, possible: bool) -> str:
    if comparison.unit == "seed" and not possible:
        return "not enough seeds"
    if not told or comparison.difference == 0:
        return "indistinguishable"
    return "better" if comparison.difference > 0 else "worse"


def _detectable(error: float, freedom: float, alpha: float, smallest_p: float) -> float | None:
    """Smallest true difference that the test finds with a chance of 80% when differences scatter as they do here.

        (t(1 - a / 2, freedom) + t(0.8, freedom)) * error

    `error` is the standard error of the difference and a the level that the permutation test really has: its p-values
    are multiples of `smallest_p`, so a is the largest multiple below alpha. For 4 runs against 4 that is 2/70, and with
    0.05 in its place the power would be 69%. None where no outcome could have reached alpha, and where nothing
    scatters, so that there is no error to go by.
    """
    level = (math.ceil(alpha / smallest_p) - 1) * smallest_p if smallest_p > 1e-9 else alpha
    if level <= 0 or error == 0:
        return None
    return (student_quantile(freedom, 1 - level / 2) + student_quantile(freedom, POWER)) * error
