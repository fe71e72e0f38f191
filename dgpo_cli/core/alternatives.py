"""The likeliest tokens beside the one that was sampled, streamed over tiles of the vocabulary.

Owns what a page shows of the choice that a model had: the top K of the policy p and of the reference q, each with its
probability under both, and the rank of the sampled token in each. It works from the hidden states of a scoring pass, in
a loop of its own over the heads, which runs only if it is asked for: what `token_stats` gives does not depend on it.

A logit here is z / temperature in nats.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from dgpo_cli.core.output_head import (
    MASKED,
    Head,
    Scratch,
    compute_dtype,
    head_tiles,
    logit_tile,
    tile_shape,
    token_slices,
)
from dgpo_cli.core.running_stats import raise_max, take_target

LARGEST_ID = 2**24  # float32 holds every integer below it


@dataclass(frozen=True)
class Top:
    """The K likeliest ids of one model at N tokens, the likeliest first.

    ids        int64 [N, K]
    logprobs   log p of each by the policy, float32 [N, K]
    ref_logprobs  by the reference, [N, K]; None without one
    rank       int64 [N]: 1 + the number of ids that are likelier than the sampled one
    """

    ids: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor | None
    rank: Tensor


@dataclass(frozen=True)
class Alternatives:
    """What the policy, and a reference, would rather have said."""

    policy: Top
    reference: Top | None


@torch.no_grad()
def token_alternatives(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    *,
    count: int,
    temperature: float = 1.0,
    ref_hidden: Tensor | None = None,
    ref_head: Head | None = None,
    vocab_chunk: int | None = None,
    token_chunk: int | None = None,
) -> Alternatives:
    """The `count` likeliest ids at each token, those of the whole vocabulary if it is smaller.

    hidden [N, D] and targets [N] of the policy, ref_hidden [N, D'] of the reference, whose head is `ref_head` or the
    policy's. Ranks are exact for the logits that float32 gives: no estimate, and equal logits share the better rank.
    """
    states = [(hidden.detach(), head)]
    if ref_hidden is not None:
        states.append((ref_hidden.detach(), head if ref_head is None else ref_head))
    chunks = (vocab_chunk, token_chunk)
    with torch.autocast(hidden.device.type, enabled=False):
        tops = _streamed(states, targets, count, temperature, chunks)
        for number, (model_states, model_head) in enumerate(states):
            below = torch.nonzero(tops[number].target < tops[number].logits[-1])[:, 0]
            if len(below):
                above = _likelier(model_states[below], model_head, targets[below], temperature, chunks)
                tops[number].rank[below] = 1 + above
    return _result(tops)


@torch.no_grad()
def alternatives_from_logits(
    logits: Tensor, targets: Tensor, *, count: int, temperature: float = 1.0, ref_logits: Tensor | None = None
) -> Alternatives:
    """The same from logits [N, V] that a model computed itself. The caller passes the tokens in chunks."""
    tiles = [(logits.to(compute_dtype(logits)) / temperature).clamp_min(MASKED).T]
    if ref_logits is not None:
        tiles.append((ref_logits.to(compute_dtype(ref_logits)) / temperature).clamp_min(MASKED).T)
    tops = [_Tops.empty(min(count, len(tiles[0])), len(targets), len(tiles), tiles[0]) for _ in tiles]
    _fold(tops, tiles, 0, targets)
    for top, tile in zip(tops, tiles, strict=True):
        top.rank.copy_(1 + (tile > top.target).sum(0))
    return _result(tops)


@dataclass
class _Tops:
    """Running best of one model at n tokens: [K, n] logits, ids, and the logits that each model gives these ids."""

    logits: Tensor
    ids: Tensor
    by_each: Tensor  # [models, K, n]
    max: Tensor  # [n]
    total: Tensor  # [n], sum of e^(z - max)
    target: Tensor  # [n], the sampled id's logit
    rank: Tensor  # [n]

    @classmethod
    def empty(cls, count: int, tokens: int, models: int, like: Tensor) -> _Tops:
        start = like.new_full((count, tokens), 2 * MASKED)  # below every logit, a masked one too
        ids = torch.zeros(count, tokens, dtype=torch.int64, device=like.device)
        sums = (like.new_full((tokens,), MASKED), like.new_zeros(tokens), like.new_zeros(tokens))
        return cls(start, ids, start.expand(models, -1, -1).clone(), *sums, torch.ones_like(ids[0]))

    def part(self, tokens: slice) -> _Tops:
        return _Tops(*(getattr(self, field.name)[..., tokens] for field in fields(self)))

    def fold(self, tile: Tensor, start: int, tiles: list[Tensor], targets: Tensor) -> None:
        """Add the ids [start, start + v): this model's tile [v, n] of logits, and those of all models."""
        take_target(self.target, tile, targets - start)
        drop = raise_max(self.max, tile)
        self.total.mul_(torch.exp(drop)).add_(torch.exp(tile - self.max).sum(0))
        values, rows = tile.topk(min(len(self.logits), len(tile)), dim=0)
        merged, order = torch.cat([self.logits, values]).topk(len(self.logits), dim=0)
        by_each = [torch.cat([self.by_each[i], one.gather(0, rows)]).gather(0, order) for i, one in enumerate(tiles)]
        self.ids.copy_(torch.cat([self.ids, rows + start]).gather(0, order))
        self.by_each.copy_(torch.stack(by_each))
        self.logits.copy_(merged)


def _fold(tops: list[_Tops], tiles: list[Tensor], start: int, targets: Tensor) -> None:
    for top, tile in zip(tops, tiles, strict=True):
        top.fold(tile, start, tiles, targets)


def _streamed(
    states: list[tuple[Tensor, Head]],
    targets: Tensor,
    count: int,
    temperature: float,
    chunks: tuple[int | None, int | None],
) -> list[_Tops]:
    """One loop over the tiles of all heads. The rank of an id among the first K is known after it."""
    hidden, head = states[0]
    scratches = [Scratch(compute_dtype(one, its.weight), one.device) for one, its in states]
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, *chunks)
    like = torch.empty(0, dtype=scratches[0].dtype, device=hidden.device)
    tops = [_Tops.empty(min(count, head.vocab_size), len(hidden), len(states), like) for _ in states]
    heads = [
        head_tiles(its, vocab_chunk, scratch, "weight") for (_, its), scratch in zip(states, scratches, strict=True)
    ]
    for tiles in zip(*heads, strict=True):
        for tokens in token_slices(len(hidden), token_chunk):
            logits = [
                logit_tile(tile, one[tokens], 1 / temperature, scratch)
                for tile, (one, _), scratch in zip(tiles, states, scratches, strict=True)
            ]
            _fold([top.part(tokens) for top in tops], logits, tiles[0].start, targets[tokens])
    for top in tops:
        top.rank.copy_(1 + (top.logits > top.target).sum(0))
    return tops


def _likelier(
    hidden: Tensor, head: Head, targets: Tensor, temperature: float, chunks: tuple[int | None, int | None]
) -> Tensor:
    """How many ids have a larger logit than the sampled one [n]: two loops of equal tiles, so equal digits."""
    scratch = Scratch(compute_dtype(hidden, head.weight), hidden.device)
    vocab_chunk, token_chunk = tile_shape(head.vocab_size, hidden.device, *chunks)
    target = torch.zeros(len(hidden), dtype=scratch.dtype, device=hidden.device)
    above = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
    for counts in (False, True):
        for tile in head_tiles(head, vocab_chunk, scratch, "weight"):
            for tokens in token_slices(len(hidden), token_chunk):
                logits = logit_tile(tile, hidden[tokens], 1 / temperature, scratch)
                if counts:
                    above[tokens] += (logits > target[tokens]).sum(0)
                else:
                    take_target(target[tokens], logits, targets[tokens] - tile.start)
    return above


def _result(tops: list[_Tops]) -> Alternatives:
    normalisers = [top.max + torch.log(top.total) for top in tops]
    made = []
    for top in tops:
        each = [(top.by_each[i] - normaliser).float().T for i, normaliser in enumerate(normalisers)]
        each = [torch.where(values < MASKED / 1e10, -torch.inf, values) for values in each]
        made.append(Top(top.ids.T, each[0], each[1] if len(each) > 1 else None, top.rank))
    return Alternatives(made[0], made[1] if len(made) > 1 else None)


def width(count: int, *, has_reference: bool) -> int:
    """Columns of `to_columns`."""
    return 2 * (1 + 3 * count) if has_reference else 1 + 2 * count


def to_columns(found: Alternatives) -> Tensor:
    """float32 [N, C]: what a pass gives of its tokens, as one more signal. Of a model: rank, ids, log p, log q."""
    parts = []
    for top in (found.policy, found.reference):
        if top is not None:
            parts += [top.rank[:, None].float(), top.ids.float(), top.logprobs]
            parts += [] if top.ref_logprobs is None else [top.ref_logprobs]
    return torch.cat(parts, dim=1)


def from_columns(columns: Tensor, *, has_reference: bool) -> Alternatives:
    """The inverse of `to_columns`, on the CPU."""
    count = (columns.shape[1] // 2 - 1) // 3 if has_reference else (columns.shape[1] - 1) // 2

    def top(start: int) -> Top:
        rank, rest = columns[:, start].long(), columns[:, start + 1 :]
        ids, logprobs = rest[:, :count].long(), rest[:, count : 2 * count]
        return Top(ids, logprobs, rest[:, 2 * count : 3 * count] if has_reference else None, rank)

    return Alternatives(top(0), top(1 + 3 * count) if has_reference else None)
