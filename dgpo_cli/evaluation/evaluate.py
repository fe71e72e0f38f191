"""Draw k completions a problem, grade them and sum up; used by `dgpo eval` and by evaluation during training.

It owns the continuing of what was interrupted: a unit of samples that was interrupted is drawn again as a whole, if the
engine's samples depend on their unit. `generation_units` says what the units are; engines draw, graders judge.

A sample that a server leaves unanswered counts as wrong in the result, by its cause, and has no line in samples.jsonl:
the next start asks for it again, and then puts the file in the order of an evaluation that nothing interrupted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from dgpo_cli.core.intervals import AvgAtK, avg_interval
from dgpo_cli.core.pass_at_k import doubling
from dgpo_cli.errors import ConfigError, RunError
from dgpo_cli.evaluation.generation_units import Key, Unit, generation_units, in_drawing_order, key_of
from dgpo_cli.evaluation.manifest import claim, grader_facts, prompt_hashes, versions
from dgpo_cli.evaluation.results import EvaluationResult, summarise, unanswered_record
from dgpo_cli.evaluation.sample_file import Record, SampleFile, make_folder, write_json
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.types import (
    Engine,
    Grader,
    Prompt,
    Rollout,
    Sampling,
    Unanswered,
    Verdict,
)


@dataclass(frozen=True)
class Progress:
    """How far an evaluation is, given after the units that are drawn side by side."""

    benchmark: str
    done: int  # samples
    total: int
    drawn: int  # samples of this session
    seconds: float  # of this session
    average: AvgAtK | None  # over the problems that have samples so far

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) * self.seconds / self.drawn if self.drawn else None


def evaluate(
    engine: Engine,
    grader: Grader,
    prompts: list[Prompt],
    *,
    benchmark: str,
    k: int,
    sampling: Sampling,
    seed: int,
    batch_size: int,
    pass_at: Sequence[int] | None,
    folder: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    model: str = "",
    manifest: Mapping[str, Any] | None = None,
    make_room: Callable[[list[str]], None] | None = None,
    failed: Callable[[Unanswered], None] | None = None,
) -> EvaluationResult:
    """avg@k and its companions over `prompts`; with a folder also results.json, samples.jsonl and manifest.json.

    A folder that holds samples of the same evaluation is continued; if they are of another one, `make_room` gets the
    differences and takes the samples away. `batch_size` is of a generation unit; `manifest` adds to the facts that the
    evaluation itself knows (weights, template, dtype); `model` is the name shown; `failed` gets each unanswered sample.

    Raises:
        ConfigError: a k of `pass_at` above `k`, or a folder with samples of another evaluation.
        RunError: the server answers nothing, or no longer; what it answered is kept.
    """
    started = time.monotonic()
    pass_at = doubling(k) if pass_at is None and k >= 1 else pass_at or []
    _check(prompts, benchmark, k, pass_at)
    drawn_with = {**asdict(sampling), "seed": seed}
    manifest = {**(manifest or {}), "benchmark": benchmark, **_facts(prompts, drawn_with, grader, batch_size)}
    with _samples_in(folder, manifest, make_room) as samples:
        drawing = _Drawing(engine, grader, prompts, samples, k, sampling, seed, batch_size, failed)
        _draw_all(drawing, benchmark, started, progress)
        records = drawing.records()
    result = summarise(
        records,
        benchmark=benchmark,
        model=model,
        pass_at=pass_at,
        seconds=time.monotonic() - started,
        sampling=drawn_with,
        manifest=manifest,
    )
    if folder is not None:
        write_json(folder / "results.json", result.as_record())
    return result


def _facts(prompts: list[Prompt], drawn_with: dict[str, Any], grader: Grader, batch_size: int) -> dict[str, Any]:
    """The part of the manifest that an evaluation knows by itself."""
    return {
        **prompt_hashes(prompts),
        "sampling": drawn_with,
        **grader_facts(grader),
        "batch_size": batch_size,
        "versions": versions(),
    }


@contextmanager
def _samples_in(
    folder: Path | None, manifest: Mapping[str, Any], make_room: Callable[[list[str]], None] | None
) -> Iterator[SampleFile | _Unsaved]:
    """The samples that the folder has of this evaluation, open for more; without a folder they are kept in memory."""
    if folder is None:
        yield _Unsaved()
        return
    make_folder(folder)
    claim(folder, manifest, make_room=make_room)
    with SampleFile(folder / "samples.jsonl") as samples:
        yield samples


def _draw_all(drawing: _Drawing, benchmark: str, started: float, progress: Callable[[Progress], None] | None) -> None:
    """Draw the missing samples, and tell of each round."""
    kept = len(drawing.wanted())
    total = drawing.k * len(drawing.prompts)
    for _ in drawing.rounds():
        if progress is not None:
            done, seconds = drawing.wanted(), time.monotonic() - started
            progress(Progress(benchmark, len(done), total, len(done) - kept, seconds, running_average(done)))


@dataclass
class _Drawing:
    """The samples of an evaluation on their way into `samples`: those that are not there yet."""

    engine: Engine
    grader: Grader
    prompts: list[Prompt]
    samples: SampleFile | _Unsaved
    k: int
    sampling: Sampling
    seed: int
    batch_size: int
    failed: Callable[[Unanswered], None] | None
    unanswered: list[Unanswered] = field(default_factory=list)

    def rounds(self) -> Iterator[None]:
        """Draw, grade and keep, as many units at a time as the engine draws side by side."""
        units = generation_units(len(self.prompts), self.batch_size, self.k)
        pending = (unit for unit in units if self._missing(unit))
        while together := list(islice(pending, self.engine.facts.units_at_once)):
            drawn = self._draw(together)
            self.samples.append(_graded([one for one in drawn if isinstance(one, Rollout)], self.grader))
            self._note_unanswered([one for one in drawn if isinstance(one, Unanswered)])
            yield

    def wanted(self) -> list[Record]:
        """The samples below k that are there, by problem."""
        keys = ((prompt.problem.index, sample) for prompt in self.prompts for sample in range(self.k))
        return [self.samples.records[key] for key in keys if key in self.samples.records]

    def records(self) -> list[Record]:
        """What the result is computed from, once all rounds are over. Raises RunError if there is no sample at all."""
        found = self.wanted()
        if not found:
            raise RunError(self.unanswered[-1].message, self.unanswered[-1].hint)
        if not self.engine.facts.depends_on_unit:  # a part of a unit may have come later than the rest
            self.samples.sort(in_drawing_order(self.prompts, self.batch_size, self.samples.records))
        return [*found, *map(unanswered_record, self.unanswered)]

    def _missing(self, unit: Unit) -> set[Key]:
        """Samples of a unit, below k, that are not there yet."""
        return unit.keys(self.prompts, self.k) - self.samples.records.keys()

    def _draw(self, units: list[Unit]) -> list[Rollout | Unanswered]:
        """What is missing of some units. Its companions are drawn again with it, if they decide its last bits."""
        missing = set().union(*map(self._missing, units))
        requests = [
            request
            for number, unit in enumerate(units)
            for request in unit.requests(self.prompts, self.seed, number)
            if self.engine.facts.depends_on_unit or key_of(request) in missing
        ]
        return [one for one in self.engine.generate(requests, self.sampling) if key_of(one.request) in missing]

    def _note_unanswered(self, found: list[Unanswered]) -> None:
        """Raises RunError once the engine has said that there is no use in asking for more."""
        for one in found:
            if one.ends:
                raise RunError(one.message, one.hint)
            if self.failed is not None:
                self.failed(one)
        self.unanswered += found


def sample_record(
    prompt: Prompt, sample: int, completion: str, verdict: Verdict, finish_reason: str | None, tokens: int | None
) -> Record:
    """A line of samples.jsonl. `correct` is null of a reward that says nothing of right and wrong."""
    record = {
        "index": prompt.problem.index,
        "problem_id": prompt.problem.problem_id,
        "sample": sample,
        "prompt": prompt.text,
        "completion": completion,
        "answer": verdict.answer,
        "gold": prompt.problem.gold,
        "correct": None
        if not verdict.error and verdict.correct is None
        else bool(verdict.correct) and not verdict.error,
        "reward": verdict.score,
        "error": verdict.error,
        "finish_reason": finish_reason,
        "completion_tokens": tokens,
    }
    return record if verdict.parts is None else record | {"reward_parts": dict(verdict.parts)}


def running_average(records: Sequence[Record]) -> AvgAtK | None:
    """avg@k over the problems that have samples so far; None without any, or if they are not right or wrong."""
    if any(record["correct"] is None for record in records):
        return None
    right: dict[int, int] = {}
    drawn: dict[int, int] = {}
    for record in records:
        index = record["index"]
        right[index] = right.get(index, 0) + record["correct"]
        drawn[index] = drawn.get(index, 0) + 1
    return avg_interval(list(right.values()), list(drawn.values())) if drawn else None


class _Unsaved:
    """Samples of an evaluation without a folder."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, int], Record] = {}

    def append(self, records: Sequence[Record]) -> None:
        self.records.update({(record["index"], record["sample"]): record for record in records})

    def sort(self, keys: Sequence[tuple[int, int]]) -> None:
        """Nothing is written."""


def _check(prompts: list[Prompt], benchmark: str, k: int, pass_at: Sequence[int]) -> None:
    if not prompts:
        raise ConfigError(f"benchmark {benchmark}: there is no problem to evaluate")
    if k < 1:
        raise ConfigError(f"benchmark.k: expected at least 1 sample a problem, got {k}")
    wrong = [value for value in pass_at if not 1 <= value <= k]
    if wrong:
        raise ConfigError(
            f"benchmark.pass_at: pass@{wrong[0]} cannot be estimated from {k} samples a problem",
            f"benchmark.pass_at=[{','.join(str(value) for value in pass_at if 1 <= value <= k) or k}]",
        )


def _graded(rollouts: list[Rollout], grader: Grader) -> list[Record]:
    verdicts = grader.grade([of_rollout(rollout) for rollout in rollouts])
    return [
        sample_record(
            rollout.request.prompt,
            rollout.request.sample,
            rollout.text,
            verdict,
            rollout.finish_reason,
            rollout.completion_tokens,
        )
        for rollout, verdict in zip(rollouts, verdicts, strict=True)
    ]
