"""The problems of a benchmark option, and what a person should know of them before a score is believed."""

from __future__ import annotations

from dgpo_cli.config.groups import BenchmarkConfig
from dgpo_cli.data.digit_chain import Form
from dgpo_cli.data.problems import ProblemSet, load_problem_set
from dgpo_cli.errors import ConfigError
from dgpo_cli.rewards import READS_MATHEMATICS
from dgpo_cli.rewards.trial import columns_asked
from dgpo_cli.types import Grader

SHOWN_GOLDS = 5


def load_benchmark(benchmark: BenchmarkConfig, *, grader: Grader, limit: int | None) -> ProblemSet:
    """The problems of a benchmark option: their golds as `grader` reads them, and the columns that it asks for.

    Raises:
        ConfigError: neither a file nor a hub id is set, or the grader is a function that cannot be loaded.
        DataError: rows that cannot be used.
    """
    path = benchmark.path or benchmark.hub
    if path is None:
        raise ConfigError(
            f"benchmark {benchmark.name}: neither benchmark.path nor benchmark.hub is set", "benchmark.path=FILE"
        )
    return load_problem_set(
        path,
        prompt_key=benchmark.prompt_key,
        answer_key=benchmark.answer_key,
        config=benchmark.config,
        split=benchmark.split,
        revision=benchmark.revision,
        limit=limit,
        held_out=True,
        form=Form(benchmark.chain_steps, benchmark.filler),
        validation_fraction=benchmark.validation_fraction,
        reduce_golds=grader.name in READS_MATHEMATICS,
        columns=columns_asked(grader),
        group="benchmark",
    )


def benchmark_notes(benchmark: BenchmarkConfig, loaded: ProblemSet, grader: Grader) -> list[str]:
    """Lines for stderr: an unexpected number of rows, a limit, golds that nothing can match."""
    notes = []
    name = benchmark.name
    if benchmark.rows is not None and loaded.rows != benchmark.rows:
        notes.append(f"warning: benchmark {name}: expected {benchmark.rows} rows, found {loaded.rows}")
    if benchmark.limit is not None and benchmark.limit < loaded.rows:
        notes.append(f"benchmark {name}: the first {benchmark.limit} of {loaded.rows} problems (benchmark.limit)")
    reasons = grader.gold_problems([problem.gold for problem in loaded.problems])
    bad = [(problem, why) for problem, why in zip(loaded.problems, reasons, strict=True) if why is not None]
    if bad:
        shown = [f"row {problem.index + 1} (id {problem.problem_id}): {why}" for problem, why in bad[:SHOWN_GOLDS]]
        more = f" and {len(bad) - SHOWN_GOLDS} more" if len(bad) > SHOWN_GOLDS else ""
        notes.append(
            f"warning: benchmark {name}: no answer can match {len(bad)} golds, which count as wrong: "
            f"{'; '.join(shown)}{more}"
        )
    return notes
