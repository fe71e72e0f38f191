"""Runs side by side: what differs, who is ahead, and whether the data can say so. Builds compare.json and its tables.

Runs whose configurations differ in their seed alone are one side. Two sides of one run each are compared problem by
problem, which is a statement about those two sets of weights; with several seeds a side the seed is the unit, which is
a statement about the methods. Where several benchmarks were evaluated, each is compared by itself, and Holm's
correction counts them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from dgpo_cli.core.comparison import Comparison, Decision, compare_problems, compare_seeds, decide, seeds_needed
from dgpo_cli.core.inversion import below
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.reporting.comparison_notes import notes_on_evaluations
from dgpo_cli.reporting.mismatches import mismatches
from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.runs import Evaluation, Key, Run, evaluation_of
from dgpo_cli.reporting.sides import Side, differences, sides

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Pair:
    """Side b against side a."""

    a: Side
    b: Side
    result: Comparison
    decision: Decision
    seeds_needed: int | None  # a side, where there are not enough

    @property
    def verdict(self) -> str:
        return self.decision.verdict

    @property
    def p_holm(self) -> float:
        return self.decision.p_holm

    def as_record(self) -> Json:
        result = self.result
        return {
            "a": self.a.label,
            "b": self.b.label,
            "difference": result.difference,
            "ci95": None if result.ci95 is None else list(result.ci95),
            "confidence": 1 - self.decision.level,
            "ci_verdict": None if self.decision.interval is None else list(self.decision.interval),
            "p_value": result.p_value,
            "p_holm": self.p_holm,
            "benchmark": _benchmark(self.b),
            "unit": result.unit,
            "wins": result.wins,
            "ties": result.ties,
            "losses": result.losses,
            "verdict": self.verdict,
            "seeds_needed": self.seeds_needed,
            "minimum_detectable": result.minimum_detectable,
            "runs_a": [run.name for run in self.a.runs],
            "runs_b": [run.name for run in self.b.runs],
        }


def compare(runs: list[Run], *, alpha: float, seed: int, force: bool) -> tuple[list[Pair], list[str]]:
    """Every pair of sides whose runs were evaluated, and notes on what could not be compared.

    `minimum_detectable` of several pairs is that of the strictest step of Holm's correction, alpha / pairs.

    Raises:
        ConfigError: evaluations by different problems, k, sampling, grader or template, unless `force`.
        DataError: `force` leaves no common problem.
    """
    evaluated = [run for run in runs if run.evaluation is not None]
    notes = [f"{run.name}: it was never evaluated, so it stands in no pair" for run in runs if run.evaluation is None]
    wrong = mismatches(evaluated)
    if wrong and not force:
        hint = "force=true compares them all the same, on the problems that all of them have"
        raise ConfigError("", problems=(*wrong[:-1], Wrong(wrong[-1].message, hint)))
    notes += [f"forced: {problem.message}" for problem in wrong]
    notes += notes_on_evaluations(evaluated)
    comparable, more = _comparable(_pairs(runs))
    notes += more
    count = max(1, len(comparable))
    results = [_compare_sides(a, b, alpha=alpha / count, seed=seed) for a, b in comparable]
    decisions = decide(results, alpha)
    needed = seeds_needed(alpha, count)
    notes += [
        f"{a.label} and {b.label}: no result of so few problems ({result.wins + result.ties + result.losses}) could "
        f"reach p < {alpha:g}"
        for (a, b), result in zip(comparable, results, strict=True)
        if result.unit == "problem" and not below(result.smallest_p, alpha / count)
    ]
    return [
        Pair(a, b, result, decision, needed if decision.verdict == "not enough seeds" else None)
        for (a, b), result, decision in zip(comparable, results, decisions, strict=True)
    ], notes


def _pairs(runs: list[Run]) -> list[tuple[Side, Side]]:
    """Sides with an evaluation, two and two, of one benchmark; of any where no two share one, but not of one model."""
    known = [Side(side.label, [run for run in side.runs if run.evaluation is not None]) for side in sides(runs)]
    pairs = list(combinations([side for side in known if side.runs], 2))
    same = [(a, b) for a, b in pairs if _benchmark(a) == _benchmark(b)]
    return same or [(a, b) for a, b in pairs if not _subjects(a) & _subjects(b)]


def _subjects(side: Side) -> set[str]:
    return {run.subject for run in side.runs}


def _benchmark(side: Side) -> str:
    return evaluation_of(side.runs[0]).benchmark


def comparison_record(runs: list[Run], pairs: list[Pair], notes: list[str], *, alpha: float, seed: int) -> Json:
    """compare.json. A value that is no number becomes null."""
    label = {run.name: side.label for side in sides(runs) for run in side.runs}
    record = {
        "schema_version": SCHEMA_VERSION,
        "alpha": alpha,
        "seed": seed,
        "runs": [
            {
                "run": run.name,
                "side": label[run.name],
                "kind": run.kind,
                "status": run.status,
                "differences": differing,
                "final": run.final,
                "best": run.best,
                "accuracy": _accuracy(run.evaluation),
                "wall_seconds": run.wall_seconds,
                "started": run.started,
                "commit": run.commit,
            }
            for run, differing in zip(runs, differences(runs), strict=True)
        ],
        "pairs": [pair.as_record() for pair in pairs],
        "notes": notes,
    }
    finite = _finite(record)
    assert isinstance(finite, dict)
    return finite


def _comparable(pairs: list[tuple[Side, Side]]) -> tuple[list[tuple[Side, Side]], list[str]]:
    """The pairs that a comparison can be made of, each on the problems that all of its runs have; notes on the others.

    Raises:
        DataError: the runs of a pair have no problem in common.
    """
    kept, notes = [], []
    for a, b in pairs:
        name, runs = f"{a.label} and {b.label}", [*a.runs, *b.runs]
        unknown = [run.name for run in runs if not evaluation_of(run).problems]
        known = [evaluation_of(run).problems for run in runs if evaluation_of(run).problems]
        if all(run.kind == "training" and evaluation_of(run).step == 0 for run in runs):
            notes.append(f"{name}: no verdict, since all of their evaluations are of step 0, before any training")
        elif unknown and len(runs) == 2:
            notes.append(f"{name}: only averages are known, so their problems cannot be paired")
        elif unknown and any(problems.keys() != known[0].keys() for problems in known):
            notes.append(f"{name}: their problems differ, and of {', '.join(unknown)} only the average is known")
        elif unknown:
            notes.append(f"{name}: only averages are known of {', '.join(unknown)}, on whatever problems they had")
            kept.append((a, b))
        else:
            common = [key for key in known[0] if all(key in problems for problems in known)]
            if not common:
                raise DataError(f"{name} have no problem in common", "compare evaluations of one benchmark")
            if len(common) < max(map(len, known)):
                notes.append(f"{name}: compared on the {len(common)} problems that all of their runs have")
            kept.append((_on(a, common), _on(b, common)))
    return kept, notes


def _on(side: Side, keys: list[Key]) -> Side:
    return Side(side.label, [replace(run, evaluation=evaluation_of(run).on(keys)) for run in side.runs])


def _compare_sides(a: Side, b: Side, *, alpha: float, seed: int) -> Comparison:
    """Two sides whose runs have the same problems."""
    if len(a.runs) > 1 or len(b.runs) > 1:
        of_a, of_b = ([evaluation_of(run).value for run in side.runs] for side in (a, b))
        return compare_seeds(of_a, of_b, alpha=alpha, seed=seed)
    first, second = (evaluation_of(side.runs[0]).problems for side in (a, b))
    return compare_problems(
        [first[key][0] for key in first],
        [first[key][1] for key in first],
        [second[key][0] for key in first],
        [second[key][1] for key in first],
        alpha=alpha,
        seed=seed,
    )


def _accuracy(evaluation: Evaluation | None) -> Json | None:
    if evaluation is None:
        return None
    return {
        "benchmark": evaluation.benchmark,
        "k": evaluation.k,
        "step": evaluation.step,
        "value": evaluation.value,
        "ci95": None if evaluation.ci95 is None else list(evaluation.ci95),
        "sampling": evaluation.sampling,
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
