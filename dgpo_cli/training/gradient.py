"""The gradient of one minibatch: the one place that cuts it, deals it out, weights it and adds it up.

Which pass the old log-probs and the credit come from is another matter (inline.py, prescored.py): here they are given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.core.policy_loss import token_weights
from dgpo_cli.models.microbatch import MicroBatch, dealt
from dgpo_cli.models.scoring import keeping_heads
from dgpo_cli.training.passes import Passes
from dgpo_cli.training.step import Objective, Tally


@dataclass(frozen=True)
class LossTokens:
    """What the loss of a micro-batch is computed from besides its advantages: [b, T] each, on any device.

    factors: what multiplies the policy loss of each token: its credit, times the correction for what another policy
    drew (correction.py).
    """

    logprobs: Tensor  # with gradient
    old_logprobs: Tensor
    factors: Tensor
    ref_logprobs: Tensor | None


LossTokensOf = Callable[[MicroBatch, bool], LossTokens]  # of a micro-batch, and whether this process counts it


def minibatch_gradient(
    passes: Passes, objective: Objective, rows: list[int], begin: Callable[[], LossTokensOf]
) -> Tally:
    """Add the gradient of the minibatch `rows` to the weights' gradients. The sums of it over all processes.

    `begin` is called before the first micro-batch, and again for each new try with smaller ones.
    """
    # A micro-batch does not know how many tokens the others hold, so what its tokens count for is fixed before the
    # first. The parts then simply add up to the minibatch's loss, however it is cut and whoever works on which part.
    weights = _weights(objective, rows)

    def once() -> Tally:
        tokens_of = begin()
        batches = passes.microbatches(objective.batch, objective.trained(rows))
        mine = dealt(batches, passes.processes, passes.model.team)
        with keeping_heads(passes.model, passes.reference):
            return passes.processes.all_or_none(
                lambda after_each: _share(passes, objective, mine, weights, tokens_of, after_each),
                apart=passes.apart,
                rounds=len(mine),
                after_each=passes.between,
            )

    return passes.fitted_to(objective.batch, once).over(passes.processes)


def _weights(objective: Objective, rows: list[int]) -> Tensor:
    """[B] what each token of a rollout counts for in the loss of the minibatch `rows`.

    By the lengths of all of `rows`: those that are not trained add a loss of 0, and are averaged over like the others.
    """
    weights = torch.zeros(len(objective.batch.lengths))
    weights[rows] = token_weights(
        torch.tensor([objective.batch.lengths[row] for row in rows]),
        aggregation=objective.algorithm.algo.loss_aggregation.name,
        max_tokens=objective.algorithm.max_completion_tokens,
    )
    return weights


def _share(
    passes: Passes,
    objective: Objective,
    mine: list[tuple[MicroBatch, bool]],
    weights: Tensor,
    tokens_of: LossTokensOf,
    after_each: Callable[[], None],
) -> Tally:
    """The gradient of this process's micro-batches. One that another process counts adds 0."""
    tally, device = Tally(), passes.model.device
    for micro, counts in mine:
        # If the others wait for it, the pass runs even if it adds 0.
        if counts or not passes.apart:
            tokens = tokens_of(micro, counts)
            loss = objective.algorithm.loss(
                tokens.logprobs,
                tokens.old_logprobs.to(device),
                objective.batch.advantages[micro.rows].to(device),
                tokens.factors.to(device),
                micro.mask.to(device),
                None if tokens.ref_logprobs is None else tokens.ref_logprobs.to(device),
            )
            total = (loss.token_loss * weights[micro.rows].to(device)[:, None]).sum() * float(counts)
            total.backward()
            passes.processes.beat()
            if counts:
                tally.add(micro, loss, float(total.detach()))
        after_each()
    return tally
