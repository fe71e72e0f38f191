"""`hydra/sweeper=optuna`: Optuna chooses the values, the sweep runs them. The only file that imports optuna.

Hydra's own plug-in for it wants an Optuna below 3 and cannot prune, so this is no plug-in: dgpo asks the library for a
job's values whenever a place is free, tells it each evaluation while the job runs (one that is hopeless is ended and
saved), and what the job reached. What has been tried stands in sweep.json, so a search goes on after a kill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import IntervalSweep

from dgpo_cli.config.compose import job_folder
from dgpo_cli.config.overrides import parse
from dgpo_cli.errors import ConfigError, UsageError
from dgpo_cli.files import read_lines
from dgpo_cli.sweeps.sweep_record import DONE, FAILED, PRUNED, Job, SweepRecord

TARGET = "dgpo_cli.sweeps.search.Search"  # in conf/hydra/sweeper/optuna.yaml


@dataclass
class Settings:
    """`hydra.sweeper.*` of this sweeper, as conf/hydra/sweeper/optuna.yaml explains them."""

    n_trials: int
    sampler: str
    seed: int
    prune: bool
    startup_trials: int


@dataclass
class Search:
    """A study. `compose` gives the configurations of a job's overrides, and raises ConfigError if they are wrong."""

    record: SweepRecord
    folder: Path
    configs: dict[int, list[Any]]
    settings: Settings
    fixed: list[str]  # the overrides that all jobs have
    space: dict[str, Any]  # key -> distribution
    compose: Callable[[list[str]], list[Any]]
    say: Callable[[str], None] = print
    _study: Any = None
    _trials: dict[int, Any] = field(default_factory=dict)  # of the jobs that are waiting or running
    _told: dict[int, int] = field(default_factory=dict)  # evaluations that the study knows of each

    def __post_init__(self) -> None:
        optuna = _optuna()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._study = optuna.create_study(
            direction="maximize", sampler=_sampler(self.settings), pruner=_pruner(self.settings)
        )
        for job in self.record.jobs:
            self._remember(job)

    def _remember(self, job: Job) -> None:
        """A job of the search before it was cut off: one that has ended is told as it is, another is asked again."""
        import optuna

        params = self._values(job.overrides)
        states = {DONE: optuna.trial.TrialState.COMPLETE, PRUNED: optuna.trial.TrialState.PRUNED}
        if job.status in states and job.accuracy is not None:
            made = optuna.trial.create_trial(
                params=params, distributions=self.space, value=job.accuracy, state=states[job.status]
            )
            self._study.add_trial(made)
        else:
            self._study.enqueue_trial(params)
            self._trials[job.number] = self._study.ask(self.space)

    def _values(self, overrides: list[str]) -> dict[str, Any]:
        texts = {text.partition("=")[0]: text.partition("=")[2] for text in overrides}
        return {
            name: texts[name] if hasattr(one, "choices") else parse(f"{name}={texts[name]}").value()
            for name, one in self.space.items()
        }

    def propose(self, places: int, running: int) -> bool:
        """Add as many jobs as there are places, up to the number of trials; whether there are new ones."""
        number = max((job.number for job in self.record.jobs), default=-1) + 1
        wanted = min(places, self.settings.n_trials - len(self.record.jobs))
        for one in range(number, number + wanted):
            trial = self._study.ask(self.space)
            chosen = [f"{name}={_text(value)}" for name, value in trial.params.items()]
            job = Job(one, job_folder(one, ",".join(chosen)), [*self.fixed, *chosen])
            self.record.jobs.append(job)
            self._trials[one] = trial
            try:
                self.configs[one] = self.compose(job.overrides)
            except ConfigError as error:
                job.status, job.exit_code = FAILED, error.exit_code
                for problem in error.problems:
                    self.say(f"job {one + 1}: {problem.message}")
                self.ended(job)
        return wanted > 0

    def is_hopeless(self, job: Job) -> bool:
        """Whether a running job should be ended: its last evaluation is below the median of those before."""
        if not self._report(job) or not self.settings.prune:
            return False
        config = next(iter(self.configs.get(job.number, [])), None)  # none of a job of before a kill
        last = self._evaluations(job)[-1][0] == getattr(config, "steps", None)
        return not last and bool(self._trials[job.number].should_prune())

    def _report(self, job: Job) -> bool:
        """Tell the study the evaluations that it does not know; whether there are any."""
        rows = self._evaluations(job)
        fresh = rows[self._told.get(job.number, 0) :]
        self._told[job.number] = len(rows)
        for step, accuracy in fresh:
            self._trials[job.number].report(accuracy, step)
        return bool(fresh)

    def _evaluations(self, job: Job) -> list[tuple[int, float]]:
        """Steps and accuracies on the first benchmark so far, without that before training."""
        file = self.folder / job.folder / "eval.jsonl"
        rows = read_lines(file) if file.is_file() else []
        first = [row for row in rows if row.get("benchmark") == rows[0].get("benchmark")]
        known = [(int(row["step"]), row["avg_at_k"]) for row in first if row.get("step")]
        return [(step, float(average["value"])) for step, average in known if average is not None]

    def ended(self, job: Job) -> None:
        """Tell the study what a job reached."""
        import optuna

        trial = self._trials.get(job.number)
        if trial is None or job.status not in (DONE, FAILED, PRUNED):
            return
        self._report(job)
        if job.status == PRUNED:
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif job.status == DONE and job.accuracy is not None:
            self._study.tell(trial, job.accuracy)
        else:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        del self._trials[job.number]


def best_text(jobs: Sequence[Job]) -> str | None:
    """The best job of a search, for its end."""
    done = [job for job in jobs if job.status == DONE and job.accuracy is not None]
    if not done:
        return None
    best = max(done, key=lambda job: job.accuracy or 0.0)
    return f"best: job {best.number}, {100 * (best.accuracy or 0.0):.1f}%: {best.folder}"


def space_of(overrides: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The overrides that all jobs have, and the distribution of each key that is searched over.

    Raises:
        UsageError: nothing is.
    """
    distributions = _optuna().distributions
    fixed, space = [], {}
    for text in overrides:
        override = parse(text)
        if not override.is_sweep_override():
            fixed.append(text)
            continue
        value: Any = override.value()
        every: list[Any] = list(override.sweep_iterator()) if override.is_range_sweep() else []
        if isinstance(value, IntervalSweep):
            ends: list[Any] = [value.start, value.end]
            whole = all(isinstance(end, int) for end in ends)
            kind = distributions.IntDistribution if whole else distributions.FloatDistribution
            space[override.key_or_group] = kind(*ends, log="log" in value.tags)
        elif every and all(isinstance(one, int) for one in every):
            step = every[1] - every[0] if len(every) > 1 else 1
            space[override.key_or_group] = distributions.IntDistribution(min(every), max(every), step=abs(step))
        else:
            space[override.key_or_group] = distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    if not space:
        hint = "optim.lr=tag(log,interval(1e-5,1e-3)), algo=grpo,dgpo or optim.epochs=range(1,4)"
        raise UsageError("hydra/sweeper=optuna: there is nothing to search over", hint)
    return fixed, space


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UsageError("hydra/sweeper=optuna needs optuna", "pip install 'dgpo[optuna]'") from None
    return optuna


def _sampler(settings: Settings) -> Any:
    samplers = _optuna().samplers
    if settings.sampler == "tpe":
        return samplers.TPESampler(seed=settings.seed, n_startup_trials=settings.startup_trials)
    if settings.sampler == "random":
        return samplers.RandomSampler(seed=settings.seed)
    raise UsageError(
        f"hydra.sweeper.sampler: expected tpe or random, got {settings.sampler}", "hydra.sweeper.sampler=tpe"
    )


def _pruner(settings: Settings) -> Any:
    pruners = _optuna().pruners
    if not settings.prune:
        return pruners.NopPruner()
    return pruners.MedianPruner(n_startup_trials=settings.startup_trials)
