"""From advantages to new weights: credit -> loss -> step, in minibatches, epochs and micro-batches.

There are two ways, each a sentence of its own. train_inline (inline.py) takes one pass for all three, if a step has one
update. train_prescored and train_with_current_credit (prescored.py) score the batch before they train on it. Both get
to the loss through gradient.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.gating_needs import scores_each_update
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.noise_floor import measure_noise_floor, noise_sizes, within
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.training.correction import UNCORRECTED, Correction
from dgpo_cli.training.inline import can_train_inline, train_inline
from dgpo_cli.training.optimizer import Optimizer
from dgpo_cli.training.out_of_memory import MicrobatchBudget
from dgpo_cli.training.passes import Passes
from dgpo_cli.training.prescored import train_prescored, train_with_current_credit
from dgpo_cli.training.step import Objective, StepBatch, StepResult
from dgpo_cli.training.stopping import StopGuard, StopRequested, UnfinishedStep
from dgpo_cli.training.update_series import UpdateSeries


class Updater:
    """Turns a step's batch into optimizer updates."""

    def __init__(
        self,
        model: LanguageModel,
        reference: LanguageModel | None,
        algorithm: Algorithm,
        optimizer: Optimizer,
        settings: OptimConfig,
        *,
        temperature: float,
        say: Callable[[str], None] = print,
        processes: Processes = SOLO,
        off_policy: Correction = UNCORRECTED,
    ) -> None:
        self.processes = processes
        self.model = model
        self.algorithm = algorithm
        self.optimizer = optimizer
        self.settings = settings
        self.off_policy = off_policy
        self.budget = MicrobatchBudget(settings.tokens_per_microbatch, say)
        self._passes = Passes(
            model,
            reference if algorithm.needs_reference else None,
            temperature,
            self.budget,
            processes,
            drop_gradients=optimizer.zero_grad,
        )

    def run(
        self,
        batch: StepBatch,
        *,
        lr: float,
        noise_floor: float,
        guard: StopGuard,
        terms: bool = False,
        cosines: bool = False,
        nonfinite_streak: int = 0,
    ) -> StepResult:
        """Minibatches x epochs updates; fewer if optim.max_nonfinite in a row have no finite gradient.

        `terms`: also the gradient norms of the loss's terms, of the first minibatch that is trained.
        `cosines`: also those of its gradient and update with what uniform credit would give.
        `nonfinite_streak`: updates without a finite gradient since the last that was applied, before this step.

        Raises:
            StopRequested: a signal came before the first update; no weight has moved.
            UnfinishedStep: one came after it, and the rest would take longer than its grace time.
        """
        objective = Objective(self.algorithm, batch, noise_floor, self.model.vocabulary_size, self.off_policy)
        series = UpdateSeries(
            objective,
            self.optimizer,
            self.settings,
            guard,
            lr=lr,
            with_terms=terms,
            with_cosines=cosines,
            nonfinite_streak=nonfinite_streak,
        )
        passes = replace(self._passes, between=series.underway.ask)
        try:
            if can_train_inline(passes, objective, series.updates):
                return series.result(train_inline(passes, objective, series))
            if scores_each_update(self.algorithm.gating, updates=series.updates):
                return series.result(*train_with_current_credit(passes, objective, series))
            return series.result(train_prescored(passes, objective, series))
        except (StopRequested, UnfinishedStep) as stop:
            # What is saved next can do with the memory of the gradients, and of what the frames of the step hold: the
            # exception would keep those as long as it is handled.
            self.optimizer.zero_grad()
            raise stop.with_traceback(None) from None

    def alternatives(self, batch: StepBatch, count: int) -> Tensor | None:
        """[B, T, C] of core/alternatives.py, by the policy before the step's first update: a pass of its own."""
        passes = self._passes
        signals = passes.fitted_to(batch, lambda: passes.signals(batch, batch.rows, alternatives=count))
        return signals.alternatives

    def noise_floor(self, batch: StepBatch) -> float:
        """The numerical floor of the distance, on the first of these rollouts; the same in every process.

        Each measures it by itself: of sequences that a team shares, on as much as fits one process.
        """
        lengths = batch.lengths
        if self.model.team.size > 1:
            lengths = within(batch.rollouts, lengths, self.budget.tokens)

        def measured(_: Callable[[], None]) -> float:
            return measure_noise_floor(
                self.model,
                batch.rollouts,
                lengths,
                temperature=self._passes.temperature,
                tokens=self.budget.tokens,
                after_each=self.processes.beat,
            )

        def once() -> float:
            return self.processes.all_or_none(measured, apart=self._passes.apart, rounds=0, after_each=lambda: None)

        def in_use() -> tuple[int, int]:
            return noise_sizes(batch.rollouts, lengths, tokens=self.budget.tokens)

        # Each process has measured the same, but machines round differently, and a floor of its own would give a
        # process another credit for the same tokens.
        return self.processes.from_main(self._passes.fitted(once, in_use))
