"""Runs side by side: what differs, who is ahead, and whether the data can say so. Builds compare.json and its tables.

Runs whose configurations differ in their seed alone are one side. Two sides of one run each are compared problem by
problem, which is a statement about those two sets of weights; with several seeds a side the seed is the unit, which is
a statement about the methods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from rich.table import Table

from dgpo_cli.core.comparison import Comparison, compare_problems, compare_seeds, holm, seeds_needed, verdicts
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.reporting.runs import Evaluation, Run
from dgpo_cli.reporting.tables import duration, interval, make_table, percent, points, sampling_text

SCHEMA_VERSION = 1
RUN_COLUMNS = ("run", "differs in", "accuracy", "95%", "measured by", "steps", "time", "status")
PAIR_COLUMNS = ("b", "against a", "difference", "95%", "p", "unit", "wins/ties/losses", "detectable", "b is")
_Json = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One run, or several that differ only in their seed."""

    label: str
    runs: list[Run]


@dataclass(frozen=True)
class Pair:
    """Side b against side a."""

    a: Side
    b: Side
    result: Comparison
    p_holm: float
    verdict: str
    seeds_needed: int | None  # a side, where there are not enough

    def as_record(self) -> _Json:
        result = self.result
        return {
            "a": self.a.label,
            "b": self.b.label,
            "difference": result.difference,
            "ci95": None if result.ci95 is None else list(result.ci95),
            "p_value": result.p_value,
            "p_holm": self.p_holm,
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


def differences(runs: list[Run]) -> list[_Json]:
    """For each run the settings that are not the same in all runs, seed included."""
    settings = [{**run.settings, **({"seed": run.seed} if run.seed is not None else {})} for run in runs]
    keys = sorted({key for one in settings for key in one})
    differing = [key for key in keys if any(one.get(key) != settings[0].get(key) for one in settings)]
    return [{key: one.get(key) for key in differing} for one in settings]


def short_labels(runs: list[Run]) -> list[str]:
    """What tells each run from the others, in few words: `algo=dgpo seed=1`.

    A setting that follows from the option chosen (`algo.clip_high` from `algo=dapo`) is left out.
    """
    differing = differences(runs)
    shown = [key for key in differing[0] if not _follows(key, differing)] if runs else []
    return [" ".join(f"{key.removesuffix('.name')}={_text(one[key])}" for key in shown) for one in differing]


def sides(runs: list[Run]) -> list[Side]:
    """The runs by what they are instances of. Evaluations, and runs with the same seed twice, stand alone."""
    groups: list[list[Run]] = []
    for run in runs:
        same = next((one for one in groups if run.kind == "training" and _alike(one[0], run)), None)
        if same is not None and run.seed not in [other.seed for other in same]:
            same.append(run)
        else:
            groups.append([run])
    firsts = short_labels([group[0] for group in groups])
    labels = [
        group[0].name if len(group) == 1 else _without_seed(label) or "all"
        for group, label in zip(groups, firsts, strict=True)
    ]
    return [
        Side(label if labels.count(label) == 1 else group[0].name, group)
        for label, group in zip(labels, groups, strict=True)
    ]


def compare(runs: list[Run], *, alpha: float, seed: int, force: bool) -> tuple[list[Pair], list[str]]:
    """Every pair of sides whose runs were evaluated, and notes on what could not be compared.

    Raises:
        ConfigError: evaluations of different problems, k or sampling, unless `force`.
        DataError: `force` leaves no common problem.
    """
    notes = []
    evaluated = [run for run in runs if run.evaluation is not None]
    notes += [f"{run.name}: it was never evaluated, so it stands in no pair" for run in runs if run.evaluation is None]
    wrong = _mismatches(evaluated)
    if wrong and not force:
        hint = "force=true compares them on the problems that both have"
        raise ConfigError("", problems=(*wrong[:-1], Wrong(wrong[-1].message, hint)))
    notes += [f"forced: {problem.message}" for problem in wrong]
    steps = sorted({run.evaluation.step for run in evaluated if run.evaluation and run.evaluation.step is not None})
    if len(steps) > 1:
        notes.append(f"the final evaluations stand at different steps: {', '.join(map(str, steps))}")
    found = []
    for a, b in combinations(sides(evaluated), 2):
        result = _compare_sides(a, b, alpha=alpha, seed=seed)
        if result is None:
            notes.append(f"{a.label} and {b.label}: only averages are known, so their problems cannot be paired")
        else:
            found.append((a, b, result))
    if len(evaluated) == 1:
        notes.append(f"{evaluated[0].name} alone has a final evaluation: there is nothing to compare it with")
    elif evaluated and not found and len(sides(evaluated)) == 1:
        notes.append("the runs differ in their seed alone: there is nothing to compare")
    results = [result for _, _, result in found]
    corrected, said = holm([result.p_value for result in results]), verdicts(results, alpha)
    needed = seeds_needed(alpha, max(1, len(results)))
    return [
        Pair(a, b, result, p_holm, verdict, needed if verdict == "not enough seeds" else None)
        for (a, b, result), p_holm, verdict in zip(found, corrected, said, strict=True)
    ], notes


def comparison_record(runs: list[Run], pairs: list[Pair], notes: list[str], *, alpha: float, seed: int) -> _Json:
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


def comparison_tables(runs: list[Run], pairs: list[Pair]) -> list[Table]:
    rows = []
    for run, label in zip(runs, short_labels(runs), strict=True):
        evaluation = run.evaluation
        rows.append(
            [
                run.name,
                label or "-",
                percent(evaluation.value if evaluation else None),
                interval(evaluation.ci95 if evaluation else None),
                f"{evaluation.benchmark} @{evaluation.k}, {sampling_text(evaluation.sampling)}" if evaluation else "-",
                str(run.final.get("step", "-")),
                duration(run.wall_seconds),
                run.status or "-",
            ]
        )
    tables = [make_table(RUN_COLUMNS, rows)]
    if pairs:
        rows = [_pair_row(pair, len(pairs)) for pair in pairs]
        tables.append(make_table(PAIR_COLUMNS, rows, title="pairs, b minus a, in points"))
    return tables


def _pair_row(pair: Pair, pairs: int) -> list[str]:
    result = pair.result
    needed = f" (need {pair.seeds_needed} a side)" if pair.seeds_needed else ""
    return [
        pair.b.label,
        pair.a.label,
        points(result.difference),
        interval(result.ci95, signed=True),
        f"{result.p_value:.3g}" + (f", Holm {pair.p_holm:.3g}" if pairs > 1 else ""),
        result.unit,
        f"{result.wins}/{result.ties}/{result.losses}",
        points(result.minimum_detectable),
        pair.verdict + needed,
    ]


def _compare_sides(a: Side, b: Side, *, alpha: float, seed: int) -> Comparison | None:
    of_a = [run.evaluation for run in a.runs if run.evaluation is not None]
    of_b = [run.evaluation for run in b.runs if run.evaluation is not None]
    if len(of_a) > 1 or len(of_b) > 1:
        return compare_seeds([one.value for one in of_a], [one.value for one in of_b], alpha=alpha, seed=seed)
    first, second = of_a[0].problems, of_b[0].problems
    if not first or not second:
        return None
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


def _mismatches(runs: list[Run]) -> list[Wrong]:
    """What keeps the evaluations from being compared, each against the first."""
    wrong = []
    for run in runs[1:]:
        first, other = runs[0].evaluation, run.evaluation
        assert first is not None
        assert other is not None
        for what, here, there in _unlike(first, other):
            wrong.append(Wrong(f"{what} differs: {here} in {runs[0].name}, {there} in {run.name}"))
    return wrong


def _unlike(a: Evaluation, b: Evaluation) -> list[tuple[str, Any, Any]]:
    found: list[tuple[str, Any, Any]] = [("benchmark", a.benchmark, b.benchmark), ("k", a.k, b.k)]
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


def _alike(a: Run, b: Run) -> bool:
    return a.kind == b.kind and a.seed is not None and b.seed is not None and a.settings == b.settings


def _follows(key: str, differing: list[_Json]) -> bool:
    """Whether the value of `key` is decided by the name of its group's option, which differs as well."""
    name = f"{key.partition('.')[0]}.name"
    if key == name or name not in differing[0]:
        return False
    decided: dict[str, Any] = {}
    return all(decided.setdefault(str(one[name]), one[key]) == one[key] for one in differing)


def _without_seed(label: str) -> str:
    return " ".join(word for word in label.split(" ") if not word.startswith("seed="))


def _accuracy(evaluation: Evaluation | None) -> _Json | None:
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


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
