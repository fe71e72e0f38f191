"""The updates of a step, one after another: which minibatches have one, what each did, and what ends them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.training.correction import correction_metrics
from dgpo_cli.training.current_credit import UsedCredit
from dgpo_cli.training.engine_gap import logprob_gap
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.step import Objective, Scored, StepResult, Tally
from dgpo_cli.training.stopping import StepUnderway, StopGuard


class UpdateSeries:
    """Iterate over the rows of the minibatches to come; `step` after the gradient of each."""

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        settings: OptimConfig,
        guard: StopGuard,
        *,
        lr: float,
        with_terms: bool,
        with_cosines: bool,
        nonfinite_streak: int,
    ) -> None:
        self.minibatches = objective.batch.minibatches(settings.minibatches)
        self.updates = len(self.minibatches) * settings.epochs
        self.underway = StepUnderway(guard, self.updates)
        self._objective, self._optimizer, self._settings = objective, optimizer, settings
        self._lr, self._with_terms, self._with_cosines = lr, with_terms, with_cosines
        self._tallies: list[Tally] = []
        self._outcomes: list[UpdateOutcome] = []
        self._without_signal = self._nonfinite = 0
        self._streak = nonfinite_streak
        self._term_norms: dict[str, float] = {}
        self._cosines: dict[str, float | None] = {}
        self._started = self._begun = time.perf_counter()

    def __iter__(self) -> Iterator[list[int]]:
        """Minibatches in which a row can move a weight. No more after optim.max_nonfinite that failed in a row.

        Raises:
            StopRequested, UnfinishedStep: a signal ends the step here (`StepUnderway.ask`).
        """
        self._begun = time.perf_counter()
        self.underway.begin()
        for rows in self.minibatches * self._settings.epochs:
            self.underway.ask()
            if not self._objective.trained(rows):
                self._without_signal += 1
                self.underway.passed(taken=False)
                continue
            yield rows
            if self._streak >= self._settings.max_nonfinite:
                return

    def measure(self, gradient: Callable[[Objective], object]) -> None:
        """On the first minibatch, if asked for: gradients that are told apart and then dropped. No weight moves.

        The norms of the loss's terms, each alone; and how near gradient and update are to those of uniform credit.
        """
        if self._tallies:
            return
        if self._with_terms:
            for name, term in self._objective.terms().items():
                gradient(term)
                self._term_norms[f"grad_norm/{name}"] = self._optimizer.spent_norm()
        if self._with_cosines and self._objective.algorithm.gates:
            gradient(self._objective)
            weighted = self._optimizer.spent_gradient()
            gradient(self._objective.ungated())
            cosines = self._optimizer.cosines(weighted, self._optimizer.spent_gradient())
            self._cosines = dict(zip(("credit/grad_cos", "credit/update_cos"), cosines, strict=True))

    def step(self, tally: Tally) -> bool:
        """Move the weights by the gradient that stands in them; whether it was finite, and so applied."""
        outcome = self._optimizer.update(self._lr, tally.loss)
        self._tallies.append(tally)
        self._outcomes.append(outcome)
        self.underway.passed(taken=True)
        if outcome.applied:
            self._streak = 0
        else:
            self._nonfinite += 1
            self._streak += 1
        return outcome.applied

    def result(self, scored: Scored | None, used: UsedCredit | None = None) -> StepResult:
        """What the series did. `scored`: by the policy before it; `used`: if each update had credit of its own."""
        gap = {}
        if scored is not None and self._tallies:
            batch = self._objective.batch
            gap = logprob_gap(batch.rollouts, scored.signals)
            gap |= correction_metrics(
                self._objective.off_policy,
                batch.rollouts,
                scored.signals,
                drawn_by_another=batch.drawn_by_another,
            )
        return StepResult(
            tallies=self._tallies,
            outcomes=self._outcomes,
            skipped=self._without_signal + self._nonfinite,
            nonfinite=self._nonfinite,
            nonfinite_streak=self._streak,
            signals=None if scored is None else self._objective.informed(scored.signals, self._objective.batch.rows),
            credit=None if scored is None else scored.credit,
            score_seconds=self._begun - self._started,
            train_seconds=time.perf_counter() - self._begun,
            term_norms=self._term_norms,
            cosines=self._cosines,
            engine_gap=gap,
            used=used,
        )
