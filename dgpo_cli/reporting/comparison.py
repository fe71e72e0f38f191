"""Runs side by side: what differs, who is ahead, and whether the data can say so. Builds compare.json and its tables.

Runs whose configurations differ in their seed alone are one side. Two sides of one run each are compared problem by
problem, which is a statement about those two sets of weights; with several seeds a side the seed is the unit, which is
a statement about the methods. Where several benchmarks were evaluated, each is compared by itself, and Holm's
correction counts them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from dgpo_cli.core.comparison import Comparison, compare_problems, compare_seeds, holm, seeds_needed, verdicts
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.runs import Counts, Evaluation, Run
from dgpo_cli.reporting.sides import Side, differences, sides

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Pair:
    """Side b against side a."""

    a: Side
    b: Side
    result: Comparison
    p_holm: float
    verdict: str
    seeds_needed: int | None  # a side, where there are not enough

    def as_record(self) -> Json:
        result = self.result
        return {
            "a": self.a.label,
            "b": self.b.label,
            "difference": result.difference,
            "ci95": None if result.ci95 is None else list(result.ci95),
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
        ConfigError: evaluations of different problems, k or sampling, unless `force`.
        DataError: `force` leaves no common problem.
    """
    evaluated = [run for run in runs if run.evaluation is not None]
    notes = [f"{run.name}: it was never evaluated, so it stands in no pair" for run in runs if run.evaluation is None]
    wrong = _mismatches(evaluated)
    if wrong and not force:
        hint = "force=true compares them on the problems that both have"
        raise ConfigError("", problems=(*wrong[:-1], Wrong(wrong[-1].message, hint)))
    notes += [f"forced: {problem.message}" for problem in wrong]
    notes += _notes_on_evaluations(evaluated) + _notes_on_samples(sides(evaluated))
    pairs = _pairs(runs)
    comparable = [(a, b) for a, b in pairs if len(a.runs) > 1 or len(b.runs) > 1 or (_problems(a) and _problems(b))]
    notes += [
        f"{a.label} and {b.label}: only averages are known, so their problems cannot be paired"
        for a, b in pairs
        if (a, b) not in comparable
    ]
    count = max(1, len(comparable))
    results = [_compare_sides(a, b, alpha=alpha / count, seed=seed) for a, b in comparable]
    corrected, said = holm([result.p_value for result in results]), verdicts(results, alpha)
    needed = seeds_needed(alpha, count)
    notes += [
        f"{a.label} and {b.label}: no result of so few problems ({result.wins + result.ties + result.losses}) could "
        f"reach p < {alpha:g}"
        for (a, b), result in zip(comparable, results, strict=True)
        if result.unit == "problem" and result.smallest_p * count >= alpha
    ]
    return [
        Pair(a, b, result, p_holm, verdict, needed if verdict == "not enough seeds" else None)
        for (a, b), result, p_holm, verdict in zip(comparable, results, corrected, said, strict=True)
    ], notes


def _notes_on_evaluations(evaluated: list[Run]) -> list[str]:
    notes = []
    steps = sorted({run.evaluation.step for run in evaluated if run.evaluation and run.evaluation.step is not None})
    if len(steps) > 1:
        notes.append(f"the final evaluations stand at different steps: {', '.join(map(str, steps))}")
    if len(evaluated) == 1:
        notes.append(f"{evaluated[0].name} alone has a final evaluation: there is nothing to compare it with")
    elif evaluated and len(sides(evaluated)) == 1:
        notes.append("the runs differ in their seed alone: there is nothing to compare")
    return notes


def _notes_on_samples(groups: list[Side]) -> list[str]:
    """Sides that drew different numbers of completions (dynamic sampling does) are compared after unequal work."""
    drawn = {}
    for side in groups:
        totals = [sum(row.get("samples/generated") or 0 for row in run.rows) for run in side.runs if run.rows]
        if totals:
            drawn[side.label] = sum(totals) / len(totals)
    if not drawn or max(drawn.values()) <= 1.05 * min(drawn.values()):
        return []
    listed = ", ".join(f"{label} {mean:,.0f}" for label, mean in drawn.items())
    return [f"the final evaluations come after different numbers of samples: {listed}"]


def _pairs(runs: list[Run]) -> list[tuple[Side, Side]]:
    """Sides with an evaluation, two and two, of one benchmark; of any where no two share one."""
    known = [Side(side.label, [run for run in side.runs if run.evaluation is not None]) for side in sides(runs)]
    pairs = list(combinations([side for side in known if side.runs], 2))
    return [(a, b) for a, b in pairs if _benchmark(a) == _benchmark(b)] or pairs


def _benchmark(side: Side) -> str:
    evaluation = side.runs[0].evaluation
    assert evaluation is not None
    return evaluation.benchmark


def _problems(side: Side) -> Counts:
    evaluation = side.runs[0].evaluation
    assert evaluation is not None
    return evaluation.problems


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
            }
            for run, differing in zip(runs, differences(runs), strict=True)
        ],
        "pairs": [pair.as_record() for pair in pairs],
        "notes": notes,
    }
    finite = _finite(record)
    assert isinstance(finite, dict)
    return finite


def _compare_sides(a: Side, b: Side, *, alpha: float, seed: int) -> Comparison:
    if len(a.runs) > 1 or len(b.runs) > 1:
        of_a, of_b = ([run.evaluation.value for run in side.runs if run.evaluation is not None] for side in (a, b))
        return compare_seeds(of_a, of_b, alpha=alpha, seed=seed)
    first, second = _problems(a), _problems(b)
    common = [key for key in first if key in second]
    if not common:
        raise DataError(f"{a.label} and {b.label} have no problem in common", "compare evaluations of one benchmark")
    return compare_problems(
        [first[key][0] for key in common],
        [first[key][1] for key in common],
        [second[key][0] for key in common],
        [second[key][1] for key in common],
        alpha=alpha,
        seed=seed,
    )


def _mismatches(evaluated: list[Run]) -> list[Wrong]:
    """What keeps the evaluations from being compared: benchmarks that not all have, then each against the first."""
    benchmarks: dict[str, list[str]] = {}  # of each thing that was evaluated
    first: dict[str, Run] = {}  # evaluation of each benchmark
    for run in evaluated:
        assert run.evaluation is not None
        benchmarks.setdefault(run.subject, []).append(run.evaluation.benchmark)
        first.setdefault(run.evaluation.benchmark, run)
    subjects = list(benchmarks)
    wrong = [
        Wrong(f"benchmark differs: {_listed(benchmarks[subjects[0]])} in {subjects[0]}, {_listed(own)} in {subject}")
        for subject, own in benchmarks.items()
        if set(own) != set(benchmarks[subjects[0]])
    ]
    for run in evaluated:
        assert run.evaluation is not None
        reference = first[run.evaluation.benchmark]
        assert reference.evaluation is not None
        for what, here, there in _unlike(reference.evaluation, run.evaluation):
            wrong.append(Wrong(f"{what} differs: {here} in {reference.name}, {there} in {run.name}"))
    return wrong


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names))


def _unlike(a: Evaluation, b: Evaluation) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = [("k", a.k, b.k)]
    if a.sampling and b.sampling:  # a row of eval.jsonl alone does not say
        for key in ("temperature", "top_p", "max_tokens"):
            found.append((f"sampling {key}", a.sampling.get(key), b.sampling.get(key)))
    if a.problems and b.problems:
        alone_a, alone_b = len(a.problems.keys() - b.problems.keys()), len(b.problems.keys() - a.problems.keys())
        here, there = (f"{len(one.problems)} problems" for one in (a, b))
        found.append(("the set of problems", f"{here}, {alone_a} of them alone", f"{there}, {alone_b} of them alone"))
        if not alone_a and not alone_b:
            found[-1] = ("the text of the problems or golds", a.data_sha256, b.data_sha256 or a.data_sha256)
            if a.data_sha256 is None:
                found.pop()
    return [(what, here, there) for what, here, there in found if here != there]


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
