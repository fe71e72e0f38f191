"""A run's evaluations on the policy as it is after a step: now, or beside the updates of the next one (eval.overlap).

It owns what is due, which of them is the best, and when each is written down. How one is done is
commands/training_evaluation.py's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.crew import Crew
from dgpo_cli.reporting.tables import score_of
from dgpo_cli.terminal import phase
from dgpo_cli.training.checkpoint import Checkpoints
from dgpo_cli.training.journal import Journal
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.types import Engine


@dataclass(frozen=True)
class Evaluated:
    """The row of an evaluation, and whether it is the best that there was."""

    row: dict[str, Any]
    is_best: bool


@dataclass
class Evaluations:
    """All processes call `after` and `keep` together. of: by benchmark, the row of eval.jsonl after that step."""

    config: TrainConfig
    of: Mapping[str, Callable[[int], dict[str, Any]]]
    engine: Engine
    crew: Crew
    guard: StopGuard
    folder: RunFolder
    checkpoints: Checkpoints
    journal: Journal
    save: Callable[[], None]  # a checkpoint of the state as it stands, unless there is one
    _owed: int | None = None  # the step that is evaluated beside the next one
    _found: list[Evaluated] = field(default_factory=list)  # of it, in the main process

    def after(self, step: int) -> None:
        """Evaluate what `step` has not been evaluated on, or leave it to be done beside the next step.

        The weights are saved before that: a signal may end the next step unfinished.
        """
        apart = self.config.eval.overlap and not self.engine.facts.shares_devices
        if apart and self.config.benchmark_names and step < self.config.steps:
            if step:
                self.save()
            self._owed = step
            return
        self.engine.load(step)
        for benchmark in self.config.benchmark_names:
            # Its row is written before the next benchmark is begun: a run that is killed between two goes on there.
            found = self.crew.on_main(lambda name=benchmark: self._evaluated(step, name))  # type: ignore[misc]
            if found is not None:
                self._keep(found)

    @property
    def beside(self) -> Callable[[], None] | None:
        """What is owed, for a thread of the main process, while the engine holds that step's weights. None: nothing."""
        return None if self._owed is None else self._evaluate_beside

    def keep(self) -> None:
        """Write down what was done beside a step, before that step's own row."""
        if self._owed is not None:
            for found in self.crew.processes.from_main(self._found):
                self._keep(found)
            self._owed, self._found = None, []

    def _evaluate_beside(self) -> None:
        assert self._owed is not None
        for benchmark in self.config.benchmark_names:
            found = self._evaluated(self._owed, benchmark)
            if found is not None:
                self._found.append(found)

    def _keep(self, found: Evaluated) -> None:
        with self.guard.protected():
            kept = found.is_best and self.config.checkpoint.keep_best
            if kept:
                self.save()  # beside a step that was done before it began
                self.checkpoints.settle()  # no name before there is a checkpoint
            if self.crew.processes.main:
                if kept:
                    self.checkpoints.name_best(int(found.row["step"]))
                self.journal.evaluation(found.row)

    def _evaluated(self, step: int, benchmark: str) -> Evaluated | None:
        """An evaluation after `step`; None if it was done before. In the main process.

        Of several benchmarks the first one alone says which is best.
        """
        done = self.folder.evaluated_steps(benchmark)
        if step in done:
            return None
        first, *others = self.config.benchmark_names
        with phase(f"evaluating {benchmark} after step {step}" if others else f"evaluating after step {step}"):
            row = self.of[benchmark](step)
        worst = float("-inf")
        best = max((_reached(earlier, worst) for at, earlier in done.items() if at), default=worst)
        return Evaluated(row, benchmark == first and bool(step) and _reached(row, worst) > best)


def _reached(evaluation: dict[str, Any], worst: float) -> float:
    found = score_of(evaluation)
    return worst if found is None else found
