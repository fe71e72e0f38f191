"""Reading finished work back: training runs, sweeps and evaluations as one kind of record.

It owns what `dgpo compare` needs of a folder; statistics are in `core.comparison`, and how runs are paired in
`comparison` beside this file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from dgpo_cli.config.reward_names import paths_of
from dgpo_cli.core.intervals import AvgAtK, avg_interval
from dgpo_cli.errors import DataError
from dgpo_cli.evaluation.results import FROM_SERVER
from dgpo_cli.reporting.run_files import Json, flat, read_json, read_rows, read_yaml

# Settings that decide nothing of what a run computes, or not as a choice of its user.
IGNORED = (
    *("overwrite", "resume", "resume_allow", "dry_run", "probe", "logger.", "checkpoint.", "eval.every", "sweep."),
    *("rollout.save", "benchmark.pass_at", "other_benchmarks", "name", "push_to_hub"),
)
BEST_OF = ("accuracy", "reward/mean")
BENCHMARK = "benchmark"  # the setting that tells the evaluations of one run on several apart
Key = tuple[int, str]  # index and id of a problem
Counts = dict[Key, tuple[int, int]]  # right samples, samples


@dataclass(frozen=True)
class Instrument:
    """A grader or a prompt template. Two of one text are the same, whatever their names; None where it is unknown."""

    name: str
    sha256: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """A benchmark's outcome. `problems` is empty where only the average is known."""

    benchmark: str
    k: int
    sampling: Json
    value: float
    ci95: tuple[float, float] | None
    problems: Counts
    data_sha256: str | None
    step: int | None = None  # of a training run
    grader: Instrument | None = None  # None where nothing says which
    template: Instrument | None = None
    unanswered: int = 0  # samples that a server gave no completion for, which count as wrong
    folder: Path | None = None  # that holds results.json, and samples.jsonl where the samples were kept

    def on(self, keys: Sequence[Key]) -> Evaluation:
        """The same on these of its problems alone."""
        problems = {key: self.problems[key] for key in keys}
        average = _average(problems)
        return replace(self, problems=problems, value=average.value, ci95=average.ci95)


@dataclass(frozen=True)
class Score:
    """A row of eval.jsonl: avg@k of a benchmark after a step."""

    step: int
    value: float
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Run:
    """A folder of a training run or of an evaluation."""

    name: str  # the folder, as the user can type it
    kind: str  # "training" | "evaluation"
    settings: Json  # dotted key -> value, without what is IGNORED
    seed: int | None
    status: str | None
    final: Json  # the last row of metrics.jsonl, or the scores of an evaluation
    best: dict[str, Json]  # name -> {value, step}
    evaluation: Evaluation | None  # the last one
    wall_seconds: float | None
    rows: list[Json]  # of metrics.jsonl; empty for an evaluation
    subject: str  # what was evaluated: the run, or the folder that holds its evaluations on several benchmarks
    held_out: dict[str, list[Score]] = field(default_factory=dict)  # by benchmark
    started: str | None = None  # 2026-11-23T09:10:00+0000
    commit: str | None = None  # of the checkout of dgpo that ran it

    @property
    def last_step(self) -> int | None:
        """Where its metrics end, or the checkpoint that was evaluated stood."""
        step = self.final.get("step")
        return step if step is not None or self.evaluation is None else self.evaluation.step


def evaluation_of(run: Run) -> Evaluation:
    """That of a run that is known to have one."""
    assert run.evaluation is not None
    return run.evaluation


def find_runs(paths: list[str]) -> tuple[list[Run], list[str]]:
    """The runs in the folders given, those of a sweep one by one; and notes on what was left out.

    Raises:
        DataError: a folder that does not exist or holds nothing to compare, or a file in it that cannot be read.
    """
    runs, notes = [], []
    for path in paths:
        folder = Path(path)
        if not folder.is_dir():
            raise DataError(f"runs: there is no folder {path}", "give folders of runs, sweeps or evaluations")
        if own := _runs_of(folder):
            runs += own
            continue
        jobs = sorted((job for job in folder.iterdir() if job.is_dir()), key=_job_order)
        found = [(job, _runs_of(job)) for job in jobs]
        if not any(inside for _, inside in found):
            raise DataError(
                f"runs: {path} holds no run: neither metrics.jsonl nor results.json, and no folder below it does",
                "dgpo train and dgpo eval print the folder that they wrote",
            )
        runs += [run for _, inside in found for run in inside]
        notes += [f"{job}: holds no run, left out" for job, inside in found if not inside and _is_job(job)]
        if _was_looked_at(folder):
            notes.append(
                f"{path}: seeds were added until its comparisons were decided (sweep.stop_when); the verdicts in its "
                "sweep.json know how often was looked, p-values here do not"
            )
    unique = {Path(run.name).resolve(): run for run in reversed(runs)}
    if len(unique) < len(runs):
        notes.append("a folder that was given twice counts once")
    return list(reversed(unique.values())), notes


def _was_looked_at(sweep: Path) -> bool:
    """Whether a sweep's length hung on what it found."""
    return bool((sweep / "sweep.json").is_file() and read_json(sweep / "sweep.json").get("looks"))


def _runs_of(folder: Path) -> list[Run]:
    """The run that a folder is, or the evaluations of one `dgpo eval benchmark=[A,B]`, each in a folder of its name."""
    if (own := read_run(folder)) is not None:
        return [own, *_other_evaluations(own, folder)]
    below = [run for path in sorted(folder.glob("*/results.json")) if (run := read_run(path.parent)) is not None]
    if not all(run.evaluation and Path(run.name).name == run.evaluation.benchmark for run in below):
        return []
    return [replace(run, subject=str(folder)) for run in below]


def _is_job(folder: Path) -> bool:
    return (folder / "job.yaml").exists()


def read_run(folder: Path) -> Run | None:
    """The run in a folder, or None where it is no run's folder."""
    if (folder / "metrics.jsonl").is_file() or (folder / "eval.jsonl").is_file():
        return _training_run(folder)
    if (folder / "results.json").is_file():
        return _evaluation_run(folder)
    return None


def _training_run(folder: Path) -> Run:
    settings = flat(read_yaml(folder / "config.yaml"))
    facts = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    rows, evaluations = read_rows(folder / "metrics.jsonl"), read_rows(folder / "eval.jsonl")
    first, *others = _benchmarks(settings)
    held_out = _held_out(evaluations)
    if others:
        evaluations = [row for row in evaluations if row["benchmark"] == first]
    best = {name: found for name in BEST_OF if (found := _best(rows, name)) is not None}
    best |= _best_score(evaluations)
    if not rows and not evaluations:
        raise DataError(f"runs: {folder} holds a run without a finished step", "leave it out, or let it train")
    return Run(
        name=str(folder),
        kind="training",
        settings=_deciding(settings) | ({BENCHMARK: first} if others else {}),
        seed=settings.get("seed"),
        status=facts.get("status"),
        final=rows[-1] if rows else {},
        best=best,
        evaluation=_last_evaluation(folder, evaluations, settings, below=first if others else None),
        wall_seconds=facts.get("wall_seconds"),
        rows=rows,
        subject=str(folder),
        held_out=held_out,
        started=facts.get("first_started") or facts.get("started"),
        commit=facts.get("git_commit"),
    )


def _held_out(evaluations: list[Json]) -> dict[str, list[Score]]:
    """What eval.jsonl says of each benchmark; nothing of rewards that know no right and wrong."""
    found: dict[str, list[Score]] = {}
    for row in evaluations:
        if average := row["avg_at_k"]:
            score = Score(row.get("step", 0), average["value"], _pair(average.get("ci95")))
            found.setdefault(str(row["benchmark"]), []).append(score)
    return found


def _other_evaluations(run: Run, folder: Path) -> list[Run]:
    """The last evaluations of a training run on its further benchmarks, each to be compared by itself."""
    if run.kind != "training":
        return []
    settings = flat(read_yaml(folder / "config.yaml"))
    found = []
    for place, name in enumerate(_benchmarks(settings)[1:]):
        rows = [row for row in read_rows(folder / "eval.jsonl") if row["benchmark"] == name]
        own = settings["other_benchmarks"][place]
        of_it = settings | {f"benchmark.{key}": value for key, value in own.items()}
        evaluation = _last_evaluation(folder, rows, of_it, below=name)
        if evaluation is not None:
            place_of_it = folder / "evals" / f"step_{evaluation.step or 0:06d}" / name
            of_name = run.settings | {BENCHMARK: name}
            other = replace(run, name=str(place_of_it), settings=of_name, best=_best_score(rows), evaluation=evaluation)
            found.append(replace(other, rows=[], held_out={}, final={}, wall_seconds=None))
    return found


def _benchmarks(settings: Json) -> list[Any]:
    """The names of a run's benchmarks; [None] of a run without one."""
    return [settings.get("benchmark.name"), *(one["name"] for one in settings.get("other_benchmarks") or [])]


def _best_score(evaluations: list[Json]) -> dict[str, Json]:
    scores = [{"step": row.get("step"), "avg_at_k": row["avg_at_k"]["value"]} for row in evaluations if row["avg_at_k"]]
    found = _best(scores, "avg_at_k")
    return {} if found is None else {"avg_at_k": found}


def _deciding(settings: Json) -> Json:
    return {key: value for key, value in settings.items() if key != "seed" and not key.startswith(IGNORED)}


def _last_evaluation(folder: Path, rows: list[Json], settings: Json, below: str | None) -> Evaluation | None:
    """below: the folder below that of the step, in a run with several benchmarks."""
    files = sorted(folder.glob(f"evals/step_*/{below}/results.json" if below else "evals/step_*/results.json"))
    steps = [file.relative_to(folder / "evals").parts[0] for file in files]
    step = int(steps[-1].removeprefix("step_")) if files else -1
    if rows and rows[-1]["avg_at_k"] is None:
        return None  # a reward that says nothing of right and wrong: problems are not won or lost
    if rows and rows[-1].get("step", 0) > step:  # an evaluation whose folder is gone
        average = rows[-1]["avg_at_k"]
        return Evaluation(
            rows[-1]["benchmark"],
            average["k"],
            {},
            average["value"],
            _pair(average.get("ci95")),
            {},
            None,
            rows[-1]["step"],
        )
    return _evaluation(files[-1], read_json(files[-1]), step, settings) if files else None


def _evaluation_run(folder: Path) -> Run:
    path = folder / "results.json"
    record = read_json(path)
    if "avg_at_k" in record and record["avg_at_k"] is None:
        raise DataError(
            f"runs: {folder} holds an evaluation by a reward that says nothing of right and wrong",
            "return (score, correct) from the function: problems are won and lost by what is right",
        )
    origin = _origin(record.get("model"))
    evaluation = _evaluation(path, record, None if origin is None else origin.step)
    manifest = _manifest(record)
    settings = {
        **({} if origin is None else {**origin.settings, "step": origin.step}),
        "model": record.get("model"),
        "benchmark": evaluation.benchmark,
        "k": evaluation.k,
        "grader": manifest.get("grader"),
        "template": manifest.get("template"),
        **{f"sampling.{key}": value for key, value in evaluation.sampling.items()},
    }
    return Run(
        name=str(folder),
        kind="evaluation",
        settings=settings,
        seed=None if origin is None else origin.seed,
        status=None,
        final={key: record[key] for key in ("avg_at_k", "pass_at_k", "maj_at_k") if key in record},
        best={},
        evaluation=evaluation,
        wall_seconds=record.get("seconds"),
        rows=[],
        subject=str(folder),
    )


@dataclass(frozen=True)
class _Origin:
    """The training run that an evaluated model came from."""

    settings: Json
    seed: int | None
    step: int


def _origin(model: Any) -> _Origin | None:
    """Where `model` is a checkpoint of a run whose folder is still there; its seeds then stand for the method."""
    path = Path(str(model))
    if path.name != "model" or path.parent.parent.name != "checkpoints":
        return None
    config, step = path.parents[2] / "config.yaml", path.parent.name.removeprefix("step_")
    if not config.is_file() or not step.isdecimal():
        return None
    settings = flat(read_yaml(config))
    return _Origin(_deciding(settings), settings.get("seed"), int(step))


def _evaluation(path: Path, record: Json, step: int | None, settings: Json | None = None) -> Evaluation:
    """Needs only benchmark, sampling, avg_at_k.k and problems; the rest is worked out where it is missing.

    `settings` are those of the training run that it was a part of, whose manifest leaves them out.
    """
    manifest = _manifest(record)
    try:
        problems = _counts(path, record["problems"])
        average = _average(problems)
        return Evaluation(
            benchmark=str(record["benchmark"]),
            k=int(record["avg_at_k"]["k"]),
            sampling=dict(record["sampling"]),
            value=average.value,
            ci95=average.ci95,
            problems=problems,
            data_sha256=manifest.get("data_sha256"),
            step=step,
            grader=_grader(manifest, settings or {}),
            template=_template(manifest, settings or {}),
            unanswered=_unanswered(record.get("errors")),
            folder=path.parent,
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"no key {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: expected the results of an evaluation: {reason}", "dgpo eval writes them") from error


def _average(problems: Counts) -> AvgAtK:
    return avg_interval([right for right, _ in problems.values()], [drawn for _, drawn in problems.values()])


def _unanswered(errors: Any) -> int:
    """0 where another program wrote something else, or nothing, in their place."""
    counts = errors if isinstance(errors, dict) else {}
    return sum(count for cause, count in counts.items() if cause.startswith(FROM_SERVER) and isinstance(count, int))


def _manifest(record: Json) -> Json:
    """Empty where another program wrote something else, or nothing, in its place."""
    manifest = record.get("manifest")
    return manifest if isinstance(manifest, dict) else {}


def _grader(manifest: Json, settings: Json) -> Instrument | None:
    name = manifest.get("grader")
    if name != "function":
        rules = manifest.get("grader_rules")
        return None if name is None else Instrument(str(name) if rules is None else f"{name}, rules {rules}")
    file = manifest.get("reward")
    facts = file if isinstance(file, dict) else {}
    paths = paths_of(facts.get("path") or str(settings.get("reward.path")))
    functions = "+".join(path.rpartition(":")[2] for path in paths)  # a file may hold several
    weights = facts.get("weights")
    content = f"{facts['sha256']}:{functions}{weights or ''}" if facts.get("sha256") else None
    return Instrument(f"function {' + '.join(paths)}", content)


def _template(manifest: Json, settings: Json) -> Instrument | None:
    if manifest.get("template") is not None:
        sha256 = manifest.get("template_sha256")
        return Instrument(str(manifest["template"]), str(sha256) if sha256 else None)
    name = settings.get("benchmark.template") or settings.get("model.template")
    return None if name is None else Instrument(str(name))


def _counts(path: Path, rows: Any) -> Counts:
    """Raises DataError for a problem that comes twice: either row would hide the other."""
    counts: Counts = {}
    for row in rows:
        index, name = int(row["index"]), str(row.get("id", row["index"]))
        if (index, name) in counts:
            raise DataError(
                f"{path}: the problem with index {index} and id {name} comes twice",
                "give each problem one row, with `correct` and `n` over all of its samples",
            )
        counts[index, name] = (int(row["correct"]), int(row["n"]))
    return counts


def _best(rows: list[Json], name: str) -> Json | None:
    """The row where `name` is highest, the first of several."""
    known = [row for row in rows if isinstance(row.get(name), int | float) and math.isfinite(row[name])]
    if not known:
        return None
    row = max(known, key=lambda row: float(row[name]))
    return {"value": row[name], "step": row.get("step")}


def _job_order(folder: Path) -> tuple[int, str]:
    """Jobs of a sweep by their number, which their folder's name begins with."""
    number = folder.name.partition("_")[0]
    return (int(number) if number.isdecimal() else -1, folder.name)


def _pair(values: Any) -> tuple[float, float] | None:
    return None if values is None else (float(values[0]), float(values[1]))
