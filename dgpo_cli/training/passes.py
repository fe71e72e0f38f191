"""The passes of a step through policy and reference: cut by a token budget, shared by the processes of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch, scatter_rows
from dgpo_cli.models.scoring import (
    logprobs_and_stats,
    logprobs_of_states,
    microbatches,
    predictive_states,
    score_rollouts,
    signals_of_stats,
    signals_of_team,
)
from dgpo_cli.processes import Processes
from dgpo_cli.training.out_of_memory import MicrobatchBudget, Result
from dgpo_cli.training.step import StepBatch


@dataclass(frozen=True)
class Passes:
    """What passes of a run have in common; `between` and `reference_states` are a step's own."""

    model: LanguageModel
    reference: LanguageModel | None  # None if nothing needs one
    temperature: float
    budget: MicrobatchBudget
    processes: Processes
    drop_gradients: Callable[[], None]
    between: Callable[[], None] = lambda: None  # called after each micro-batch, in every process equally often
    reference_states: Callable[[MicroBatch], Tensor] | None = None  # what the reference says, if that is kept

    @property
    def apart(self) -> bool:
        """As `LanguageModel.apart`."""
        return self.model.apart

    def microbatches(self, batch: StepBatch, rows: list[int]) -> list[MicroBatch]:
        """Those of all processes together."""
        return microbatches(
            self.model,
            self.reference,
            batch.rollouts,
            rows,
            batch.lengths,
            tokens=self.budget.tokens,
            processes=self.processes,
        )

    def fitted_to(self, batch: StepBatch, work: Callable[[], Result]) -> Result:
        """`work` on the batch's micro-batches, done again with smaller ones as long as memory is short."""

        def in_use() -> tuple[int, int]:
            micros = self.microbatches(batch, batch.rows)
            return max(micro.input_ids.numel() for micro in micros), max(micro.longest for micro in micros)

        return self.fitted(work, in_use)

    def fitted(self, work: Callable[[], Result], in_use: Callable[[], tuple[int, int]]) -> Result:
        """`work`, which cuts itself by the budget, in pieces that memory holds (`MicrobatchBudget.fitted`)."""
        # No second try if processes wait for each other: when memory is short in one, the others stand in the middle of
        # a layer and wait for its part of it. They can neither be told nor go back.
        if not self.apart and not self.processes.alone:
            return work()
        return self.budget.fitted(work, clean_up=self.drop_gradients, in_use=in_use)

    def signals(self, batch: StepBatch, rows: list[int], *, alternatives: int = 0) -> TokenSignals:
        """The signals [B, T] of those rows, 0 and unmasked in the others, without gradient."""
        return score_rollouts(
            self.model,
            self.reference,
            batch.rollouts,
            batch.lengths,
            temperature=self.temperature,
            tokens=self.budget.tokens,
            rows=rows,
            processes=self.processes,
            after_each=self.between,
            reference_states=self.reference_states,
            alternatives=alternatives,
        )

    def logprobs(self, micro: MicroBatch) -> Tensor:
        """log p [b, T] of the counted tokens, with gradient, and nothing else: entropy and distance would cost more."""
        states = predictive_states(self.model, micro)
        return scatter_rows(logprobs_of_states(self.model, states, micro, temperature=self.temperature), micro)

    def logprobs_and_signals(self, micro: MicroBatch) -> tuple[Tensor, TokenSignals]:
        """log p [b, T] of the counted tokens, with gradient, and their signals from the same pass, without.

        In a team the log-probs are of this process's part, and the signals of whole rollouts: credit is made of those.
        """
        states = predictive_states(self.model, micro)
        flat, stats = logprobs_and_stats(
            self.model,
            states,
            micro,
            temperature=self.temperature,
            reference=self.reference,
            ref_states=self._states_of_reference(micro),
        )
        return scatter_rows(flat, micro), signals_of_team(signals_of_stats(stats, micro), micro, self.model.team)

    @torch.no_grad()
    def _states_of_reference(self, micro: MicroBatch) -> Tensor | None:
        return None if self.reference is None else predictive_states(self.reference, micro)
