"""The scoring core written the plain way: [N, V] logits in float64. What every fast path must equal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.core.token_stats import Head


@dataclass(frozen=True)
class DenseStats:
    logprobs: Tensor
    entropy: Tensor
    ref_logprobs: Tensor
    hellinger: Tensor
    grad_norm: Tensor


def dense_logits(hidden: Tensor, head: Head) -> Tensor:
    logits = head.scale * (hidden.double() @ head.weight.double().T)
    if head.bias is not None:
        logits = logits + head.bias.double()
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


def dense_stats(logits: Tensor, targets: Tensor, ref_logits: Tensor, temperature: float = 1.0) -> DenseStats:
    log_p = torch.log_softmax(logits.double() / temperature, dim=-1)
    log_q = torch.log_softmax(ref_logits.double() / temperature, dim=-1)
    return DenseStats(
        logprobs=log_p.gather(1, targets[:, None])[:, 0],
        entropy=torch.special.entr(log_p.exp()).sum(1),
        ref_logprobs=log_q.gather(1, targets[:, None])[:, 0],
        grad_norm=(log_p.exp() - torch.nn.functional.one_hot(targets, log_p.shape[1])).norm(dim=1),
        hellinger=0.5 * ((log_p / 2).exp() - (log_q / 2).exp()).square().sum(1),
    )


def dense_logprobs(hidden: Tensor, head: Head, targets: Tensor, temperature: float = 1.0) -> Tensor:
    log_p = torch.log_softmax(dense_logits(hidden, head) / temperature, dim=-1)
    return log_p.gather(1, targets[:, None])[:, 0]
