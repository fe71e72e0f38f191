"""Grading completions that something else generated: no model, no torch.

A row holds `completion`, and either `index` (the 0-based row of the benchmark) or `gold` (the row is then a problem of
its own). Optional: `prompt`, `problem_id`, `finish_reason`, `completion_tokens`. So samples.jsonl itself can be graded
again by another grader.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.core.answers import reduced_gold
from dgpo_cli.core.pass_at_k import doubling
from dgpo_cli.data.kept_columns import kept_columns
from dgpo_cli.data.rows import Row, raise_all, read_rows
from dgpo_cli.disk import writing
from dgpo_cli.errors import DataError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.evaluation.evaluate import Progress, running_average, sample_record
from dgpo_cli.evaluation.manifest import claim, files_sha256, grader_facts, prompt_hashes, versions
from dgpo_cli.evaluation.results import EvaluationResult, summarise
from dgpo_cli.evaluation.sample_file import Record, SampleFile, make_folder, to_line, write_json
from dgpo_cli.files import write_atomically
from dgpo_cli.rewards.requests import of_completion
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, Grader, Problem, Prompt

CHUNK = 512
FINISH_REASONS = ("stop", "length")
UNKNOWN_SAMPLING = {"temperature": None, "top_p": None, "max_tokens": None, "seed": None}


@dataclass(frozen=True)
class Completion:
    """A row of the file: which problem it answers and as which of its samples."""

    prompt: Prompt
    sample: int
    text: str
    finish_reason: str | None
    tokens: int | None


@dataclass(frozen=True)
class CompletionFile:
    """The rows of a file of stored completions, each of which has a text."""

    path: Path
    rows: list[Row]
    has_index: bool  # every row names its problem by `index`; otherwise every row brings its own `gold`


def read_completions(path: Path) -> CompletionFile:
    """Raises DataError naming each row without a completion, or without the key that the other rows have."""
    rows = read_rows(path, ("completion",))
    has_index = any("index" in row.fields for row in rows)
    key = "index" if has_index else "gold"
    expected = {"completion": "expected text", "index": "expected the 0-based row of the benchmark, as in other rows"}
    expected["gold"] = "expected `index` (a row of the benchmark), or `gold`"
    wrong = []
    for row in rows:
        if not isinstance(row.fields.get("completion"), str):
            found = _shown(row, "completion")
            wrong.append(Wrong(f"{path} {row.place}: completion: {expected['completion']}, {found}"))
        if row.fields.get(key) in (None, "", [], {}):
            wrong.append(Wrong(f"{path} {row.place}: {key}: {expected[key]}, {_shown(row, key)}"))
    raise_all(wrong, str(path))
    return CompletionFile(path, rows, has_index)


def with_own_golds(file: CompletionFile, *, reduce_golds: bool, columns: ColumnsAsked = NO_COLUMNS) -> list[Completion]:
    """One problem a row, for a file whose rows bring their gold. reduce_golds, columns: as in `load_problem_set`."""
    kept = kept_columns(file.rows, columns, str(file.path))
    completions = []
    for index, row in enumerate(file.rows):
        gold = row.fields["gold"]
        text = ", ".join(map(str, gold)) if isinstance(gold, list) else str(gold)
        text = reduced_gold(text) if reduce_golds else text
        problem_id = row.fields.get("problem_id", row.fields.get("id", index))
        prompt = row.fields.get("prompt")
        prompt = prompt if isinstance(prompt, str) else ""
        problem = Problem(index, str(problem_id), (("user", prompt),), text, kept[index])
        completions.append(_completion(row, Prompt(problem, prompt, ()), 0))
    return completions


def of_benchmark(file: CompletionFile, problems: Sequence[Problem]) -> list[Completion]:
    """The rows that answer `problems`, each as the next sample of its problem.

    Raises:
        DataError: an index that is no row of the benchmark.
    """
    by_index = {problem.index: problem for problem in problems}
    taken: Counter[int] = Counter()
    completions, wrong = [], []
    for row in file.rows:
        index = _index(row.fields["index"])
        if index not in by_index:
            wrong.append(
                Wrong(
                    f"{file.path} {row.place}: index: expected a row of the benchmark, 0 to {len(problems) - 1}, "
                    f"{_shown(row, 'index')}"
                )
            )
            continue
        problem, prompt = by_index[index], row.fields.get("prompt")
        text = prompt if isinstance(prompt, str) else problem.messages[-1][1]
        completions.append(_completion(row, Prompt(problem, text, ()), taken[index]))
        taken[index] += 1
    raise_all(wrong, str(file.path))
    return completions


def grade_completions(
    completions: list[Completion],
    grader: Grader,
    *,
    source: Path,
    benchmark: str,
    pass_at: Sequence[int] | None,
    folder: Path,
    progress: Callable[[Progress], None] | None = None,
    manifest: Mapping[str, Any] | None = None,
) -> EvaluationResult:
    """results.json and samples.jsonl (one record a row, in the file's order) of stored completions.

    k is the smallest number of completions that a problem has; values of `pass_at` above it are left out. `manifest`
    adds to the facts that are known here.

    Raises:
        ConfigError: a folder with samples of something else.
        RewardError: a grader that does not say right or wrong.
    """
    if not completions:
        raise DataError(f"{source}: no row answers a problem of benchmark {benchmark}")
    started = time.monotonic()
    manifest = {**(manifest or {}), "benchmark": benchmark, **_facts(completions, grader, source)}
    make_folder(folder)
    claim(folder, manifest)
    records: list[Record] = []
    for first in range(0, len(completions), CHUNK):
        records += _graded(completions[first : first + CHUNK], grader)
        if progress is not None:
            done, seconds = len(records), time.monotonic() - started
            progress(Progress(benchmark, done, len(completions), done, seconds, running_average(records)))
    k = min(Counter(record["index"] for record in records).values())
    result = summarise(
        records,
        benchmark=benchmark,
        model=str(source),
        pass_at=doubling(k) if pass_at is None else [value for value in pass_at if value <= k],
        seconds=time.monotonic() - started,
        sampling=UNKNOWN_SAMPLING,
        manifest=manifest,
    )
    _save(records, folder / "samples.jsonl")
    write_json(folder / "results.json", result.as_record())
    return result


def _facts(completions: list[Completion], grader: Grader, source: Path) -> dict[str, Any]:
    """The part of the manifest that the completions and their grader give."""
    return {
        "completions_sha256": files_sha256([source]),
        **prompt_hashes(list({id(one.prompt.problem): one.prompt for one in completions}.values())),
        **grader_facts(grader),
        "sampling": UNKNOWN_SAMPLING,
        "versions": versions(),
    }


def _save(records: list[Record], file: Path) -> None:
    """All records in place of those of an earlier grading."""
    with SampleFile(file):
        lines = "".join(map(to_line, records))
        with writing(file, len(lines)):
            write_atomically(file, lines)


def _graded(completions: list[Completion], grader: Grader) -> list[Record]:
    requests = [
        of_completion(one.prompt, one.text, truncated=one.finish_reason == "length", completion_tokens=one.tokens)
        for one in completions
    ]
    verdicts = grader.grade(requests)
    return [
        sample_record(one.prompt, one.sample, one.text, verdict, one.finish_reason, one.tokens)
        for one, verdict in zip(completions, verdicts, strict=True)
    ]


def _completion(row: Row, prompt: Prompt, sample: int) -> Completion:
    reason, tokens = row.fields.get("finish_reason"), row.fields.get("completion_tokens")
    reason = reason if reason in FINISH_REASONS else None
    tokens = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None
    return Completion(prompt, sample, row.fields["completion"], reason, tokens)


def _index(value: Any) -> int | None:
    """A row number, as JSON or CSV writes it."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _shown(row: Row, key: str) -> str:
    if key not in row.fields:
        return f"found no such key; the row has {', '.join(map(str, row.fields)) or 'none'}"
    text = repr(row.fields[key])
    return f"found {text if len(text) <= 60 else text[:57] + '...'}"
