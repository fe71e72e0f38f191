"""Factors that make rollouts of one policy count for the loss of another: importance ratios, bounded.

    rho[i,t] = pi_old(y[i,t]) / mu(y[i,t])

mu is the distribution that a token was drawn from, as the engine tells it; pi_old the trainer's before any update of
the step. The two differ by the rounding of another kernel or dtype, and more if the weights that drew are of an earlier
step. The clipped ratio pi / pi_old of the policy loss is another matter: it is about the updates within a step.

    token      min(rho[i,t], cap)                       truncated importance sampling, as in V-trace (arXiv 1802.01561)
    sequence   min(prod_t rho[i,t], cap)                one factor for all tokens of a rollout
    mask       rho[i,t] if it lies in [1/cap, cap]      else 0, as in IcePop (arXiv 2510.18855)

Without a cap a few tokens that mu found absurd would take over the gradient. The cap trades that variance for bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.core.policy_loss import LOG_RATIO_LIMIT

KINDS = ("token", "sequence", "mask")


@dataclass(frozen=True)
class OffPolicy:
    """What each token's loss is multiplied by [B, T], and where the cap decided that. No gradient goes through it.

    Tokens that do not count have 1 and False.
    """

    factors: Tensor  # float32
    corrected: Tensor  # bool: the ratio was cut to the cap, or the token masked


def off_policy(old_logprobs: Tensor, engine_logprobs: Tensor, mask: Tensor, *, kind: str, cap: float) -> OffPolicy:
    """The factors of every counted token.

    Args:
        old_logprobs, engine_logprobs, mask: [B, T]: log pi_old and log mu, nats. A row with equal ones gives exactly 1.
        kind: of `KINDS`.
        cap: more than 1.
    """
    difference = old_logprobs.detach().double() - engine_logprobs.double()
    log_ratio = torch.where(mask, difference, 0.0)
    if kind == "sequence":
        log_ratio = log_ratio.sum(dim=1, keepdim=True).expand_as(log_ratio)
    ratio = log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()
    corrected = mask & (ratio > cap)
    if kind == "mask":
        corrected = corrected | (mask & (ratio < 1.0 / cap))
        factors = torch.where(corrected, 0.0, ratio)
    else:
        factors = ratio.clamp(max=cap)
    return OffPolicy(torch.where(mask, factors, 1.0).float(), corrected)


def effective_share(factors: Tensor) -> float:
    """(sum f)^2 / (n sum f^2) of n factors [n]: 1 if they are alike, 1/n if one holds everything, 0 if all are 0."""
    factors = factors.double()
    squares = float(factors.square().sum())
    return float(factors.sum()) ** 2 / (factors.numel() * squares) if squares else 0.0
