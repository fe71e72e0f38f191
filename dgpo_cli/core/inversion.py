"""Permutation tests turned round: which true differences does a test not speak against? Those are its interval.

Both tests of `comparison` ask how many rearrangements of the data differ from 0 at least as far as the data do. With
a supposed true difference s taken off first, a rearrangement does so exactly if s lies between two numbers that
depend on the data alone, and these enclose the observed difference. So p(s) falls on both sides of that difference,
the supposed differences with p(s) >= level are one interval, and its ends are found without a search.

    signs (paired)   the means of the problems whose sign is turned, and of the others
    runs (unpaired)  the difference of means of the runs that change sides, and of those that stay (for sides of equal
                     size; `of_runs` has the general form)

Verdict and interval come from this one function of s: p(0) < level if and only if the interval leaves 0 out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 100_000  # rearrangements where not all are counted; the data as they are make one more
CHUNK = 1000  # of them at a time
MAX_CELLS = 100_000_000  # additions of the exact count of sign flips before they are sampled instead
MAX_TABLE = 20_000_000  # entries of its table
MAX_SPLITS = 400_000  # ways to deal the runs to two sides before they are sampled instead (10 against 10 is 184,756)
NEGLIGIBLE = 4.5  # times the root of n: sums of n signs further out than that have a chance below 1e-17 (Hoeffding)
HAIR = 1e-9  # share of a level that rounding may take: sums of chances are never that far off
ROUNDING = 1e-12  # of the largest value: sums in another order differ by less


def below(p_value: float, level: float) -> bool:
    """p < level, whatever the last bits of either say."""
    return p_value < level * (1 - HAIR)


@dataclass(frozen=True, eq=False)
class Rearrangements:
    """For each rearrangement the supposed differences under which it is at least as extreme as the data."""

    observed: float
    always: float  # share of the rearrangements that are so under every supposed difference: the smallest p-value
    lows: Floats  # [K] where they begin, ascending
    below_lows: Floats  # [K] share of all rearrangements that begin at `lows[k]` or before, with `always`
    highs: Floats  # [K] where they end, descending
    above_highs: Floats  # [K]
    hair: float  # supposed differences this far apart are the same: rounding

    def p_value(self, supposed: float = 0.0) -> float:
        """Two-sided p-value of the test that the true difference is `supposed`."""
        if abs(supposed - self.observed) <= self.hair:
            return 1.0
        if supposed < self.observed:
            count, shares = int((self.lows <= supposed + self.hair).sum()), self.below_lows
        else:
            count, shares = int((self.highs >= supposed - self.hair).sum()), self.above_highs
        return min(1.0, float(shares[count - 1])) if count else self.always

    def interval(self, level: float) -> tuple[float, float] | None:
        """The true differences that the test does not refuse at `level`: a (1 - level) interval, ends included.

        None where no outcome could be refused at that level, so that every difference is left, and where nothing
        scatters: an interval of no width would claim a certainty that such data do not have.
        """
        if not below(self.always, level):
            return None
        ends = [
            float(values[min(int((shares < level * (1 - HAIR)).sum()), len(values) - 1)])
            for values, shares in ((self.lows, self.below_lows), (self.highs, self.above_highs))
        ]
        return (ends[0], ends[1]) if ends[1] - ends[0] > self.hair else None


def of_signs(steps: Sequence[int], unit: float, *, seed: int = 0) -> Rearrangements:
    """The sign flips of paired differences `steps[i] * unit` [P]: under the null each is as likely with the other sign.

    Counted exactly where the table for it is small; else `RESAMPLES` flips are drawn, the same for every supposed
    difference, with `seed`.
    """
    if _cells(steps) <= MAX_CELLS:
        return _counted_signs(steps, unit)
    differences = np.array(steps, dtype=np.float64)
    hair = ROUNDING * float(np.abs(differences).max())
    return _arranged(float(differences.mean()), _sampled_signs(differences, seed), hair, unchanged=1, unit=unit)


def of_runs(a: Floats, b: Floats, *, seed: int = 0) -> Rearrangements:
    """The ways to deal the runs' values to two sides of the same sizes, all as likely under the null.

    With k runs of each side changing sides and a difference of means t after it, the supposed differences lie between
    (d - t) / (1 - c) and (d + t) / (1 + c), with c = 1 - k / runs of A - k / runs of B. All ways are counted up to
    400,000, else `RESAMPLES` of them are drawn with `seed`.
    """
    values, of_a, of_b = np.concatenate([a, b]), len(a), len(b)
    if math.comb(len(values), of_a) <= MAX_SPLITS:
        chosen, unchanged = _splits(len(values), of_a), 0
    else:
        order = np.random.default_rng(seed).permuted(np.tile(np.arange(len(values)), (RESAMPLES, 1)), axis=1)
        chosen, unchanged = order[:, :of_a], 1
    observed = float(b.mean() - a.mean())
    sums, moved = values[chosen].sum(axis=1), (chosen >= of_a).sum(axis=1)
    gaps = (values.sum() - sums) / of_b - sums / of_a
    stays = 1 - moved * (1 / of_a + 1 / of_b)  # c
    finite = (1 - np.abs(stays)) > ROUNDING
    left = (observed - gaps[finite]) / (1 - stays[finite])
    right = (observed + gaps[finite]) / (1 + stays[finite])
    hair = ROUNDING * float(np.abs(values).max())
    ends = np.minimum(left, right), np.maximum(left, right)
    return _arranged(observed, ends, hair, unchanged=unchanged + int((~finite).sum()))


@lru_cache(maxsize=4)
def _splits(values: int, of_a: int) -> NDArray[np.int64]:
    """Every choice of `of_a` places out of `values`, to be read alone. [splits, of_a]"""
    return np.array(list(combinations(range(values), of_a)), dtype=np.int64)


def _arranged(
    observed: float, ends: tuple[Floats, Floats], hair: float, *, unchanged: int, unit: float = 1.0
) -> Rearrangements:
    """Equally likely rearrangements: `ends` of each, and `unchanged` more that are always as extreme.

    What rounding alone keeps from being 0 becomes 0, or verdict and interval could part there.
    """
    total = unchanged + len(ends[0])
    shares = (unchanged + np.arange(1, len(ends[0]) + 1)) / total
    lows, highs = (np.where(np.abs(values) <= hair, 0.0, values) for values in ends)
    lows, highs = np.sort(lows) * unit, np.sort(highs)[::-1] * unit
    return Rearrangements(observed * unit, unchanged / total, lows, shares, highs, shares, hair * unit)


def _sampled_signs(differences: Floats, seed: int) -> tuple[Floats, Floats]:
    """Ends of `RESAMPLES` random flips; those that turn all signs or none have no bounds."""
    generator, problems, whole = np.random.default_rng(seed), len(differences), float(differences.sum())
    lows, highs = [], []
    for _ in range(RESAMPLES // CHUNK):
        turned = generator.integers(0, 2, size=(CHUNK, problems), dtype=np.int8).astype(np.float64)
        counts, sums = turned.sum(axis=1), turned @ differences
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = sums / counts, (whole - sums) / (problems - counts)
        unbounded = (counts == 0) | (counts == problems)
        lows.append(np.where(unbounded, -np.inf, np.minimum(one, other)))
        highs.append(np.where(unbounded, np.inf, np.maximum(one, other)))
    return np.concatenate(lows), np.concatenate(highs)


def _cells(steps: Sequence[int]) -> float:
    """About how many additions `_counted_signs` takes; infinite where its table would not fit the memory."""
    sizes = [abs(step) // (math.gcd(*steps) or 1) for step in steps]
    rows, columns = len(sizes) + 1, sum(sizes) + 1
    if rows * columns > MAX_TABLE:
        return math.inf
    across = min(2 * NEGLIGIBLE * math.sqrt(sum(size * size for size in sizes)), columns)
    return len(sizes) * min(2 * NEGLIGIBLE * math.sqrt(rows), rows) * across / 2


def _counted_signs(steps: Sequence[int], unit: float) -> Rearrangements:
    """From the exact distribution of how many steps are turned (j) and of their sum (t), built one step at a time.

    Whether a flip is extreme depends on j and t alone. Rows and columns further out than `NEGLIGIBLE` are cut off.
    """
    divisor = math.gcd(*steps) or 1
    sizes = [step // divisor for step in steps]
    problems, lowest = len(sizes), sum(size for size in sizes if size < 0)
    chance = np.zeros((problems + 1, sum(map(abs, sizes)) + 1))  # [j, t - lowest]
    chance[0, -lowest] = 1.0
    for number, size in enumerate(sizes):
        rows, columns = _reached(sizes[:number], lowest)
        part = chance[rows, columns] / 2
        chance[rows, columns] = part
        chance[rows.start + 1 : rows.stop + 1, columns.start + size : columns.stop + size] += part
    turned, place = np.nonzero(chance[1:problems])
    shares = chance[1:problems][turned, place]
    counts, sums, whole = turned + 1.0, place + float(lowest), float(sum(sizes))
    one, other = sums / counts, (whole - sums) / (problems - counts)
    always, scale = 2.0 ** (1 - problems), divisor * unit
    lows, below_lows = _cumulated(np.minimum(one, other) * scale, shares, always)
    highs, above_highs = _cumulated(-np.maximum(one, other) * scale, shares, always)
    hair = ROUNDING * max(map(abs, sizes)) * scale
    return Rearrangements(whole / problems * scale, always, lows, below_lows, -highs, above_highs, hair)


def _reached(sizes: Sequence[int], lowest: int) -> tuple[slice, slice]:
    """Rows and columns of the table that these sizes reach with a chance worth counting."""
    number, mean = len(sizes), sum(sizes) / 2
    of_count = NEGLIGIBLE * math.sqrt(number)
    of_sum = NEGLIGIBLE * math.sqrt(sum(size * size for size in sizes))
    least, most = sum(size for size in sizes if size < 0), sum(size for size in sizes if size > 0)
    rows = max(0, math.floor(number / 2 - of_count)), min(number, math.ceil(number / 2 + of_count))
    columns = max(least, math.floor(mean - of_sum)), min(most, math.ceil(mean + of_sum))
    return slice(rows[0], rows[1] + 1), slice(columns[0] - lowest, columns[1] - lowest + 1)


def _cumulated(ends: Floats, shares: Floats, always: float) -> tuple[Floats, Floats]:
    order = np.argsort(ends)
    return ends[order], always + np.cumsum(shares[order])
