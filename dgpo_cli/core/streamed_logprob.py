"""Log-prob of the sampled tokens with gradient, streamed over tiles of the vocabulary: the training pass.

Owns two autograd functions. `StreamedLogprob`, for a trained head, forms the logits again in its backward: four
products in place of the three of plain autograd, and no [N, V] tensor. `FrozenHeadLogprob` sums E = sum_a p_a W_a
beside the normaliser, after which the backward is a scale: two products.

With tokens i, ids a, c_a = d logit_a / d product_a (scale, times 1 - tanh^2 under a softcap) and incoming gradient g:

    d hidden_i = g_i / T * (c_y W_y - sum_a p_a c_a W_a)
    d W_a      = sum_i g_i / T * ([a = y_i] - p_ia) c_ia hidden_i
    d bias_a   = the same without hidden, with c divided by scale

Here a tile is in log2 units, z = logits * log2(e) / T, so that p = 2^(z - normaliser).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dgpo_cli.core.output_head import (
    LN_2,
    LOG2_E,
    MASKED,
    Head,
    Scratch,
    compute_dtype,
    head_tiles,
    logit_tile,
    native_product,
    tile_shape,
    token_slices,
)
from dgpo_cli.core.running_stats import raise_max, take_target
from dgpo_cli.core.streamed_stats import Chunks, stream_policy


class StreamedLogprob(torch.autograd.Function):
    """Log-probs [N] for a head that takes gradient, from a forward that was streamed already.

    `logprobs` are its values and `normaliser` [N] its log2 of the sum over the vocabulary of 2^z, so that a pass that
    scores the tokens beside a reference serves training too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        scale: float,
        temperature: float,
        vocab_chunk: int | None,
        token_chunk: int | None,
        logprobs: Tensor,
        normaliser: Tensor,
    ) -> Tensor:
        ctx.options = (softcap, scale, temperature, vocab_chunk, token_chunk)
        ctx.save_for_backward(hidden, weight, bias, targets, normaliser)
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, normaliser = ctx.saved_tensors
        softcap, scale, temperature, vocab_chunk, token_chunk = ctx.options
        head = Head(weight, bias, softcap, scale)
        needed = (ctx.needs_input_grad[0], ctx.needs_input_grad[1], bias is not None and ctx.needs_input_grad[2])
        with torch.autocast(hidden.device.type, enabled=False):
            grads = _backward(
                hidden,
                head,
                targets,
                normaliser,
                grad / temperature,
                temperature,
                Chunks(vocab_chunk, token_chunk),
                needed,
            )
        return (*grads, *(None,) * 8)


class FrozenHeadLogprob(torch.autograd.Function):
    """Log-probs [N] for a head that takes no gradient; the gradient to hidden is ready after the forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        softcap: float | None,
        scale: float,
        temperature: float,
        vocab_chunk: int | None,
        token_chunk: int | None,
    ) -> Tensor:
        head = Head(weight, bias, softcap, scale)
        chunks = Chunks(vocab_chunk, token_chunk)
        scratch = Scratch(compute_dtype(hidden, weight), hidden.device)
        if not ctx.needs_input_grad[0]:
            return stream_policy(hidden, head, targets, temperature, chunks, scratch).logprobs()
        logprobs, direction = _forward_with_direction(hidden, head, targets, temperature, chunks, scratch)
        ctx.save_for_backward(direction)
        ctx.hidden_dtype = hidden.dtype
        return logprobs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (direction,) = ctx.saved_tensors
        grad_hidden = (direction * grad[:, None]).to(ctx.hidden_dtype)
        return (grad_hidden, None, None, None, None, None, None, None, None)


def _backward(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    normaliser: Tensor,
    grad: Tensor,
    temperature: float,
    chunks: Chunks,
    needed: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Gradients of hidden [N, D], weight [V, D] and bias [V], those that are needed, from grad / T [N]."""
    scratch = Scratch(compute_dtype(hidden, head.weight), hidden.device)
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, chunks.vocab, chunks.tokens)
    unit = LOG2_E / temperature
    grad_hidden = torch.zeros(hidden.shape, dtype=scratch.dtype, device=hidden.device) if needed[0] else None
    grad_weight = torch.empty_like(head.weight) if needed[1] else None
    grad_bias = torch.empty_like(head.bias) if needed[2] and head.bias is not None else None
    for tile in head_tiles(head, vocab_chunk, scratch, "weight"):
        ids = slice(tile.start, tile.start + len(tile.weight))
        bias_sum = torch.zeros(len(tile.weight), dtype=scratch.dtype, device=hidden.device)
        weight_sum = None if grad_weight is None else _weight_sum(grad_weight[ids], scratch)
        for tokens in token_slices(len(hidden), token_chunk):
            logits = logit_tile(tile, hidden[tokens], unit, scratch)
            slope = _slope(logits, head, unit, scratch)
            pulled = logits.sub_(normaliser[tokens]).exp2_().mul_(-grad[tokens])
            add_at_targets(pulled, targets[tokens] - tile.start, grad[tokens])
            if slope is not None:
                pulled.mul_(slope)
            if grad_bias is not None:
                bias_sum.add_(pulled.sum(1))
            if grad_hidden is not None:
                add_product(grad_hidden[tokens], pulled.T, tile.weight, head.scale, scratch)
            if weight_sum is not None:
                add_product(weight_sum, pulled, hidden[tokens], head.scale, scratch)
        if grad_weight is not None and weight_sum is not None and grad_weight.dtype != scratch.dtype:
            grad_weight[ids] = weight_sum
        if grad_bias is not None:
            grad_bias[ids] = bias_sum
    return None if grad_hidden is None else grad_hidden.to(hidden.dtype), grad_weight, grad_bias


def _forward_with_direction(
    hidden: Tensor, head: Head, targets: Tensor, temperature: float, chunks: Chunks, scratch: Scratch
) -> tuple[Tensor, Tensor]:
    """Log-probs [N] and d log-prob / d hidden [N, D] in one pass of two products."""
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, chunks.vocab, chunks.tokens)
    unit, count = LOG2_E / temperature, len(hidden)
    maximum = torch.full((count,), MASKED, dtype=scratch.dtype, device=hidden.device)
    total, target = torch.zeros_like(maximum), torch.zeros_like(maximum)
    expected = torch.zeros(hidden.shape, dtype=scratch.dtype, device=hidden.device)
    for tile in head_tiles(head, vocab_chunk, scratch, "weight"):
        for tokens in token_slices(count, token_chunk):
            logits = logit_tile(tile, hidden[tokens], unit, scratch)
            take_target(target[tokens], logits, targets[tokens] - tile.start)
            slope = _slope(logits, head, unit, scratch)
            rescale = torch.exp2(raise_max(maximum[tokens], logits))
            weights = logits.sub_(maximum[tokens]).exp2_()
            total[tokens] = total[tokens] * rescale + weights.sum(0)
            if slope is not None:
                weights.mul_(slope)
            expected[tokens].mul_(rescale[:, None])
            add_product(expected[tokens], weights.T, tile.weight, 1.0, scratch)
    logprobs = LN_2 * (target - maximum - torch.log2(total))
    logprobs = torch.where(target < MASKED / 1e10, -torch.inf, logprobs)
    sampled = head.weight[targets].to(scratch.dtype)
    if head.softcap is not None:
        sampled.mul_((1 - (target / (head.softcap * unit)).square())[:, None])
    direction = expected.div_(total[:, None]).neg_().add_(sampled).mul_(head.scale / temperature)
    return logprobs, direction


def add_product(total: Tensor, left: Tensor, right: Tensor, factor: float, scratch: Scratch) -> None:
    """total += factor * left @ right, in place, with float32 sums from any dtype of `right`."""
    if native_product(right, scratch):
        total.add_(torch.mm(left.to(right.dtype), right, out_dtype=torch.float32), alpha=factor)
    else:
        total.addmm_(left, right.to(total.dtype), alpha=factor)


def add_at_targets(tile: Tensor, rows: Tensor, values: Tensor) -> None:
    """tile[rows[i], i] += values[i] for the tokens whose row lies in this tile [v, n]."""
    inside = (rows >= 0) & (rows < tile.shape[0])
    rows = rows.clamp(0, tile.shape[0] - 1)
    tile.scatter_add_(0, rows[None], torch.where(inside, values, 0.0)[None])


def _slope(logits: Tensor, head: Head, unit: float, scratch: Scratch) -> Tensor | None:
    """1 - tanh^2 [v, n] of the soft-capping, read back from capped logits; None without one."""
    if head.softcap is None:
        return None
    slope = torch.square(logits, out=scratch.like("slope", logits))
    return slope.mul_(-1 / (head.softcap * unit) ** 2).add_(1.0)


def _weight_sum(grad_rows: Tensor, scratch: Scratch) -> Tensor:
    """Where a tile's weight gradient is summed: in place if the dtype allows, else in a buffer of one tile."""
    if grad_rows.dtype == scratch.dtype:
        return grad_rows.zero_()
    return scratch.take("weight_sum", *grad_rows.shape).zero_()
