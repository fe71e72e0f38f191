"""One pass over the vocabulary that gives log-prob, entropy, gradient norm and Hellinger distance of N tokens.

Owns the loops: ids outside, tokens inside, so that each tile of a low-precision head is cast once. Memory is a few
tiles and a few [N] vectors, whatever N. The sums are `running_stats`; on a GPU `triton_fold` takes the tiles into them.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.output_head import (
    LOG2_E,
    MASKED,
    Head,
    Scratch,
    head_tiles,
    logit_tile,
    native_product,
    product,
    tile_shape,
    token_slices,
)
from dgpo_cli.core.running_stats import DeltaSums, PolicySums, ReferenceSums

_LOGITS_AT_ONCE = 2**21


@dataclass(frozen=True)
class Chunks:
    """Size of a tile; None is the best known for the device."""

    vocab: int | None = None
    tokens: int | None = None


def stream_policy(
    hidden: Tensor, head: Head, targets: Tensor, temperature: float, chunks: Chunks, scratch: Scratch
) -> PolicySums:
    """Sums of one model over all tiles: hidden [N, D], targets [N]."""
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, chunks.vocab, chunks.tokens)
    unit = LOG2_E / 2 / temperature
    policy = PolicySums.empty(len(hidden), scratch)
    for tile in head_tiles(head, vocab_chunk, scratch, "weight"):
        for tokens in token_slices(len(hidden), token_chunk):
            if triton_folds(hidden, scratch):
                logits = product(tile.weight, hidden[tokens], scratch)
                fold_tiles(logits, tile, targets[tokens], policy.part(tokens), unit)
                continue
            logits = logit_tile(tile, hidden[tokens], unit, scratch)
            policy.part(tokens).fold(logits, targets[tokens] - tile.start, scratch)
    return policy


def stream_pair(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    ref_hidden: Tensor,
    ref_head: Head,
    temperature: float,
    chunks: Chunks,
    scratch: Scratch,
) -> tuple[PolicySums, ReferenceSums]:
    """Sums of the policy and of a reference with a head of its own (or one whose delta does not serve)."""
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, chunks.vocab, chunks.tokens)
    unit = LOG2_E / 2 / temperature
    policy, reference = PolicySums.empty(len(hidden), scratch), ReferenceSums.empty(len(hidden), scratch)
    tiles = head_tiles(head, vocab_chunk, scratch, "weight")
    ref_tiles = head_tiles(ref_head, vocab_chunk, scratch, "ref_weight")
    for tile, ref_tile in zip(tiles, ref_tiles, strict=True):
        for tokens in token_slices(len(hidden), token_chunk):
            rows = targets[tokens] - tile.start
            if triton_folds(hidden, scratch):
                logits = product(tile.weight, hidden[tokens], scratch)
                ref_logits = product(ref_tile.weight, ref_hidden[tokens], scratch, name="ref_logits")
                sums = (policy.part(tokens), unit, ref_logits, ref_tile, reference.part(tokens))
                fold_tiles(logits, tile, targets[tokens], *sums)
                continue
            folded = policy.part(tokens).fold(logit_tile(tile, hidden[tokens], unit, scratch), rows, scratch)
            ref_logits = logit_tile(ref_tile, ref_hidden[tokens], unit, scratch)
            reference.part(tokens).fold(ref_logits, rows, folded, scratch)
    return policy, reference


def stream_shared(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    ref_hidden: Tensor,
    temperature: float,
    chunks: Chunks,
    scratch: Scratch,
) -> tuple[PolicySums, DeltaSums]:
    """Sums of the policy and of its difference to a reference under the same head, which must have no softcap.

    The second product is of h_p - h_q, subtracted in float32: the difference of the logits without their rounding.
    """
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, chunks.vocab, chunks.tokens)
    unit = LOG2_E / 2 / temperature
    policy, delta = PolicySums.empty(len(hidden), scratch), DeltaSums.empty(len(hidden), scratch)
    for tile in head_tiles(head, vocab_chunk, scratch, "weight"):
        for tokens in token_slices(len(hidden), token_chunk):
            rows = targets[tokens] - tile.start
            folded = policy.part(tokens).fold(logit_tile(tile, hidden[tokens], unit, scratch), rows, scratch)
            moved = hidden[tokens].to(scratch.dtype) - ref_hidden[tokens].to(scratch.dtype)
            half_delta = product(tile.weight, moved, scratch, -head.scale / 2 / temperature)
            delta.part(tokens).fold(half_delta, rows, folded, scratch)
    return policy, delta


def fold_logits(
    logits: Tensor, targets: Tensor, ref_logits: Tensor | None, temperature: float, scratch: Scratch
) -> tuple[PolicySums, ReferenceSums | None]:
    """The same sums from logits [N, V] that some model computed itself, as one tile a chunk of tokens."""
    count, vocab_size = logits.shape
    unit = LOG2_E / 2 / temperature
    policy = PolicySums.empty(count, scratch)
    reference = None if ref_logits is None else ReferenceSums.empty(count, scratch)
    token_chunk = max(1, _LOGITS_AT_ONCE // max(1, vocab_size))
    for tokens in token_slices(count, token_chunk):
        rows = targets[tokens]
        folded = policy.part(tokens).fold(_scaled(logits[tokens], unit, scratch), rows, scratch)
        if reference is not None and ref_logits is not None:
            reference.part(tokens).fold(_scaled(ref_logits[tokens], unit, scratch), rows, folded, scratch)
    return policy, reference


def triton_folds(hidden: Tensor, scratch: Scratch) -> bool:
    """Whether the Triton kernel takes the tiles of this device and dtype."""
    return hidden.is_cuda and scratch.dtype == torch.float32 and find_spec("triton") is not None


def fold_tiles(*tiles_and_sums: Any) -> None:
    """`triton_fold.fold_tiles`, imported at the first use: Triton is not installed everywhere."""
    from dgpo_cli.core.triton_fold import fold_tiles as kernel

    kernel(*tiles_and_sums)


def delta_serves(hidden: Tensor, head: Head, scratch: Scratch) -> bool:
    """Whether `stream_shared` is exact here: no softcap between product and logits, and a product of float32 inputs.

    h_p - h_q in bf16 would be rounded before a product that the GPU takes in bf16.
    """
    return head.softcap is None and not (native_product(head.weight, scratch) and hidden.dtype == head.weight.dtype)


def same_head(head: Head, other: Head) -> bool:
    """Whether two heads hold the same numbers: the same object, or a copy. Different ones are told apart early."""
    if head is other:
        return True
    if (head.softcap, head.scale) != (other.softcap, other.scale) or (head.bias is None) != (other.bias is None):
        return False
    if head.bias is not None and other.bias is not None and not torch.equal(head.bias, other.bias):
        return False
    weight, other_weight = head.weight, other.weight
    if weight.dtype != other_weight.dtype or weight.shape != other_weight.shape or weight.device != other_weight.device:
        return False
    if weight.data_ptr() == other_weight.data_ptr() and weight.stride() == other_weight.stride():
        return True
    step = max(1, weight.shape[0] // 64)
    return torch.equal(weight[::step], other_weight[::step]) and torch.equal(weight, other_weight)


def _scaled(logits: Tensor, unit: float, scratch: Scratch) -> Tensor:
    """A copy of logits [n, V] in half log2 units as a tile [V, n], with -inf replaced."""
    rows, columns = logits.shape
    tile = scratch.take("logits", rows, columns).copy_(logits)
    return tile.clamp_(min=MASKED).mul_(unit).T
