"""Draw k completions a problem, grade them and sum up; used by `dgpo eval` and by evaluation during training.

It owns which samples share a generation unit, and continuing what was interrupted. Engines draw, graders judge.

Logits differ in the last bits with the batch that they are computed in, so a sample is a function of its seed and of
the unit that it is drawn in. Units are fixed by the problems and the batch size alone: a block of problems times a
block of sample numbers. They do not depend on k, so k=32 after k=8 draws only what is missing, and gives what one run
of k=32 would have given; and a unit that was interrupted is drawn again as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dgpo_cli.core.intervals import AvgAtK, avg_interval
from dgpo_cli.core.pass_at_k import doubling
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.errors import ConfigError, RewardError, RunError
from dgpo_cli.evaluation.manifest import claim, grader_facts, prompt_hashes, versions
from dgpo_cli.evaluation.results import EvaluationResult, summarise, unanswered_record
from dgpo_cli.evaluation.sample_file import Record, SampleFile, make_folder, write_json
from dgpo_cli.rewards.requests import of_rollout
from dgpo_cli.types import (
    Grader,
    Prompt,
    Rollout,
    Sampler,
    SampleRequest,
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


@dataclass(frozen=True)
class Unit:
    """Samples that are drawn in one batch: positions of problems times sample numbers."""

    problems: range
    samples: range


def generation_units(problems: int, batch_size: int, k: int) -> Iterator[Unit]:
    """The units that samples 0 .. k-1 of every problem lie in, lower sample numbers first.

    Problems are cut into blocks of `batch_size`. Where all fit into a batch several times, a unit takes several
    samples of each: blocks of 1, 1, 2, 4, ... samples up to the largest power of two that fits, so that a small k
    wastes little. For a k inside the last block the samples beyond it are drawn and dropped.
    """
    widest = _widest(problems, batch_size)
    start = 0
    while start < k:
        width = min(widest, max(1, start))
        for first in range(0, problems, batch_size):
            yield Unit(range(first, min(first + batch_size, problems)), range(start, start + width))
        start += width


def _widest(problems: int, batch_size: int) -> int:
    """Samples of a problem in the widest unit: the largest power of two of which all problems fit into a batch."""
    return 1 << (max(1, batch_size // problems).bit_length() - 1)


def evaluate(
    engine: Sampler,
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
    whole_units: bool = True,
    make_room: Callable[[list[str]], None] | None = None,
    failed: Callable[[Unanswered], None] | None = None,
) -> EvaluationResult:
    """avg@k and its companions over `prompts`; with a folder also results.json, samples.jsonl and manifest.json.

    A folder that holds samples of the same evaluation is continued. `batch_size` is the engine's; `manifest` adds to
    what the evaluation itself can say (weights, template, dtype); `model` is the name shown.
    `whole_units=False` draws no sample beyond k: for an engine whose samples do not depend on each other.
    What a server leaves unanswered is counted as wrong in the result, by its cause, and has no line in samples.jsonl:
    the next start asks it again, and the file is then put in the order of an evaluation that nothing interrupted.
    `failed` gets each of them.
    `make_room` gets the differences where the folder holds samples of another evaluation, and takes those away.

    Raises:
        ConfigError: a k of `pass_at` above `k`, or a folder with samples of another evaluation.
        RewardError: a grader that does not say right or wrong.
        RunError: the server answers nothing, or no longer; what it answered is kept.
    """
    started = time.monotonic()
    pass_at = doubling(k) if pass_at is None and k >= 1 else pass_at or []
    _check(prompts, benchmark, k, pass_at)
    drawn_with = {**asdict(sampling), "seed": seed}
    full_manifest = {
        **(manifest or {}),
        "benchmark": benchmark,
        **prompt_hashes(prompts),
        "sampling": drawn_with,
        **grader_facts(grader),
        "batch_size": batch_size,
        "versions": versions(),
    }
    if folder is not None:
        make_folder(folder)
        claim(folder, full_manifest, make_room=make_room)
    unanswered: list[Unanswered] = []
    with SampleFile(folder / "samples.jsonl") if folder is not None else nullcontext(_Unsaved()) as samples:
        kept = len(_wanted(samples, prompts, k))
        pending = (
            unit for unit in generation_units(len(prompts), batch_size, k) if _missing(samples, prompts, unit, k)
        )
        while units := list(islice(pending, engine.units_at_once)):
            missing = set().union(*(_missing(samples, prompts, unit, k) for unit in units))
            asked = [_requests(prompts, unit, seed) for unit in units]
            if not whole_units:
                asked = [[request for request in requests if _key(request) in missing] for requests in asked]
            drawn = _draw(engine, asked, missing, sampling)
            samples.append(_graded([one for one in drawn if isinstance(one, Rollout)], grader))
            unanswered += _unanswered(drawn, failed)
            if progress is not None:
                done = _wanted(samples, prompts, k)
                seconds = time.monotonic() - started
                progress(
                    Progress(benchmark, len(done), k * len(prompts), len(done) - kept, seconds, running_average(done))
                )
        records = _wanted(samples, prompts, k)
        if not records:
            raise RunError(unanswered[-1].message, unanswered[-1].hint)
        if not whole_units:
            samples.sort(_in_order(prompts, batch_size, samples.records))
    result = summarise(
        [*records, *map(unanswered_record, unanswered)],
        benchmark=benchmark,
        model=model,
        pass_at=pass_at,
        seconds=time.monotonic() - started,
        sampling=drawn_with,
        manifest=full_manifest,
    )
    if folder is not None:
        write_json(folder / "results.json", result.as_record())
    return result


def sample_record(
    prompt: Prompt, sample: int, completion: str, verdict: Verdict, finish_reason: str | None, tokens: int | None
) -> Record:
    """A line of samples.jsonl.

    Raises:
        RewardError: the verdict does not say right or wrong.
    """
    if verdict.correct is None and verdict.error is None:
        raise RewardError(
            "avg@k needs a grader that says right or wrong, and this reward function gave a number alone",
            "return (score, correct) from it, or choose another: reward=robust",
        )
    record = {
        "index": prompt.problem.index,
        "problem_id": prompt.problem.problem_id,
        "sample": sample,
        "prompt": prompt.text,
        "completion": completion,
        "answer": verdict.answer,
        "gold": prompt.problem.gold,
        "correct": bool(verdict.correct) and verdict.error is None,
        "error": verdict.error,
        "finish_reason": finish_reason,
        "completion_tokens": tokens,
    }
    return record if verdict.parts is None else record | {"reward_parts": dict(verdict.parts)}


def running_average(records: Sequence[Record]) -> AvgAtK | None:
    """avg@k over the problems that have samples so far; None without any."""
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


def _wanted(samples: SampleFile | _Unsaved, prompts: list[Prompt], k: int) -> list[Record]:
    keys = ((prompt.problem.index, sample) for prompt in prompts for sample in range(k))
    return [samples.records[key] for key in keys if key in samples.records]


def _missing(samples: SampleFile | _Unsaved, prompts: list[Prompt], unit: Unit, k: int) -> set[tuple[int, int]]:
    """(problem index, sample) of the samples below k that are not there yet."""
    keys = {(prompts[p].problem.index, sample) for p in unit.problems for sample in unit.samples if sample < k}
    return keys - samples.records.keys()


def _requests(prompts: list[Prompt], unit: Unit, seed: int) -> list[SampleRequest]:
    """Those of the whole unit."""
    return [
        SampleRequest(prompts[p], sample, derive_seed("eval", seed, prompts[p].problem.index, sample))
        for p in unit.problems
        for sample in unit.samples
    ]


def _key(request: SampleRequest) -> tuple[int, int]:
    return request.prompt.problem.index, request.sample


def _in_order(prompts: list[Prompt], batch_size: int, keys: Collection[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keys of samples in the order in which they are drawn where nothing fails."""
    places = {prompt.problem.index: place for place, prompt in enumerate(prompts)}
    widest = _widest(len(prompts), batch_size)

    def drawn_at(key: tuple[int, int]) -> tuple[int, ...]:
        place, sample = places[key[0]], key[1]
        # `generation_units` begins blocks at 0, 1, 2, 4, ... and then at every `widest`.
        block = sample // widest * widest if sample >= widest else (1 << sample.bit_length()) >> 1
        return block, place // batch_size, place, sample

    return sorted((key for key in keys if key[0] in places), key=drawn_at)


def _draw(
    engine: Sampler, units: list[list[SampleRequest]], missing: set[tuple[int, int]], sampling: Sampling
) -> list[Rollout | Unanswered]:
    """Generate all requests; what is missing of them."""
    drawn = engine.generate([request for unit in units for request in unit], sampling, [len(unit) for unit in units])
    return [one for one in drawn if _key(one.request) in missing]


def _unanswered(drawn: list[Rollout | Unanswered], failed: Callable[[Unanswered], None] | None) -> list[Unanswered]:
    """Those of a unit. Raises RunError once the engine has said that there is no use in asking for more."""
    found = [one for one in drawn if isinstance(one, Unanswered)]
    for one in found:
        if one.ends:
            raise RunError(one.message, one.hint)
        if failed is not None:
            failed(one)
    return found


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
