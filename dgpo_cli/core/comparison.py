"""Is B better than A? Paired by problem for two evaluations, with the seed as the unit for several runs a side.

Differences are B minus A. Two evaluations of the same problems share the problems' difficulty, so the problem is the
unit: a bootstrap gives the interval and a sign-flip permutation the p-value. That is a statement about two sets of
weights. A statement about two methods needs several seeds, compared by an exact unpaired permutation (pairing by seed
gains nothing: runs part after a step).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit  # normal distribution and t quantile; scipy.stats takes seconds to import

Floats = NDArray[np.float64]

RESAMPLES = 10_000
MAX_TABLE = 4_000_000  # steps of the exact sign-flip distribution before it is sampled instead
MAX_SPLITS = 400_000  # ways to deal the seeds to two sides before they are sampled instead (10 against 10 is 184,756)
POWER = 0.8  # of `minimum_detectable`


@dataclass(frozen=True)
class Comparison:
    """B against A, before any correction for several pairs."""

    difference: float
    ci95: tuple[float, float] | None  # None with too few units for one, and where none differs from another
    p_value: float
    unit: str  # "problem" | "seed"
    wins: int  # problems where B is ahead; with seeds, pairs of a run of A and a run of B where B's is
    ties: int
    losses: int
    minimum_detectable: float | None  # smallest true difference found in 80% of such comparisons; None: see _detectable
    smallest_p: float  # smallest p-value that this many units could have given


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

    The interval is a bootstrap over problems; `seed` fixes it. Where all differences are equal there is no scatter to
    go by, and no interval: one of no width would claim a certainty that nothing supports. The p-value is that of the
    two-sided sign-flip test: under the null each problem's difference is as likely with the other sign. `alpha` is the
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
    return Comparison(
        difference=float(differences.mean()),
        ci95=_bootstrap_interval(differences, seed) if scatters else None,
        p_value=sign_flip_p_value(steps, seed=seed),
        unit="problem",
        wins=sum(step > 0 for step in steps),
        ties=sum(step == 0 for step in steps),
        losses=sum(step < 0 for step in steps),
        minimum_detectable=_detectable(error, problems - 1, alpha, smallest),
        smallest_p=smallest,
    )


def compare_seeds(
    values_a: Sequence[float], values_b: Sequence[float], *, alpha: float = 0.05, seed: int = 0
) -> Comparison:
    """Several runs a side that differ only in their seed: one value (such as final accuracy) a run.

    The p-value is that of the exact unpaired permutation test on the difference of means, two-sided (sampled above
    400,000 ways to deal the runs, with `seed`). The interval is Welch's t interval, since a bootstrap of a handful of
    runs is far too narrow; it needs two runs a side, and runs of one side that differ.
    """
    a, b = np.asarray(values_a, dtype=np.float64), np.asarray(values_b, dtype=np.float64)
    if not len(a) or not len(b):
        raise ValueError(f"a comparison of seeds needs runs on both sides, got {len(a)} and {len(b)}")
    difference, smallest = float(b.mean() - a.mean()), smallest_seed_p(len(a), len(b))
    ci95, detectable = None, None
    if len(a) > 1 and len(b) > 1:
        parts = np.array([_variance(a) / len(a), _variance(b) / len(b)])
        error = math.sqrt(float(parts.sum()))
        if error > 0:
            freedom = float(parts.sum() ** 2 / (parts**2 / np.array([len(a) - 1, len(b) - 1])).sum())
            half = float(stdtrit(freedom, 0.975)) * error
            ci95, detectable = (difference - half, difference + half), _detectable(error, freedom, alpha, smallest)
    gaps = b[:, None] - a[None, :]  # [runs of B, runs of A]
    return Comparison(
        difference=difference,
        ci95=ci95,
        p_value=permutation_p_value(a, b, seed=seed),
        unit="seed",
        wins=int((gaps > 0).sum()),
        ties=int((gaps == 0).sum()),
        losses=int((gaps < 0).sum()),
        minimum_detectable=detectable,
        smallest_p=smallest,
    )


def _variance(values: Floats) -> float:
    """Unbiased; 0 where all values are equal, which summing them would miss by the last bits."""
    return float(values.var(ddof=1)) if float(np.ptp(values)) > 0 else 0.0


def sign_flip_p_value(steps: Sequence[int], *, seed: int = 0) -> float:
    """Two-sided p-value of sum(steps) when every step is as likely with the other sign. 1.0 when all are zero.

    Exact, from the distribution of the sum built one step at a time; sampled (with `seed`) only when the steps are too
    large for that table, which takes problems with many different numbers of samples.
    """
    divisor = math.gcd(*steps)
    if divisor == 0:
        return 1.0
    sizes = [abs(step) // divisor for step in steps if step]
    observed = abs(sum(steps)) // divisor
    total = sum(sizes)
    if total * len(sizes) > 100 * MAX_TABLE:
        return _sampled_sign_flip(np.array(sizes, dtype=np.float64), float(observed), seed)
    chance = np.zeros(
        total + 1
    )  # chance[s]: of s, the sum of the steps whose sign is plus; the signed sum is 2s - total
    chance[0] = 1.0
    reached = 0
    for size in sizes:
        after = chance[: reached + 1] / 2
        chance[: reached + 1] = after
        chance[size : reached + size + 1] += after
        reached += size
    signed = 2 * np.arange(total + 1) - total
    return min(1.0, float(chance[np.abs(signed) >= observed].sum()))


def _sampled_sign_flip(sizes: Floats, observed: float, seed: int) -> float:
    signs = np.random.default_rng(seed).integers(0, 2, size=(RESAMPLES, len(sizes))) * 2 - 1
    extreme = int((np.abs(signs @ sizes) >= observed * (1 - 1e-12)).sum())
    return (extreme + 1) / (RESAMPLES + 1)


def permutation_p_value(a: Floats, b: Floats, *, seed: int = 0) -> float:
    """Two-sided p-value of the difference of means when every way to deal the values to the two sides is as likely."""
    values = np.concatenate([a, b])
    observed = abs(float(b.mean() - a.mean()))
    if math.comb(len(values), len(a)) <= MAX_SPLITS:
        chosen = np.array(list(combinations(range(len(values)), len(a))))  # [splits, runs of A]
        added = 0
    else:
        order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(values)), (RESAMPLES, 1)), axis=1)
        chosen, added = order[:, : len(a)], 1
    sums = values[chosen].sum(axis=1)
    gaps = np.abs((values.sum() - sums) / len(b) - sums / len(a))
    tolerance = 1e-12 * max(1.0, float(np.abs(values).max()))  # sums in another order differ in the last bits
    return (int((gaps >= observed - tolerance).sum()) + added) / (len(chosen) + added)


def smallest_seed_p(runs_a: int, runs_b: int) -> float:
    """The smallest p-value that `permutation_p_value` can give: one split (two mirrored ones on equal sides) of all."""
    return (2 if runs_a == runs_b else 1) / math.comb(runs_a + runs_b, runs_a)


def seeds_needed(alpha: float, pairs: int = 1) -> int:
    """Runs a side with which a verdict can be reached for each of `pairs` comparisons (4 for alpha 0.05 and one)."""
    runs = 2
    while smallest_seed_p(runs, runs) >= alpha / pairs:
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


def verdicts(comparisons: Sequence[Comparison], alpha: float = 0.05) -> list[str]:
    """Of B against A for each pair: better | worse | indistinguishable | not enough seeds.

    better or worse: p < alpha after Holm over all pairs. not enough seeds: even the most extreme outcome of every
    comparison would not have got there.
    """
    corrected = holm([comparison.p_value for comparison in comparisons])
    reachable = holm([comparison.smallest_p for comparison in comparisons])
    result = []
    for comparison, p_value, best in zip(comparisons, corrected, reachable, strict=True):
        if comparison.unit == "seed" and best >= alpha:
            result.append("not enough seeds")
        elif p_value < alpha and comparison.difference != 0:
            result.append("better" if comparison.difference > 0 else "worse")
        else:
            result.append("indistinguishable")
    return result


def _bootstrap_interval(differences: Floats, seed: int) -> tuple[float, float]:
    """Bootstrap interval of the mean over at least two problems drawn with replacement.

    The plain 95% percentiles are too narrow for few problems (93.5% coverage at 30). They are taken a little further
    out, to Phi(-sqrt(P / (P - 1)) * t(0.975, P - 1)), the expanded percentile interval of arXiv 1411.5279.
    """
    problems = len(differences)
    tail = float(ndtr(-math.sqrt(problems / (problems - 1)) * stdtrit(problems - 1, 0.975)))
    generator = np.random.default_rng(seed)
    means = [
        differences[generator.integers(0, problems, size=(1000, problems))].mean(axis=1)
        for _ in range(RESAMPLES // 1000)
    ]
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


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
    return float(stdtrit(freedom, 1 - level / 2) + stdtrit(freedom, POWER)) * error
