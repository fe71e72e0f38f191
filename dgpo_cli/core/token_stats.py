"""Log-prob, entropy and squared Hellinger distance of tokens, without a [tokens, vocabulary] tensor.

The public face of the scoring core: from the last hidden states and the output head (or, as a fall-back, from logits).

    token_stats           scoring, no gradient: log-prob, entropy and distance to a reference in one pass
    token_logprobs        training: log-prob with gradient to the hidden states and, where it is trained, the head;
                          token_logprobs_and_stats scores in the same pass
    stats_from_logits     both again for a model whose head cannot be found; the caller passes chunks of tokens
    logprobs_from_logits

How they work: `output_head` (tiles), `running_stats` (sums), `streamed_stats` (scoring), `streamed_logprob` (training),
`triton_fold` (the GPU's fold).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from dgpo_cli.core.output_head import Head, Scratch, compute_dtype, tile_shape
from dgpo_cli.core.running_stats import DeltaSums, PolicySums, ReferenceSums
from dgpo_cli.core.streamed_logprob import FrozenHeadLogprob, StreamedLogprob
from dgpo_cli.core.streamed_stats import (
    Chunks,
    delta_serves,
    fold_logits,
    same_head,
    stream_pair,
    stream_policy,
    stream_shared,
)

__all__ = [
    "Head",
    "TokenStats",
    "logprobs_from_logits",
    "stats_from_logits",
    "token_logprobs",
    "token_logprobs_and_stats",
    "token_stats",
]

_DIRECT_LOGITS = 2**22  # logits that may be held at once: 16 MiB in float32


@dataclass(frozen=True)
class TokenStats:
    """Statistics of N tokens, all float32 [N] and without gradient.

    logprobs      log p(sampled id), nats; -inf where the policy's logit is
    entropy       H = -sum_a p_a log p_a, nats
    ref_logprobs  log q(sampled id), nats; None without a reference
    hellinger     SQUARED distance d = 1 - sum_a sqrt(p_a q_a), in [0, 1]; None without a reference
    grad_norm     |d log p(sampled id) / d z|, z = logits / temperature: sqrt(1 - 2 p(sampled id) + sum_a p_a^2)
    """

    logprobs: Tensor
    entropy: Tensor
    grad_norm: Tensor
    ref_logprobs: Tensor | None
    hellinger: Tensor | None


@torch.no_grad()
def token_stats(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    ref_hidden: Tensor | None = None,
    ref_head: Head | None = None,
    vocab_chunk: int | None = None,
    token_chunk: int | None = None,
) -> TokenStats:
    """Statistics of the policy p, and of a reference q, at the sampled tokens.

    hidden [N, D] and targets [N] int64 of the policy; ref_hidden [N, D'] of the reference, whose head is `ref_head` or,
    when None, the policy's. All of any float dtype: the arithmetic is float32 (float64 from float64) and logits
    are never rounded below it. p = softmax(logits / temperature), and so q. Chunk sizes bound the memory, not the
    result.

    The distance is the one of DGPO (arXiv 2605.03327, as publicly understood): d = 1 - sum_a sqrt(p_a q_a), squared.
    It is exactly 0.0 for identical models (one object or two copies), never negative, 1 for disjoint supports, and its
    relative error is below 1e-2 at d = 1e-8 (below 1e-5 where one head serves both models). N = 0 gives empty vectors.
    Raises ValueError if the two heads have different vocabularies.
    """
    if ref_head is not None and ref_head.vocab_size != head.vocab_size:
        raise ValueError(
            f"policy and reference must share a vocabulary: their heads have {head.vocab_size} and "
            f"{ref_head.vocab_size} rows"
        )
    return _scored(hidden, head, targets, temperature, ref_hidden, ref_head, Chunks(vocab_chunk, token_chunk))[0]


def _scored(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    temperature: float,
    ref_hidden: Tensor | None,
    ref_head: Head | None,
    chunks: Chunks,
) -> tuple[TokenStats, PolicySums]:
    """`token_stats`, and the policy's sums behind it."""
    hidden, head = hidden.detach(), _detached(head)
    scratch = Scratch(compute_dtype(hidden, head.weight), hidden.device)
    with torch.autocast(hidden.device.type, enabled=False):
        if ref_hidden is None:
            policy = stream_policy(hidden, head, targets, temperature, chunks, scratch)
            return _stats(policy), policy
        ref_hidden = ref_hidden.detach()
        ref_head = head if ref_head is None else _detached(ref_head)
        shared = hidden.shape == ref_hidden.shape and same_head(head, ref_head)
        if not (shared and delta_serves(hidden, head, scratch)):
            pair = stream_pair(hidden, head, targets, ref_hidden, ref_head, temperature, chunks, scratch)
            stats = _stats(*pair)
            return _with_exact_zeros(stats, hidden, ref_hidden) if shared else stats, pair[0]
        policy, delta = stream_shared(hidden, head, targets, ref_hidden, temperature, chunks, scratch)
        stats = _stats(policy, delta)
        doubtful = torch.nonzero(~delta.trusted(policy))[:, 0]
        if len(doubtful) == 0:
            return stats, policy
        pair = stream_pair(
            hidden[doubtful], head, targets[doubtful], ref_hidden[doubtful], head, temperature, chunks, scratch
        )
        return _replaced(stats, doubtful, _stats(*pair)), policy


def token_logprobs(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    vocab_chunk: int | None = None,
    token_chunk: int | None = None,
) -> Tensor:
    """log p(sampled id) [N], float32 (float64 from float64), p = softmax(logits / temperature).

    hidden [N, D], targets [N] int64. Differentiable once, to `hidden` and to the head's weight and bias where they
    require grad. The backward forms the logits again, tile by tile, and sums the weight's gradient in float32, rounding
    once. For a head without gradient the forward streams E = sum_a p_a W_a, and d log p(y) / d hidden = (W_y - E) / T
    is ready when it ends. A small vocabulary takes plain autograd, as long as its logits are small beside the hidden
    states.
    """
    dtype = compute_dtype(hidden, head.weight)
    with torch.autocast(hidden.device.type, enabled=False):
        if vocab_chunk is None and token_chunk is None and _direct(hidden, head):
            return logprobs_from_logits(_direct_logits(hidden, head, dtype), targets, temperature=temperature)
        if not torch.is_grad_enabled():
            scratch = Scratch(dtype, hidden.device)
            return stream_policy(
                hidden, head, targets, temperature, Chunks(vocab_chunk, token_chunk), scratch
            ).logprobs()
        if _trained(head):
            chunks = Chunks(vocab_chunk, token_chunk)
            return _with_gradient(hidden, head, targets, temperature, None, None, chunks)[0]
        options = (head.softcap, head.scale, temperature, vocab_chunk, token_chunk)
        logprobs: Tensor = FrozenHeadLogprob.apply(hidden, head.weight, head.bias, targets, *options)
        return logprobs


def token_logprobs_and_stats(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    ref_hidden: Tensor | None = None,
    ref_head: Head | None = None,
) -> tuple[Tensor, TokenStats]:
    """`token_logprobs` [N] with gradient, and `token_stats` of the same tokens, in one pass where the head is trained.

    Scoring then costs the training pass one product, the reference's. With a frozen head it is a pass of its own.
    """
    if _trained(head) and torch.is_grad_enabled() and not _direct(hidden, head):
        return _with_gradient(hidden, head, targets, temperature, ref_hidden, ref_head, Chunks(None, None))
    stats = token_stats(hidden, head, targets, temperature=temperature, ref_hidden=ref_hidden, ref_head=ref_head)
    return token_logprobs(hidden, head, targets, temperature=temperature), stats


@torch.no_grad()
def _forward_only(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    temperature: float,
    ref_hidden: Tensor | None,
    ref_head: Head | None,
    chunks: Chunks,
) -> tuple[TokenStats, Tensor, Tensor]:
    """Statistics, log-probs [N] in the arithmetic's own dtype, and the log2 of the normaliser [N]."""
    stats, policy = _scored(hidden, head, targets, temperature, ref_hidden, ref_head, chunks)
    return stats, policy.logprobs(), 2 * policy.max + torch.log2(policy.total)


def _with_gradient(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    temperature: float,
    ref_hidden: Tensor | None,
    ref_head: Head | None,
    chunks: Chunks,
) -> tuple[Tensor, TokenStats]:
    """Log-probs [N] of a trained head with gradient, and the statistics that its forward streamed."""
    stats, values, normaliser = _forward_only(hidden, head, targets, temperature, ref_hidden, ref_head, chunks)
    options = (head.softcap, head.scale, temperature, chunks.vocab, chunks.tokens)
    logprobs: Tensor = StreamedLogprob.apply(hidden, head.weight, head.bias, targets, *options, values, normaliser)
    return logprobs, stats


def _trained(head: Head) -> bool:
    return head.weight.requires_grad or (head.bias is not None and head.bias.requires_grad)


def _direct(hidden: Tensor, head: Head) -> bool:
    """Whether all logits at once are small beside the hidden states, so that plain autograd is as good."""
    ids, _ = tile_shape(head.vocab_size, hidden.device)
    count, width = hidden.shape
    return head.vocab_size <= min(ids, max(4 * width, _DIRECT_LOGITS // max(1, count)))


@torch.no_grad()
def stats_from_logits(
    logits: Tensor, targets: Tensor, *, temperature: float = 1.0, ref_logits: Tensor | None = None
) -> TokenStats:
    """`token_stats` from logits [N, V] and ref_logits [N, V]: for models whose head cannot be found.

    The caller passes the tokens in chunks. Logits that the model rounded to bf16 have lost small distances already.
    """
    scratch = Scratch(compute_dtype(logits), logits.device)
    return _stats(*fold_logits(logits, targets, ref_logits, temperature, scratch))


def logprobs_from_logits(logits: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log p(sampled id) [N] from logits [N, V], with plain autograd, in float32 (float64 from float64)."""
    logits = logits.to(compute_dtype(logits))
    if temperature != 1.0:
        logits = logits / temperature
    return -F.cross_entropy(logits, targets, reduction="none")


def _direct_logits(hidden: Tensor, head: Head, dtype: torch.dtype) -> Tensor:
    logits = F.linear(hidden.to(dtype), head.weight.to(dtype))
    if head.scale != 1.0:
        logits = logits * head.scale
    if head.bias is not None:
        logits = logits + head.bias.to(dtype)
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    return logits


def _detached(head: Head) -> Head:
    return Head(head.weight.detach(), None if head.bias is None else head.bias.detach(), head.softcap, head.scale)


def _stats(policy: PolicySums, reference: ReferenceSums | DeltaSums | None = None) -> TokenStats:
    own = (policy.logprobs().float(), policy.entropy().float(), policy.grad_norm().float())
    if reference is None:
        return TokenStats(*own, None, None)
    ref_logprobs = reference.logprobs(policy) if isinstance(reference, DeltaSums) else reference.logprobs()
    return TokenStats(*own, ref_logprobs.float(), reference.hellinger(policy).float())


def _replaced(stats: TokenStats, index: Tensor, better: TokenStats) -> TokenStats:
    """The same record with the tokens at `index` taken from `better`."""
    ref_logprobs, hellinger = stats.ref_logprobs, stats.hellinger
    if ref_logprobs is not None and better.ref_logprobs is not None:
        ref_logprobs = ref_logprobs.index_copy(0, index, better.ref_logprobs)
    if hellinger is not None and better.hellinger is not None:
        hellinger = hellinger.index_copy(0, index, better.hellinger)
    return replace(stats, ref_logprobs=ref_logprobs, hellinger=hellinger)


def _with_exact_zeros(stats: TokenStats, hidden: Tensor, ref_hidden: Tensor) -> TokenStats:
    """Distance 0.0 where one head saw equal hidden states, whatever two products make of them."""
    if stats.hellinger is None or stats.ref_logprobs is None:
        return stats
    equal = (hidden == ref_hidden).all(dim=1)
    ref_logprobs = torch.where(equal, stats.logprobs, stats.ref_logprobs)
    return replace(stats, ref_logprobs=ref_logprobs, hellinger=stats.hellinger.masked_fill(equal, 0.0))
