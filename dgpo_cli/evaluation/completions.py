"""Grading completions that something else generated: no model, no torch.

A row holds `completion`, and `index` (the 0-based row of the benchmark), `id` (that row's own), or `gold` (the row is
then a problem of its own). Optional: `prompt`, `problem_id`, `finish_reason`, `completion_tokens`, `token_ids`. So
samples.jsonl itself can be graded again by another grader. docs/evaluation.md has the format.
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
from dgpo_cli.types import NO_COLUMNS, ColumnsAsked, Grader, GradeRequest, Problem, Prompt

CHUNK = 512
ID_NAMES = ("problem_id", "id", "prompt_id", "unique_id")
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
    token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class CompletionFile:
    """The rows of a file of stored completions, each of which has a text."""

    path: Path
    rows: list[Row]
    key: str  # what every row has: `index` or `id` names its problem; with `gold` the row is one

    @property
    def has_ids(self) -> bool:
        """Whether every row has the id of a problem, beside what `key` says."""
        return all(_id(row) is not None for row in self.rows)


def read_completions(path: Path) -> CompletionFile:
    """Raises DataError naming each row without a completion, or without the key that the other rows have."""
    rows = read_rows(path, ("completion",))
    key = next((name for name in ("index", "gold") if any(name in row.fields for row in rows)), "")
    key = key or ("id" if any(_id(row) is not None for row in rows) else "gold")
    expected = {"completion": "expected text", "index": "expected the 0-based row of the benchmark, as in other rows"}
    expected["id"] = "expected the id of a row of the benchmark, as in other rows"
    expected["gold"] = "expected `index` or `id` (of a row of the benchmark), or `gold`"
    wrong = []
    for row in rows:
        if not isinstance(row.fields.get("completion"), str):
            found = _shown(row, "completion")
            wrong.append(Wrong(f"{path} {row.place}: completion: {expected['completion']}, {found}"))
        if (_id(row) if key == "id" else row.fields.get(key)) in (None, "", [], {}):
            wrong.append(Wrong(f"{path} {row.place}: {key}: {expected[key]}, {_shown(row, key)}"))
    raise_all(wrong, str(path))
    return CompletionFile(path, rows, key)


def with_own_golds(file: CompletionFile, *, reduce_golds: bool, columns: ColumnsAsked = NO_COLUMNS) -> list[Completion]:
    """One problem a row, for a file whose rows bring their gold. reduce_golds, columns: as in `load_problem_set`."""
    kept = kept_columns(file.rows, columns, str(file.path))
    completions = []
    for index, row in enumerate(file.rows):
        gold = row.fields["gold"]
        text = ", ".join(map(str, gold)) if isinstance(gold, list) else str(gold)
        text = reduced_gold(text) if reduce_golds else text
        problem_id = index if _id(row) is None else _id(row)
        turns = _turns(row.fields.get("prompt"))
        is_chat = isinstance(row.fields.get("prompt"), list)
        problem = Problem(index, str(problem_id), turns, text, kept[index], chat=is_chat)
        completions.append(_completion(row, Prompt(problem, turns[-1][1], ()), 0))
    return completions


def of_benchmark(
    file: CompletionFile, problems: Sequence[Problem], *, source: str = "the benchmark"
) -> list[Completion]:
    """The rows that answer `problems`, each as the next sample of its problem. source: what the problems are of.

    Raises:
        DataError: an index or id that is no row of the benchmark.
    """
    by_index = {problem.index: problem for problem in problems}
    by_id = {problem.problem_id: problem for problem in problems}
    taken: Counter[int] = Counter()
    completions, wrong = [], []
    for row in file.rows:
        found = by_id.get(str(_id(row))) if file.key == "id" else by_index.get(_index(row.fields["index"]))  # type: ignore[arg-type]
        if found is None:
            expected = f"0 to {len(problems) - 1}" if file.key == "index" else f"such as {problems[0].problem_id}"
            shown = _shown(row, file.key) if file.key == "index" else f"found {_id(row)!r}"
            wrong.append(Wrong(f"{file.path} {row.place}: {file.key}: expected a row of {source}, {expected}, {shown}"))
            continue
        prompt = row.fields.get("prompt")
        text = prompt if isinstance(prompt, str) else found.messages[-1][1]
        completions.append(_completion(row, Prompt(found, text, ()), taken[found.index]))
        taken[found.index] += 1
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
    verdicts = grader.grade([request_of(one) for one in completions])
    return [
        sample_record(one.prompt, one.sample, one.text, verdict, one.finish_reason, one.tokens)
        for one, verdict in zip(completions, verdicts, strict=True)
    ]


def request_of(one: Completion) -> GradeRequest:
    """What a grader is shown of a stored completion."""
    return of_completion(
        one.prompt,
        one.text,
        truncated=one.finish_reason == "length",
        completion_tokens=one.tokens,
        token_ids=one.token_ids,
    )


def _completion(row: Row, prompt: Prompt, sample: int) -> Completion:
    reason, tokens = row.fields.get("finish_reason"), row.fields.get("completion_tokens")
    reason = reason if reason in FINISH_REASONS else None
    tokens = tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None
    ids = row.fields.get("token_ids")
    is_ids = isinstance(ids, list) and all(isinstance(one, int) for one in ids)
    token_ids = tuple(ids) if isinstance(ids, list) and is_ids else ()
    return Completion(prompt, sample, row.fields["completion"], reason, tokens or len(token_ids) or None, token_ids)


def _id(row: Row) -> Any:
    """The id of the problem that a row answers, by the first of its names."""
    return next((row.fields[name] for name in ID_NAMES if row.fields.get(name) not in (None, "")), None)


def _turns(prompt: Any) -> tuple[tuple[str, str], ...]:
    """A prompt's turns, text or messages; an empty one for anything else."""
    if not isinstance(prompt, list) or not prompt:
        return (("user", prompt if isinstance(prompt, str) else ""),)
    turns = [turn for turn in prompt if isinstance(turn, dict)]
    return tuple((str(turn.get("role")), str(turn.get("content"))) for turn in turns) or (("user", ""),)


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
