"""The pre-scored way: a scoring pass before the updates gives old log-probs, signals and credit of the whole batch.

Under gating.score_policy=current each update gets credit anew, by the policy as it is then; the old log-probs remain
those of the first pass.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from dgpo_cli.models.microbatch import MicroBatch
from dgpo_cli.training.current_credit import ReferenceStates, UsedCredit, joined
from dgpo_cli.training.gradient import LossTokens, LossTokensOf, minibatch_gradient
from dgpo_cli.training.passes import Passes
from dgpo_cli.training.step import Objective, Scored, Tally
from dgpo_cli.training.update_series import UpdateSeries


def train_prescored(passes: Passes, objective: Objective, series: UpdateSeries) -> Scored:
    """credit once, then loss -> step for each minibatch of each epoch."""
    scored = passes.fitted_to(objective.batch, partial(score, passes, objective, objective.batch.rows))
    for rows in series:
        gradient = partial(_gradient, passes, rows, scored)
        series.measure(gradient)
        series.step(gradient(objective))
    return scored


def train_with_current_credit(passes: Passes, objective: Objective, series: UpdateSeries) -> tuple[Scored, UsedCredit]:
    """credit -> loss -> step for each minibatch of each epoch.

    Returns the signals by the policy before the first update, with the mean of the credit that each rollout trained by.
    """
    batch, used = objective.batch, UsedCredit(objective.batch.shape)
    if passes.reference is not None:
        passes = replace(passes, reference_states=ReferenceStates(passes.reference))
    # By minibatch, as they are scored again: so the first of them gets the same signals in both passes.
    before = passes.fitted_to(batch, lambda: joined([passes.signals(batch, rows) for rows in series.minibatches]))
    correction = objective.correction(before.logprobs, before.mask, batch.rows)  # of the step, not of an update
    for rows in series:
        now = passes.fitted_to(batch, partial(score, passes, objective, rows, before.logprobs))
        gradient = partial(_gradient, passes, rows, Scored(before, now.credit, correction))
        series.measure(gradient)
        if series.step(gradient(objective)):
            diagnostics = objective.algorithm.diagnostics(
                objective.informed(now.signals, batch.rows), now.credit, batch.advantages, batch.group_accuracy
            )
            used.add(objective.trained(rows), now.credit, diagnostics)
    return Scored(before, used.credit()), used


def _gradient(passes: Passes, rows: list[int], scored: Scored, objective: Objective) -> Tally:
    """The gradient of a minibatch by its scores; by uniform credit if the objective has no gating."""
    scored = scored if objective.algorithm.gates else scored.ungated()
    return minibatch_gradient(passes, objective, rows, partial(scored_tokens, passes, scored))


def score(passes: Passes, objective: Objective, rows: list[int], old_logprobs: Tensor | None = None) -> Scored:
    """Signals and credit of those rows by the policy as it is. The others are unmasked.

    `old_logprobs` [B, T]: by the policy before the step's first update, if that is another one.
    """
    signals = passes.signals(objective.batch, rows)
    every = objective.batch.rows
    return Scored(
        signals,
        objective.credit(signals, every, old_logprobs),
        objective.correction(signals.logprobs, signals.mask, every),
    )


def scored_tokens(passes: Passes, scored: Scored) -> LossTokensOf:
    """The loss's tokens of micro-batches of a batch that was scored: the training pass gives their log-probs alone."""
    signals, factors = scored.signals, scored.factors

    def tokens_of(micro: MicroBatch, _: bool) -> LossTokens:
        at = (micro.rows, slice(micro.mask.shape[1]))
        return LossTokens(
            passes.logprobs(micro),
            signals.logprobs[at],
            factors[at],
            None if signals.ref_logprobs is None else signals.ref_logprobs[at],
        )

    return tokens_of
