"""The policy loss of GRPO, its relatives and DAPO with a factor for every token, and how tokens are averaged.

    l = - w * min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A) + kl_coef * k3
    l = - w * detach(clip(rho, 1 - clip_low, 1 + clip_high)) A log p + kl_coef * k3      (detached)

The factor w is the place for everything that makes one token's policy loss count for more than another's: credit, and
what corrects for tokens that another policy drew. So one hook serves every gating and every algorithm. It multiplies
the clipped loss alone, not the penalty: how far the policy may go from the reference is no matter of credit.

The averaging is apart from it: a weight for every token that is fixed before the first micro-batch, so that
micro-batches and ranks simply sum. A token with w = 0 stays in every denominator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.core.signals import k3

LOG_RATIO_LIMIT = 20.0  # exp(20) = 5e8: far beyond every clip, and finite in float32


@dataclass(frozen=True)
class PolicyLoss:
    """The loss of each token [B, T] with gradient, and what the log needs, without: [B, T] or None."""

    token_loss: Tensor
    ratio: Tensor
    clipped_low: Tensor  # bool: the bound below decides. It cuts the gradient; a detached ratio is held at it
    clipped_high: Tensor
    kl: Tensor | None


def importance_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor, *, level: str = "token") -> Tensor:
    """rho [B, T], the log-ratio clamped at +-20.

    `sequence` is GSPO (arXiv 2507.18071) in its token form, detach(s) * exp(logp - detach(logp)) with
    s = exp(mean log-ratio): in the plain form credit, whose mean is 1, would cancel out.
    """
    log_ratio = (logprobs - old_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    if level == "token":
        return log_ratio.exp()
    counts = mask.sum(dim=1, keepdim=True).clamp(min=1)
    sequence = torch.where(mask, log_ratio, 0.0).sum(dim=1, keepdim=True) / counts  # [B, 1]
    return sequence.detach().exp() * (logprobs - logprobs.detach()).exp()


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    factors: Tensor,
    mask: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    clip_dual: float | None = None,
    ratio_level: str = "token",
    detached_ratio: bool = False,
    max_probability_change: float | None = None,
    kl_coef: float = 0.0,
    ref_logprobs: Tensor | None = None,
) -> PolicyLoss:
    """The loss of every counted token, 0 elsewhere.

    Args:
        logprobs, old_logprobs, factors, mask: [B, T]; only `logprobs` gets a gradient.
        advantages: [B].
        factors: w of the formula, 1 to leave the loss of a token as it is.
        clip_dual: for negative advantages the loss before w is at most clip_dual * |A| (arXiv 1912.09729). A detached
            ratio, which has a bound, is not asked for another.
        detached_ratio: every token keeps its gradient, A log p times the bounded ratio (CISPO, arXiv 2506.13585).
        max_probability_change: a token has no policy loss once p - p_old passes it in the direction that A drives it in
            (DPPO): above it for A > 0, below minus it for A < 0.
        ref_logprobs: [B, T], needed for kl_coef > 0; without kl_coef it only fills `kl` for the log.
    """
    ratio = importance_ratio(logprobs, old_logprobs, mask, level=ratio_level)
    advantage = advantages[:, None].expand_as(ratio)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    token_loss = -torch.minimum(ratio * advantage, clipped * advantage)
    if detached_ratio:
        token_loss = -clipped.detach() * advantage * logprobs
    elif clip_dual is not None:
        token_loss = torch.where(advantage < 0, torch.minimum(token_loss, clip_dual * advantage.abs()), token_loss)
    spent = _moved_enough(logprobs, old_logprobs, advantage, max_probability_change)
    if spent is not None:
        token_loss = torch.where(spent, 0.0, token_loss)
    token_loss = token_loss * factors.detach()
    kl = None
    if ref_logprobs is not None:
        kl = k3(logprobs, ref_logprobs)
        if kl_coef:
            token_loss = token_loss + kl_coef * kl
        kl = torch.where(mask, kl.detach(), 0.0)
    with torch.no_grad():
        low, high = ratio < 1.0 - clip_low, ratio > 1.0 + clip_high
        if not detached_ratio:
            low, high = low & (advantage < 0), high & (advantage > 0)
        if spent is not None:
            low, high = low | (spent & (advantage < 0)), high | (spent & (advantage > 0))
        low, high = mask & low, mask & high
    return PolicyLoss(torch.where(mask, token_loss, 0.0), ratio.detach(), low, high, kl)


@torch.no_grad()
def _moved_enough(logprobs: Tensor, old_logprobs: Tensor, advantage: Tensor, limit: float | None) -> Tensor | None:
    """Where p - p_old has passed the limit in the direction of A; None without a limit. [B, T] each."""
    if limit is None:
        return None
    change = logprobs.exp() - old_logprobs.exp()
    return ((advantage > 0) & (change > limit)) | ((advantage < 0) & (change < -limit))


def token_weights(lengths: Tensor, *, aggregation: str, max_tokens: int) -> Tensor:
    """[B]: the weight of each token of rollout i in the minibatch's loss, L = sum_i sum_t weight[i] * l[i, t].

    `lengths` [B] are the counted tokens of the whole minibatch over all ranks. rollout_mean (GRPO): 1 / (B T_i);
    token_mean (DAPO): 1 / sum T; constant (Dr.GRPO, arXiv 2503.20783): 1 / (B * max_tokens). A rollout without
    counted tokens keeps its place in B.
    """
    counts = lengths.double()
    rollouts = max(1, lengths.numel())
    if aggregation == "rollout_mean":
        weights = 1.0 / (rollouts * counts.clamp(min=1.0))
    elif aggregation == "token_mean":
        weights = torch.full_like(counts, 1.0 / max(1.0, float(counts.sum())))
    else:
        weights = torch.full_like(counts, 1.0 / (rollouts * max_tokens))
    return weights.float()
