"""`dgpo eval`: a model, or a file of stored completions, on one or several benchmarks.

Grading stored completions needs no model and imports no torch, so whatever needs torch is imported where it is used.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from dgpo_cli.command_lines import override, shell_word
from dgpo_cli.commands.evaluated_model import EvaluatedModel, evaluated_model, sampling_of
from dgpo_cli.config.commands import EvalConfig
from dgpo_cli.data.problems import ProblemSet
from dgpo_cli.data.prompts import read_template
from dgpo_cli.errors import ConfigError, Interrupted, RunError
from dgpo_cli.errors import Problem as Wrong
from dgpo_cli.evaluation.benchmark import benchmark_notes, load_benchmark
from dgpo_cli.evaluation.completions import (
    Completion,
    CompletionFile,
    grade_completions,
    of_benchmark,
    read_completions,
    with_own_golds,
)
from dgpo_cli.evaluation.evaluate import evaluate
from dgpo_cli.evaluation.manifest import reward_facts, text_sha256
from dgpo_cli.evaluation.results import EvaluationResult
from dgpo_cli.evaluation.sample_file import clear
from dgpo_cli.reporting.evaluation_view import EvaluationView, result_line, results_table, unanswered_line
from dgpo_cli.reporting.tables import show
from dgpo_cli.rewards import READS_MATHEMATICS, load_grader
from dgpo_cli.rewards.trial import columns_asked, try_grader
from dgpo_cli.terminal import phase, say
from dgpo_cli.types import Grader, Problem, Prompt, Unanswered

MOSTLY = 0.9  # of the completions without an answer, from which on that is said


@dataclass(frozen=True)
class Task:
    """One benchmark: everything that can be refused is looked at before anything is drawn or graded."""

    config: EvalConfig
    folder: Path
    grader: Grader
    problems: ProblemSet | None  # None if stored completions bring their golds
    completions: list[Completion] | None  # None if a model draws them


def run(configs: list[EvalConfig], folder: Path) -> None:
    """Evaluate each configuration (they differ in their benchmark alone); a table or JSON on stdout.

    One configuration writes into `folder`, several into a folder each below it.

    Raises:
        DgpoError: nothing was started (exit 2), the evaluation failed or a server left samples unanswered (1), or a
            signal ended it (130, 143); the samples drawn so far are kept.
    """
    for config in configs:
        _check(config, folder)
    results = []
    try:
        with _terminable(), EvaluationView() as view, ExitStack() as stack:
            tasks = [
                _prepare(config, folder / str(config.benchmark.name) if len(configs) > 1 else folder, view, stack)
                for config in configs
            ]
            for evaluate_it in _ready(tasks, view, stack):
                results.append(evaluate_it())
                view.note(result_line(results[-1]))
    except RunError:
        if any(file.stat().st_size for file in folder.rglob("samples.jsonl")):
            say(f"the samples drawn so far are in {folder}; {_continues(folder)}")
        raise
    except (KeyboardInterrupt, _Terminated) as stop:
        raise Interrupted(
            f"interrupted: the samples drawn so far are in {folder}",
            _continues(folder),
            exit_code=143 if isinstance(stop, _Terminated) else 130,
        ) from None
    say(f"files: {folder}")
    _show(results)
    _refuse_gaps(results, folder)


def _show(results: list[EvaluationResult]) -> None:
    records = [result.as_record() for result in results]
    for record in records:
        share, grader = record["no_answer_fraction"], record["manifest"]["grader"]
        if share > MOSTLY:
            say(
                f"note: {record['benchmark']}: {share:.0%} of the completions hold no answer that reward={grader} finds"
            )
    show([results_table(results)], records if len(records) > 1 else records[0])


def _refuse_gaps(results: list[EvaluationResult], folder: Path) -> None:
    """Raises RunError if a server left samples unanswered: a script must not take the numbers for whole."""
    gaps = [Wrong(unanswered_line(result)) for result in results if result.unanswered]
    if gaps:
        hint = f"{_continues(folder)}: it asks for those alone"
        raise RunError("", problems=(*gaps[:-1], Wrong(gaps[-1].message, hint)))


def _continues(folder: Path) -> str:
    """The command that was typed, in the evaluation's own folder; without the keys that would delete its samples."""
    place = override("hydra.run.dir", folder)
    if sys.argv[:2] != ["dgpo", "eval"]:
        return f"the same command with {place} continues it"
    kept = [text for text in sys.argv[2:] if text.lstrip("+").partition("=")[0] not in ("hydra.run.dir", "overwrite")]
    return f"{' '.join(['dgpo eval', *map(shell_word, kept), place])} continues it"


def _check(config: EvalConfig, folder: Path) -> None:
    if config.benchmark.name is None:
        from dgpo_cli.config.checks import benchmark_hint

        raise ConfigError("benchmark: none is chosen", benchmark_hint())
    if (folder / "run.json").exists() or (folder / "metrics.jsonl").exists():
        raise ConfigError(f"{folder} holds a training run", "hydra.run.dir=FOLDER takes another folder")


def _prepare(config: EvalConfig, folder: Path, view: EvaluationView, stack: ExitStack) -> Task:
    """Problems, golds and stored completions, before a model is loaded."""
    benchmark = config.benchmark
    grader = stack.enter_context(closing(load_grader(config.reward)))
    file = read_completions(Path(benchmark.completions).expanduser()) if benchmark.completions else None
    if file is not None and file.key == "gold":
        completions = with_own_golds(file, reduce_golds=grader.name in READS_MATHEMATICS, columns=columns_asked(grader))
        return Task(config, folder, grader, None, _limited(completions, benchmark.limit, view))
    with phase(f"reading {benchmark.path or benchmark.hub or benchmark.name}"):
        loaded = load_benchmark(benchmark, grader=grader, limit=benchmark.limit if file is None else None)
    for note in benchmark_notes(benchmark, loaded, grader):
        view.note(note)
    stored = None if file is None else _of_problems(file, loaded.problems, benchmark.limit, view)
    return Task(config, folder, grader, loaded, stored)


def _of_problems(
    file: CompletionFile, problems: list[Problem], limit: int | None, view: EvaluationView
) -> list[Completion]:
    """The stored completions of the benchmark's first `limit` problems."""
    answered = of_benchmark(file, problems)
    limit = min(limit or len(problems), len(problems))
    kept = [one for one in answered if one.prompt.problem.index < limit]
    found = len({one.prompt.problem.index for one in kept})
    if found < limit:
        view.note(f"warning: {file.path} answers {found} problems; {limit - found} others are left out")
    return kept


def _limited(completions: list[Completion], limit: int | None, view: EvaluationView) -> list[Completion]:
    if limit is not None and limit < len(completions):
        view.note(f"the first {limit} of {len(completions)} rows (benchmark.limit)")
    return completions[:limit]


def _ready(tasks: list[Task], view: EvaluationView, stack: ExitStack) -> list[Callable[[], EvaluationResult]]:
    """The rest of each task, ready to be run; the model is loaded, or the server reached, once for all of them."""
    model, longest = None, 0
    ready: list[Callable[[], EvaluationResult]] = []
    for task in tasks:
        if task.completions is not None:
            if task.completions:
                try_grader(task.grader, task.completions[0].prompt)
            ready.append(partial(_grade_stored, task, view))
        else:
            assert task.problems is not None
            if model is None:
                with phase(_model_phase(task.config)):
                    model = evaluated_model(task.config, task.problems, view.note)
                stack.enter_context(closing(model.engine))
            prompts = model.prompts(task.problems, task.config.benchmark)
            try_grader(task.grader, prompts[0])
            longest = max(longest, *(len(one.token_ids) + task.config.benchmark.max_tokens for one in prompts))
            ready.append(partial(_evaluate, task, view, model, prompts))
    if model is not None:
        model.engine.prepare(longest)
    return ready


def _model_phase(config: EvalConfig) -> str:
    names = {"openai": f"trying {config.engine.url}", "vllm": "waiting for vLLM's servers"}
    return names.get(config.engine.name, f"loading the weights of {config.model.path}")


def _evaluate(task: Task, view: EvaluationView, model: EvaluatedModel, prompts: list[Prompt]) -> EvaluationResult:
    config, benchmark = task.config, task.config.benchmark
    if config.overwrite:
        clear(task.folder)
    with phase(f"{benchmark.name}: drawing and grading {len(prompts) * benchmark.k} completions"):
        return evaluate(
            model.engine,
            task.grader,
            prompts,
            benchmark=str(benchmark.name),
            k=benchmark.k,
            sampling=sampling_of(benchmark),
            seed=config.seed,
            batch_size=config.engine.batch_size,
            pass_at=benchmark.pass_at,
            folder=task.folder,
            progress=view.progress,
            model=model.name,
            manifest=_manifest(task, model),
            failed=_first_of_each_cause(view),
        )


def _first_of_each_cause(view: EvaluationView) -> Callable[[Unanswered], None]:
    """Says it in the server's words; how many there are of it is said at the end."""
    seen: set[str] = set()

    def failed(one: Unanswered) -> None:
        if one.cause not in seen:
            seen.add(one.cause)
            place = f"problem {one.request.prompt.problem.problem_id}, sample {one.request.sample}"
            view.note(f"warning: {place} has no answer and is asked again on the next start: {one.message}")

    return failed


def _grade_stored(task: Task, view: EvaluationView) -> EvaluationResult:
    benchmark = task.config.benchmark
    path = Path(str(benchmark.completions)).expanduser()
    if task.config.overwrite:
        clear(task.folder)
    result = grade_completions(
        task.completions or [],
        task.grader,
        source=path,
        benchmark=str(benchmark.name),
        pass_at=benchmark.pass_at,
        folder=task.folder,
        progress=view.progress,
        manifest=reward_facts(task.config.reward),
    )
    _note_samples(result, benchmark.pass_at, path, view)
    return result


def _manifest(task: Task, model: EvaluatedModel) -> dict[str, Any]:
    """Everything that the samples depend on and `evaluate` does not know."""
    config = task.config
    template = config.benchmark.template or config.model.template
    return {
        **model.manifest,
        **model.engine.facts.manifest,
        "data_revision": task.problems.revision if task.problems else None,
        "template": template,
        "template_sha256": text_sha256(read_template(template)),
        "chat_template": config.model.chat_template,
        **reward_facts(config.reward),
    }


def _note_samples(result: EvaluationResult, pass_at: list[int] | None, path: Path, view: EvaluationView) -> None:
    counts = {problem.n for problem in result.problems}
    if len(counts) > 1:
        view.note(f"warning: {path} holds {min(counts)} to {max(counts)} completions a problem; k is {min(counts)}")
    left_out = [k for k in pass_at or [] if k not in result.pass_at_k]
    if left_out:
        view.note(f"pass@k and maj@k for k = {', '.join(map(str, left_out))} need more completions than {path} holds")


class _Terminated(BaseException):
    """SIGTERM: the samples drawn so far are on disk already."""


@contextmanager
def _terminable() -> Iterator[None]:
    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
