"""The inline way: the training pass of a step's only update also gives the signals that its credit comes of.

It saves the scoring pass that the other way (prescored.py) begins with.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from dgpo_cli.algorithm import Credit
from dgpo_cli.config.gating_needs import needs_whole_batch, scores_first
from dgpo_cli.core.credit import TokenSignals, measured
from dgpo_cli.models.microbatch import MicroBatch, mask_of, whole_rows
from dgpo_cli.models.scoring import counted, put_counted
from dgpo_cli.processes import Processes
from dgpo_cli.traffic import SIGNALS
from dgpo_cli.training.gradient import LossTokens, LossTokensOf, minibatch_gradient
from dgpo_cli.training.passes import Passes
from dgpo_cli.training.prescored import score, scored_tokens
from dgpo_cli.training.step import Objective, Scored, StepBatch, Tally
from dgpo_cli.training.update_series import UpdateSeries


def can_train_inline(passes: Passes, objective: Objective, updates: int) -> bool:
    """Whether the training pass can give the credit of a step of so many updates, with micro-batches as they are."""
    # If another policy drew the rollouts, this holds all the same: the pass gives the log-probs before the update, and
    # the rollouts bring those that they were drawn with. The correction needs no more than these two.
    gating = objective.algorithm.gating
    asked = needs_whole_batch(gating) and updates == 1  # else micro-batches would be made only to be counted
    count = _micro_batches_of_all(passes, objective) if asked else 0
    return not scores_first(gating, updates=updates, micro_batches=count)


def _micro_batches_of_all(passes: Passes, objective: Objective) -> int:
    """Into how many micro-batches the training pass cuts the batch; 0 if it leaves out rows that credit depends on."""
    batch = objective.batch
    counted = [row for row in batch.rows if batch.lengths[row]]
    return len(passes.microbatches(batch, counted)) if objective.trained(counted) == counted else 0


def train_inline(passes: Passes, objective: Objective, series: UpdateSeries) -> Scored | None:
    """credit -> loss -> step, in one pass. None if no row can move a weight: then nothing was scored.

    Nothing that comes after asks for scores but what is said of the step, so the main process alone has them.
    """
    scored = None
    for rows in series:  # one minibatch, the whole batch
        series.measure(partial(_gradient, passes, rows))
        tally, inline = _gradient(passes, rows, objective)
        scored = inline.scored()
        series.step(tally)
    return scored


def _gradient(passes: Passes, rows: list[int], objective: Objective) -> tuple[Tally, _InlinePass]:
    """The gradient of the batch, and the pass, which knows the credit that was given on the way to it."""
    inline = _InlinePass(passes, objective)
    return minibatch_gradient(passes, objective, rows, inline.begin), inline


class _InlinePass:
    """Gives each micro-batch its credit in the pass that trains on it, and keeps what it gave."""

    def __init__(self, passes: Passes, objective: Objective) -> None:
        self._passes, self._objective = passes, objective
        self._record: _Record  # of the last try
        self._scored: Scored | None = None  # if the batch had to be scored first after all

    def begin(self) -> LossTokensOf:
        """The loss's tokens of micro-batches, for a new try."""
        # After a try that memory was too short for, a batch that was one micro-batch may no longer be.
        if not can_train_inline(self._passes, self._objective, updates=1):
            self._scored = score(self._passes, self._objective, self._objective.batch.rows)
            return scored_tokens(self._passes, self._scored)
        self._record = _Record(self._objective.batch, has_reference=self._passes.reference is not None)
        return self._tokens_of

    def _tokens_of(self, micro: MicroBatch, counts: bool) -> LossTokens:
        logprobs, signals = self._passes.logprobs_and_signals(micro)
        credit = self._objective.credit(signals, micro.rows)
        if counts and self._passes.model.team.place == 0:  # the others of its team have the same
            self._record.add(micro, signals, credit)
        # No update of the step came before, so the log-probs of this pass are the old ones too. Detached, they make a
        # ratio of exactly 1 whose gradient is that of log p: the plain policy gradient.
        old = logprobs.detach()
        correction = self._objective.correction(signals.logprobs, signals.mask, micro.rows)
        return LossTokens(logprobs, old, Scored(signals, credit, correction).factors, signals.ref_logprobs)

    def scored(self) -> Scored | None:
        """Signals and credit of the whole batch, in the main process."""
        return self._scored or self._record.shared(self._passes.processes)


class _Record:
    """Signals and credit of micro-batches, put together as [B, T]. Rows that none of them held are unmasked."""

    def __init__(self, batch: StepBatch, *, has_reference: bool) -> None:
        self._lengths = [0] * batch.shape[0]
        self._values: dict[str, Tensor] = {
            name: torch.zeros(batch.shape) for name in measured(has_reference=has_reference)
        }
        self._weights, self._score = torch.zeros(batch.shape), torch.zeros(batch.shape)
        self._gate = 1.0
        self._width = batch.shape[1]

    def add(self, micro: MicroBatch, signals: TokenSignals, credit: Credit) -> None:
        width = signals.mask.shape[1]
        for row, length in zip(micro.rows, micro.lengths, strict=True):
            self._lengths[row] = length
        for name, target in self._values.items():
            target[micro.rows, :width] = getattr(signals, name)
        self._weights[micro.rows, :width] = credit.weights
        self._score[micro.rows, :width] = credit.score
        self._gate = credit.noise_gate  # of the batch: a gate other than 1 comes with a single micro-batch alone

    def shared(self, processes: Processes) -> Scored | None:
        """What all processes recorded together, in the main one; None in the others."""
        values = [*self._values.values(), self._weights, self._score]
        if not processes.alone:
            rows = [row for row, length in enumerate(self._lengths) if length]
            mine = (rows, [self._lengths[row] for row in rows])
            theirs = processes.to_main(mine, SIGNALS)
            parts = processes.rows_to_main(counted(values, whole_rows(*mine)), SIGNALS)
            for held, part in zip(theirs[1:], parts[1:], strict=True):
                for row, length in zip(*held, strict=True):
                    self._lengths[row] = length
                put_counted(values, whole_rows(*held), part)
        if not processes.main:
            return None
        signals = TokenSignals(mask_of(self._lengths, self._width), **self._values)
        return Scored(signals, Credit(self._weights, self._score, self._gate))
