"""How often `dgpo compare` is right, by simulation: false alarms, power, coverage. Prints tables of docs/comparing.md.

    .venv/bin/python benchmarks/verdicts.py          # about a minute on one core

Two models answer the same 30 problems 32 times each. A problem's chance for A is drawn from Beta(0.561, 0.459): mean
55%, many near 0 and 1, as AIME is for a model of middling strength. B's chance is A's plus a gain, cut to [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.core.comparison import compare_problems, compare_seeds, verdicts

Floats = NDArray[np.float64]
Gain = Callable[[np.random.Generator, Floats], Floats]
PROBLEMS, SAMPLES, PAIRS = 30, 32, 2000


@dataclass(frozen=True)
class Outcome:
    """Shares of the pairs; `gain` is the mean true difference after cutting chances to [0, 1]."""

    gain: float
    better: float
    worse: float
    covered: float  # the 95% interval holds the pair's mean true difference
    unpaired: float  # found by the t-test of two independent groups of problems


def simulate(gain: Gain, *, pairs: int = PAIRS, seed: int = 0) -> Outcome:
    generator = np.random.default_rng(seed)
    gains, found = [], {"better": 0, "worse": 0, "indistinguishable": 0}
    covered = unpaired = 0
    for _ in range(pairs):
        chances = generator.beta(0.561, 0.459, size=PROBLEMS)
        improved = np.clip(chances + gain(generator, chances), 0, 1)
        a, b = generator.binomial(SAMPLES, chances), generator.binomial(SAMPLES, improved)
        result = compare_problems(a.tolist(), [SAMPLES] * PROBLEMS, b.tolist(), [SAMPLES] * PROBLEMS)
        found[verdicts([result])[0]] += 1
        true = float((improved - chances).mean())
        gains.append(true)
        assert result.ci95 is not None
        covered += result.ci95[0] <= true <= result.ci95[1]
        error = np.sqrt((a.var(ddof=1) + b.var(ddof=1)) / PROBLEMS) / SAMPLES
        unpaired += abs(result.difference) > 2.0017 * error  # t(0.975, 58)
    return Outcome(
        float(np.mean(gains)), found["better"] / pairs, found["worse"] / pairs, covered / pairs, unpaired / pairs
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


def seeds_power(runs: int, gain: float, *, pairs: int = PAIRS, seed: int = 0) -> float:
    """Share of comparisons of `runs` runs a side, with a gain in units of the spread over seeds, that are told."""
    generator = np.random.default_rng(seed)
    found = 0
    for _ in range(pairs):
        a, b = generator.normal(size=runs), generator.normal(size=runs) + gain
        found += verdicts([compare_seeds(a.tolist(), b.tolist())])[0] in ("better", "worse")
    return found / pairs


def main() -> None:
    print(f"{PROBLEMS} problems x {SAMPLES} samples, {PAIRS} pairs each\n")
    print("| true gain | mean gain, points | better | worse | interval covers | unpaired t-test finds |")
    print("|---|---|---|---|---|---|")
    for name, gain in GAINS:
        one = simulate(gain)
        shares = " | ".join(f"{share:.1%}" for share in (one.better, one.worse, one.covered, one.unpaired))
        print(f"| {name} | {100 * one.gain:.1f} | {shares} |", flush=True)
    print("\n| seeds a side | no gain | gain of 1 spread | 2 spreads | 3 spreads |\n|---|---|---|---|---|")
    for runs in (3, 4, 5, 8):
        pairs = PAIRS if runs < 8 else PAIRS // 10
        shares = " | ".join(f"{seeds_power(runs, gain, pairs=pairs):.1%}" for gain in (0.0, 1.0, 2.0, 3.0))
        print(f"| {runs} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
