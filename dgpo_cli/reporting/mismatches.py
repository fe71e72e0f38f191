"""What keeps evaluations from being compared: each fact that two of them know and do not share.

A fact that one of them lacks (an average without problems, another program's results) is no mismatch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dgpo_cli.errors import Problem
from dgpo_cli.reporting.runs import Evaluation, Instrument, Run, evaluation_of


@dataclass(frozen=True)
class Found:
    """A fact as evaluation a has it and as b has it, as a person is told."""

    what: str
    of_a: Any
    of_b: Any
    differs: bool


Fact = Callable[[Evaluation, Evaluation], Found | None]  # None where one of them does not say


def mismatches(runs: Sequence[Run]) -> list[Problem]:
    """Of runs with an evaluation: benchmarks that not all have; then what else differs, one line a run and fact.

    Each fact of a run is held against the first run on its benchmark that knows it.
    """
    return _benchmarks(runs) + [
        Problem(f"{found.what} differs: {found.of_a} in {first.name}, {found.of_b} in {run.name}")
        for place, run in enumerate(runs)
        for first, found in _against_the_first(runs[:place], run)
        if found.differs
    ]


def _benchmarks(runs: Sequence[Run]) -> list[Problem]:
    own: dict[str, list[str]] = {}  # benchmarks of each thing that was evaluated
    for run in runs:
        own.setdefault(run.subject, []).append(evaluation_of(run).benchmark)
    first = next(iter(own), "")
    return [
        Problem(f"benchmark differs: {_listed(own[first])} in {first}, {_listed(names)} in {subject}")
        for subject, names in own.items()
        if set(names) != set(own[first])
    ]


def _against_the_first(earlier: Sequence[Run], run: Run) -> Iterator[tuple[Run, Found]]:
    others = [one for one in earlier if evaluation_of(one).benchmark == evaluation_of(run).benchmark]
    for fact in FACTS:
        for one in others:
            if (found := fact(evaluation_of(one), evaluation_of(run))) is not None:
                yield one, found
                break


def _k(a: Evaluation, b: Evaluation) -> Found:
    return Found("k", a.k, b.k, a.k != b.k)


def _sampling(key: str, a: Evaluation, b: Evaluation) -> Found | None:
    if not a.sampling or not b.sampling:  # a row of eval.jsonl alone does not say
        return None
    of_a, of_b = a.sampling.get(key), b.sampling.get(key)
    return Found(f"sampling {key}", of_a, of_b, of_a != of_b)


def _problem_set(a: Evaluation, b: Evaluation) -> Found | None:
    if not a.problems or not b.problems:
        return None
    of_a, of_b = (
        f"{len(one.problems)} problems, {len(one.problems.keys() - other.problems.keys())} of them alone"
        for one, other in ((a, b), (b, a))
    )
    return Found("the set of problems", of_a, of_b, a.problems.keys() != b.problems.keys())


def _text(a: Evaluation, b: Evaluation) -> Found | None:
    if a.data_sha256 is None or b.data_sha256 is None or a.problems.keys() != b.problems.keys():
        return None
    return Found("the text of the problems or golds", a.data_sha256, b.data_sha256, a.data_sha256 != b.data_sha256)


def _grader(a: Evaluation, b: Evaluation) -> Found | None:
    return _instrument("grader", a.grader, b.grader)


def _template(a: Evaluation, b: Evaluation) -> Found | None:
    return _instrument("prompt template", a.template, b.template)


def _instrument(what: str, a: Instrument | None, b: Instrument | None) -> Found | None:
    """By their text where both are known by it, else by their names."""
    if a is None or b is None:
        return None
    if a.sha256 is None or b.sha256 is None:
        return Found(what, a.name, b.name, a.name != b.name)
    of_a, of_b = (a.name, b.name) if a.name != b.name else (f"{a.name} ({a.sha256[:8]})", f"{b.name} ({b.sha256[:8]})")
    return Found(what, of_a, of_b, a.sha256 != b.sha256)


FACTS: tuple[Fact, ...] = (
    _k,
    *(partial(_sampling, key) for key in ("temperature", "top_p", "max_tokens")),
    _problem_set,
    _text,
    _grader,
    _template,
)


def _listed(names: list[str]) -> str:
    return ", ".join(sorted(names))
