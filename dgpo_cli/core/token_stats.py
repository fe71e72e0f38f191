"""Log-prob, entropy and squared Hellinger distance of tokens, from hidden states and output heads.

This module owns the public names of the scoring core.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Head:
    """An output head: logits = softcap(scale * hidden @ weight.T + bias)."""

    weight: Tensor  # [V, D]
    bias: Tensor | None = None  # [V]
    softcap: float | None = None
    scale: float = 1.0


@dataclass(frozen=True)
class TokenStats:
    """Statistics of N tokens, all float32 [N] without gradient."""

    logprobs: Tensor
    entropy: Tensor
    ref_logprobs: Tensor | None
    hellinger: Tensor | None


def _logits(hidden: Tensor, head: Head) -> Tensor:
    logits = head.scale * (hidden.float() @ head.weight.float().T)
    if head.bias is not None:
        logits = logits + head.bias.float()
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


def token_stats(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    ref_hidden: Tensor | None = None,
    ref_head: Head | None = None,
) -> TokenStats:
    """Statistics of the policy (and the reference) at the sampled tokens; ref_head None = the policy's head."""
    parts = []
    with torch.no_grad():
        for start in range(0, max(hidden.shape[0], 1), 64):
            rows = slice(start, start + 64)
            ref_logits = None if ref_hidden is None else _logits(ref_hidden[rows], ref_head or head)
            logits = _logits(hidden[rows], head)
            parts.append(stats_from_logits(logits, targets[rows], temperature=temperature, ref_logits=ref_logits))
    return TokenStats(
        torch.cat([p.logprobs for p in parts]),
        torch.cat([p.entropy for p in parts]),
        None if ref_hidden is None else torch.cat([p.ref_logprobs for p in parts if p.ref_logprobs is not None]),
        None if ref_hidden is None else torch.cat([p.hellinger for p in parts if p.hellinger is not None]),
    )


def token_logprobs(hidden: Tensor, head: Head, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-prob [N] of the targets, with gradient to hidden and to the head."""
    return logprobs_from_logits(_logits(hidden, head), targets, temperature=temperature)


@torch.no_grad()
def stats_from_logits(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0, ref_logits: Tensor | None = None
) -> TokenStats:
    """The same statistics from logits [N, V]: the fall-back for a model whose head cannot be found."""
    logp = torch.log_softmax(logits.float() / temperature, dim=-1)
    chosen = logp.gather(-1, targets[:, None])[:, 0]
    entropy = torch.special.entr(logp.exp()).sum(-1)
    if ref_logits is None:
        return TokenStats(chosen, entropy, None, None)
    ref_logp = torch.log_softmax(ref_logits.float() / temperature, dim=-1)
    u, v = (logp / 2).exp(), (ref_logp / 2).exp()
    hellinger = 0.5 * (u / u.norm(dim=-1, keepdim=True) - v / v.norm(dim=-1, keepdim=True)).square().sum(-1)
    return TokenStats(chosen, entropy, ref_logp.gather(-1, targets[:, None])[:, 0], hellinger.clamp(max=1.0))


def logprobs_from_logits(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Log-prob [N] of the targets from logits [N, V], with gradient."""
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, targets[:, None])[:, 0]
