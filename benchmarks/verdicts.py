"""How often `dgpo compare` is right, by simulation: false alarms, power, coverage, and verdicts that their intervals
contradict (none). Prints tables of docs/comparing.md.

    .venv/bin/python benchmarks/verdicts.py          # about five minutes on one core
    .venv/bin/python benchmarks/verdicts.py looks    # only sweep.stop_when: two of them
    .venv/bin/python benchmarks/verdicts.py pairing  # only what pairing by seed would find: half a minute

Two models answer the same 30 problems 32 times each. A problem's chance for A is drawn from Beta(0.561, 0.459): mean
55%, many near 0 and 1, as AIME is for a model of middling strength. B's chance is A's plus a gain, cut to [0, 1].
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.core.comparison import Comparison, compare_problems, compare_seeds, decide
from dgpo_cli.core.inversion import below
from dgpo_cli.core.sequential import decides, look_levels

Floats = NDArray[np.floating[Any]]
Gain = Callable[[np.random.Generator, Floats], Floats]
PROBLEMS, SAMPLES, PAIRS = 30, 32, 2000


@dataclass(frozen=True)
class Outcome:
    """Shares of the pairs; `gain` is the mean true difference after cutting chances to [0, 1]."""

    gain: float
    better: float
    worse: float
    covered: float  # the 95% interval holds the pair's mean true difference
    width: float  # mean width of the interval
    contradictions: int  # pairs whose verdict and interval do not say the same
    unpaired: float  # found by the t-test of two independent groups of problems


def simulate(gain: Gain, *, pairs: int = PAIRS, seed: int = 0) -> Outcome:
    generator = np.random.default_rng(seed)
    gains, found = [], {"better": 0, "worse": 0, "indistinguishable": 0}
    covered = unpaired = contradictions = 0
    widths = []
    for _ in range(pairs):
        chances = generator.beta(0.561, 0.459, size=PROBLEMS)
        improved = np.clip(chances + gain(generator, chances), 0, 1)
        a, b = generator.binomial(SAMPLES, chances), generator.binomial(SAMPLES, improved)
        result = compare_problems(a.tolist(), [SAMPLES] * PROBLEMS, b.tolist(), [SAMPLES] * PROBLEMS)
        found[decide([result])[0].verdict] += 1
        contradictions += contradicts([result])
        true = float((improved - chances).mean())
        gains.append(true)
        assert result.ci95 is not None
        covered += result.ci95[0] <= true <= result.ci95[1]
        widths.append(result.ci95[1] - result.ci95[0])
        error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / PROBLEMS) / SAMPLES
        unpaired += abs(result.difference) > 2.0017 * error  # t(0.975, 58)
    return Outcome(
        gain=float(np.mean(gains)),
        better=found["better"] / pairs,
        worse=found["worse"] / pairs,
        covered=covered / pairs,
        width=float(np.mean(widths)),
        contradictions=contradictions,
        unpaired=unpaired / pairs,
    )


def contradicts(results: list[Comparison], alpha: float = 0.05) -> int:
    """Of how many pairs the shown interval holds 0 beside better or worse, or leaves it out beside anything else."""
    return sum(
        decision.interval is not None
        and (decision.verdict in ("better", "worse")) == (decision.interval[0] <= 0 <= decision.interval[1])
        for decision in decide(results, alpha)
    )


def _uniform(points: float) -> Gain:
    return lambda generator, chances: np.full(PROBLEMS, points)


def _scattered(points: float, spread: float) -> Gain:
    return lambda generator, chances: points + spread * generator.standard_normal(PROBLEMS)


def _on_some(points: float, share: float) -> Gain:
    return lambda generator, chances: points * (generator.random(PROBLEMS) < share)


def _where_there_is_room(points: float) -> Gain:
    """In proportion to p (1 - p): nothing where a problem is hopeless or sure."""
    return lambda generator, chances: points * chances * (1 - chances)


GAINS: tuple[tuple[str, Gain], ...] = (
    ("none", _uniform(0.0)),
    ("6 points on each problem", _uniform(0.06)),
    ("3 points on each problem", _uniform(0.03)),
    ("6 points +- 6 (normal) by problem", _scattered(0.06, 0.06)),
    ("6 points +- 12 (normal) by problem", _scattered(0.06, 0.12)),
    ("18 points on a third, none on the rest", _on_some(0.18, 1 / 3)),
    ("50 p (1 - p) points: none where hopeless or sure", _where_there_is_room(0.5)),
    ("none on average, +- 12 by problem", _scattered(0.0, 0.12)),
)


@dataclass(frozen=True)
class SeedsOutcome:
    """Shares of the comparisons."""

    told: float
    covered: float | None  # by the 95% interval, of those that have one
    contradictions: int


def simulate_seeds(
    runs: tuple[int, int], gain: float, *, spread: float = 1.0, skewed: bool = False, pairs: int = PAIRS, seed: int = 0
) -> SeedsOutcome:
    """Comparisons of so many runs of A and of B, with a gain in units of A's spread over seeds; B's is `spread`."""
    generator = np.random.default_rng(seed)
    told = covered = known = contradictions = 0
    for _ in range(pairs):
        if skewed:
            a, b = generator.exponential(size=runs[0]), generator.exponential(size=runs[1]) * spread
            a, b = a - 1, b - spread
        else:
            a, b = generator.normal(size=runs[0]), spread * generator.normal(size=runs[1])
        result = compare_seeds(a.tolist(), (b + gain).tolist())
        told += decide([result])[0].verdict in ("better", "worse")
        contradictions += contradicts([result])
        known += result.ci95 is not None
        covered += result.ci95 is not None and result.ci95[0] <= gain <= result.ci95[1]
    return SeedsOutcome(told / pairs, covered / known if known else None, contradictions)


def simulate_sweep(gains: tuple[float, ...], runs: int, *, pairs: int = PAIRS, seed: int = 0) -> tuple[float, int]:
    """Sweeps of as many sides as gains: share of those with a false alarm on any pair, and all contradictions."""
    generator = np.random.default_rng(seed)
    false_alarms = contradictions = 0
    for _ in range(pairs):
        sides = [(generator.normal(size=runs) + gain).tolist() for gain in gains]
        indices = list(combinations(range(len(gains)), 2))
        results = [compare_seeds(sides[i], sides[j]) for i, j in indices]
        decisions = decide(results)
        false_alarms += any(
            gains[i] == gains[j] and decision.verdict in ("better", "worse")
            for (i, j), decision in zip(indices, decisions, strict=True)
        )
        contradictions += contradicts(results)
    return false_alarms / pairs, contradictions


@dataclass(frozen=True)
class LooksOutcome:
    """Of studies that stop when a look decides: how many do, after how many seeds a side, beside fixed numbers."""

    told: float
    seeds: float  # mean, a side
    naive: float  # told if each look were held against alpha, as it is after looking again and again
    fixed: dict[int, float]  # seeds a side -> share that a study of just so many tells apart


def simulate_looks(
    looks: list[int], gain: float, *, spread: float = 1.0, skewed: bool = False, pairs: int = PAIRS, seed: int = 0
) -> LooksOutcome:
    """Studies that add a seed to each side between looks; gain and `spread` of B in units of A's spread over seeds."""
    generator = np.random.default_rng(seed)
    levels = look_levels(looks, 0.05)
    found, naive, needed = 0, 0, 0
    fixed = dict.fromkeys(looks, 0)
    for _ in range(pairs):
        draw = generator.exponential if skewed else generator.normal
        a, b = (draw(size=looks[-1]) - skewed for _ in range(2))
        b = b * spread + gain
        p_values = [compare_seeds(a[:runs].tolist(), b[:runs].tolist()).p_value for runs in looks]
        stopped = [runs for runs, p, level in zip(looks, p_values, levels, strict=True) if decides(p, level)]
        found += bool(stopped)
        needed += stopped[0] if stopped else looks[-1]
        told = [below(p, 0.05) for p in p_values]
        naive += any(told)
        for runs, one in zip(looks, told, strict=True):
            fixed[runs] += one
    return LooksOutcome(found / pairs, needed / pairs, naive / pairs, {runs: n / pairs for runs, n in fixed.items()})


def show_looks(looks: list[int], pairs: int = PAIRS) -> None:
    """The table of sweep.stop_when."""
    print(f"\n{pairs} studies a row, looks at {looks} seeds a side\n")
    heads = [f"{runs} seeds at once" for runs in (looks[0], looks[-1])]
    print(f"| true difference | told apart | mean seeds a side | {' | '.join(heads)} | looks without a rule |")
    print("|---|---|---|---|---|---|")
    for gain, spread, skewed in LOOKED_AT:
        one = simulate_looks(looks, gain, spread=spread, skewed=skewed, pairs=pairs)
        name = f"{gain:g} spreads, {'skewed' if skewed else 'normal'}" + (
            f", spread x {spread:g}" if spread != 1 else ""
        )
        cells = (one.told, one.fixed[looks[0]], one.fixed[looks[-1]], one.naive)
        told, first, last, naive = (f"{share:.1%}" for share in cells)
        print(f"| {name} | {told} | {one.seeds:.2f} | {first} | {last} | {naive} |", flush=True)


@dataclass(frozen=True)
class PairingOutcome:
    """Shares of comparisons that find a difference at 5%."""

    unpaired: float  # by the permutation of runs, which `dgpo compare` takes
    paired: float  # by the sign flips of the differences within seeds


def simulate_pairing(
    runs: int, gain: float, correlation: float, *, pairs: int = PAIRS, seed: int = 0
) -> PairingOutcome:
    """So many runs a side, common seeds: with `correlation` between the runs of a seed, gain in spreads of seeds."""
    generator = np.random.default_rng(seed)
    signs = np.array(list(product((1.0, -1.0), repeat=runs)))  # [flips, runs]
    unpaired = paired = 0
    for _ in range(pairs):
        common, own = generator.normal(size=runs), generator.normal(size=(2, runs))
        a, b = correlation**0.5 * common + (1 - correlation) ** 0.5 * own
        unpaired += below(compare_seeds(a.tolist(), (b + gain).tolist()).p_value, 0.05)
        sums = signs @ (b + gain - a)
        paired += below(float((np.abs(sums) >= abs(sums[0]) * (1 - 1e-12)).mean()), 0.05)
    return PairingOutcome(unpaired / pairs, paired / pairs)


def show_pairing(pairs: int = PAIRS) -> None:
    """Found by the unpaired and by the paired test, by what runs of one seed have in common."""
    gains = (0.0, 1.0, 2.0)
    print(f"\n{pairs} comparisons a cell: found unpaired / paired by seed\n")
    print(f"| seeds a side | correlation | {' | '.join(f'gain of {gain:g} spreads' for gain in gains)} |")
    print("|---|---|---|---|---|")
    for runs in (4, 5, 6, 8):
        for correlation in (0.0, 0.4, 0.7, 0.9):
            found = [simulate_pairing(runs, gain, correlation, pairs=pairs) for gain in gains]
            cells = [f"{one.unpaired:.1%} / {one.paired:.1%}" for one in found]
            print(f"| {runs} | {correlation:g} | {' | '.join(cells)} |", flush=True)


LOOKED_AT = (  # gain and spread of B in that of A, exponential or normal
    (0.0, 1.0, False),
    (0.0, 1.0, True),
    (0.0, 3.0, False),
    (1.0, 1.0, False),
    (1.5, 1.0, False),
    (2.0, 1.0, False),
    (3.0, 1.0, False),
)


def main() -> None:
    if sys.argv[1:] == ["looks"]:
        show_looks([4, 5, 6, 7, 8])
        return
    if sys.argv[1:] == ["pairing"]:
        show_pairing()
        return
    contradictions = 0
    print(f"{PROBLEMS} problems x {SAMPLES} samples, {PAIRS} pairs each\n")
    print("| true gain | mean gain, points | better | worse | interval covers | its width | unpaired t-test finds |")
    print("|---|---|---|---|---|---|---|")
    for name, gain in GAINS:
        one = simulate(gain)
        contradictions += one.contradictions
        better, worse, covered, unpaired = (
            f"{share:.1%}" for share in (one.better, one.worse, one.covered, one.unpaired)
        )
        cells = (name, f"{100 * one.gain:.1f}", better, worse, covered, f"{100 * one.width:.1f}", unpaired)
        print(f"| {' | '.join(cells)} |", flush=True)
    print("\n| seeds a side | no gain | gain of 1 spread | 2 spreads | 3 spreads | interval covers |")
    print("|---|---|---|---|---|---|")
    for runs in (3, 4, 5, 8):
        found = [
            simulate_seeds((runs, runs), gain, pairs=PAIRS if runs < 8 else PAIRS // 10) for gain in (0.0, 1, 2, 3)
        ]
        contradictions += sum(one.contradictions for one in found)
        covered = "none" if found[0].covered is None else f"{found[0].covered:.1%}"
        print(f"| {runs} | {' | '.join(f'{one.told:.1%}' for one in found)} | {covered} |", flush=True)
    print("\n| seeds, no gain | false alarms | interval covers |\n|---|---|---|")
    for sides, spread, skewed in UNLIKE:
        one_more = simulate_seeds(sides, 0.0, spread=spread, skewed=skewed)
        contradictions += one_more.contradictions
        name = f"{sides[0]} against {sides[1]}, {'skewed' if skewed else 'normal'}, spread x {spread:g}"
        print(f"| {name} | {one_more.told:.1%} | {one_more.covered:.1%} |", flush=True)
    print("\n| three sides of 6 seeds, gains | sweeps with a false alarm |\n|---|---|")
    for gains in ((0.0, 0.0, 0.0), (0.0, 0.0, 3.0)):
        alarms, more = simulate_sweep(gains, 6)
        contradictions += more
        print(f"| {', '.join(f'{gain:g}' for gain in gains)} | {alarms:.1%} |", flush=True)
    print(f"\nverdicts that the shown interval contradicts: {contradictions}")
    show_looks([4, 5, 6, 7, 8])
    show_pairing()


UNLIKE = (  # runs of A and B, spread of B in that of A, exponential or normal
    ((5, 5), 1.0, True),
    ((5, 5), 3.0, False),
    ((4, 8), 1.0, False),
    ((4, 8), 3.0, False),
    ((8, 4), 3.0, False),
)


if __name__ == "__main__":
    main()
