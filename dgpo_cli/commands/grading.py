"""`dgpo rollout grade=FILE`: a reward is tried on stored completions. No model is loaded, and no torch.

A file whose rows bring their `gold`, and every column that the reward asks for, needs nothing else. Otherwise the rows
name problems of the data by `index` or `id`, and the gold and the columns are taken from there.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dgpo_cli.commands.data_rows import data_rows
from dgpo_cli.config.commands import RolloutConfig
from dgpo_cli.config.reward_names import paths_of
from dgpo_cli.errors import DataError, RunError
from dgpo_cli.evaluation.completions import (
    Completion,
    CompletionFile,
    of_benchmark,
    read_completions,
    request_of,
    with_own_golds,
)
from dgpo_cli.reporting.grading_view import grading_tables
from dgpo_cli.reporting.tables import show
from dgpo_cli.rewards import READS_MATHEMATICS, load_grader
from dgpo_cli.rewards.several import functions_of
from dgpo_cli.rewards.trial import columns_asked
from dgpo_cli.types import Grader, Verdict

MOST_VALUES = 12  # scores that are counted one by one; more are counted in bins
BINS = 10
SHOWN_FAILURES = 3


@dataclass(frozen=True)
class Graded:
    """Stored completions with what the reward said of each."""

    completions: list[Completion]
    verdicts: list[Verdict]
    seconds: float  # of wall time, for all of them

    @property
    def scored(self) -> list[Verdict]:
        return [verdict for verdict in self.verdicts if verdict.error != "failed"]


def run(config: RolloutConfig, folder: Path) -> None:
    """Print what the reward gives: a table on a terminal, one JSON object in a pipe. Writes nothing.

    Raises:
        ConfigError: a function that cannot be loaded.
        DataError: rows that cannot be used, or that name no problem of the data.
        RunError: calls that raised or returned no reward, after the table.
    """
    with closing(load_grader(config.reward)) as grader:
        completions = _completions(config, grader)
        functions = functions_of(grader)
        for function in functions:
            function.failures = []
        started = time.monotonic()
        verdicts = grader.grade([request_of(one) for one in completions])
        graded = Graded(completions, verdicts, time.monotonic() - started)
        calls = {function.shown: list(function.call_seconds) for function in functions}
        failures = [failure for function in functions for failure in function.failures or []]
    record = {"file": str(config.grade), "reward": paths_of(config.reward.path) or [config.reward.name]}
    record |= _summary(graded, calls) | {"failures": failures[:SHOWN_FAILURES]}
    show(grading_tables(record), record)
    if failures:
        raise RunError(
            f"{len(failures)} of {len(verdicts)} completions have no reward; the first: {failures[0]}",
            "in training, such a call ends the run",
        )


def _completions(config: RolloutConfig, grader: Grader) -> list[Completion]:
    asked, reduce = columns_asked(grader), grader.name in READS_MATHEMATICS
    file = read_completions(Path(str(config.grade)).expanduser())
    names = {name for row in file.rows for name in row.fields}
    if file.key == "gold" and asked.required <= names:
        return with_own_golds(file, reduce_golds=reduce, columns=asked)
    file = _naming_problems(file, sorted(asked.required - names))
    loaded = data_rows(config.data, seed=config.seed, whole=True, reduce_golds=reduce, columns=asked)
    return of_benchmark(file, loaded.problems, source=str(config.data.path))


def _naming_problems(file: CompletionFile, missing: list[str]) -> CompletionFile:
    """The file, its rows naming problems of the data, for what they lack themselves."""
    if file.key != "gold":
        return file
    if not file.has_ids:
        raise DataError(
            f"{file.path}: the reward asks for {', '.join(missing)}, which no row has, and the rows have no id",
            "add the column, or `id` or `index` of a row of data.path=FILE",
        )
    return replace(file, key="id")


def _summary(graded: Graded, calls: dict[str, list[float]]) -> dict[str, Any]:
    verdicts = graded.verdicts
    said = Counter({True: "right", False: "wrong", None: "unsaid"}[verdict.correct] for verdict in verdicts)
    parts: dict[str, list[float]] = {}
    for verdict in graded.scored:
        for name, value in (verdict.parts or {}).items():
            parts.setdefault(name, []).append(value)
    scores = [verdict.score for verdict in graded.scored]
    return {
        "n": len(verdicts),
        "problems": len({one.prompt.problem.problem_id for one in graded.completions}),
        "score": _spread(scores),
        "distribution": _distribution(scores),
        "correct": {name: said[name] for name in ("right", "wrong", "unsaid")},
        "parts": {name: _spread(values) for name, values in parts.items()},
        "groups": _groups(graded),
        "errors": dict(sorted(Counter(verdict.error for verdict in verdicts if verdict.error).items())),
        "seconds": {
            "all": round(graded.seconds, 4),
            "a_completion": round(graded.seconds / len(verdicts), 6),
            "calls": {name: _call_times(seconds) for name, seconds in calls.items()},
        },
        "lowest": _example(graded, min),
        "highest": _example(graded, max),
    }


def _spread(values: Sequence[float]) -> dict[str, float | int] | None:
    if not values:
        return None
    cuts = statistics.quantiles(values, n=10, method="inclusive") if len(values) > 1 else [values[0]] * 9
    found = {"mean": statistics.fmean(values), "std": statistics.pstdev(values), "min": min(values)}
    return {"n": len(values), **found, "p10": cuts[0], "median": cuts[4], "p90": cuts[8], "max": max(values)}


def _distribution(scores: Sequence[float]) -> list[dict[str, float | int]]:
    """How many scores lie `from` to `to`: each value by itself if there are few, else bins of equal width."""
    counts = Counter(scores)
    if len(counts) <= MOST_VALUES:
        return [{"from": value, "to": value, "n": counts[value]} for value in sorted(counts)]
    low, high = min(scores), max(scores)
    width = (high - low) / BINS
    binned = Counter(min(BINS - 1, int((score - low) / width)) for score in scores)
    return [{"from": low + at * width, "to": low + (at + 1) * width, "n": binned[at]} for at in range(BINS)]


def _groups(graded: Graded) -> dict[str, int]:
    """Problems with several completions, and those among them whose scores are equal: they would teach nothing."""
    scores: dict[str, list[float]] = {}
    for one, verdict in zip(graded.completions, graded.verdicts, strict=True):
        scores.setdefault(one.prompt.problem.problem_id, []).append(verdict.score)
    several = [own for own in scores.values() if len(own) > 1]
    return {"n": len(several), "no_spread": sum(max(own) - min(own) < 1e-8 for own in several)}


def _call_times(seconds: Sequence[float]) -> dict[str, float | int] | None:
    if not seconds:
        return None
    return {"n": len(seconds), "median": round(statistics.median(seconds), 6), "max": round(max(seconds), 6)}


def _example(graded: Graded, choose: Any) -> dict[str, Any] | None:
    pairs = [pair for pair in zip(graded.completions, graded.verdicts, strict=True) if pair[1].error != "failed"]
    if not pairs:
        return None
    one, verdict = choose(pairs, key=lambda pair: pair[1].score)
    parts = {} if verdict.parts is None else {"parts": dict(verdict.parts)}
    return {"score": verdict.score, **parts, "gold": one.prompt.problem.gold, "completion": one.text}
