"""Running sums over tiles of the vocabulary, from which log-prob, entropy and distances are read at the end.

Owns the states and how a tile of logits is folded into them. Which tiles, and whose, is `streamed_stats`.

Everything is in half log2 units: a tile holds z = logits * log2(e) / (2 T), so that u = 2^(z - max) is the root of an
unnormalised probability and one exponential serves probability and root. A fold consumes its tile.

The distance is never formed as 1 - sum sqrt(p q), which has lost every digit at d = 1e-7 in float32. `ReferenceSums`
streams the residual R = |u||v| - u.v, every term of which is >= 0; `DeltaSums` streams the variance of expm1(-delta /
2) under the policy, where one head serves both models and delta = z_p - z_q is a product of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from dgpo_cli.core.output_head import LN_2, MASKED, Scratch

_REMOVED = MASKED / 1e10  # below this a target was masked: its log-prob is -inf


@dataclass
class _Sums:
    """Vectors [N], one a token; `part` gives views of some tokens, through which a fold writes."""

    def part(self, tokens: slice) -> Self:
        return type(self)(*(getattr(self, field.name)[tokens] for field in fields(self)))


@dataclass(frozen=True)
class PolicyTile:
    """What a tile of the policy leaves for the fold beside it; before + added is the policy's total after the tile."""

    roots: Tensor  # u [v, n], valid until the next tile
    weights: Tensor  # u^2 [v, n], valid until the next tile
    before: Tensor  # [n], total of the earlier tiles on the new maximum
    added: Tensor  # [n], total of this tile
    drop: Tensor  # [n], old maximum - new maximum, <= 0


@dataclass
class PolicySums(_Sums):
    """max of z; total = sum u^2; weighted = sum u^2 (z - max); target = z of the sampled id.

    squares = sum u^4 without the sampled id. Added and taken out again, a probability near 1 would leave no digit.
    """

    max: Tensor
    total: Tensor
    weighted: Tensor
    target: Tensor
    squares: Tensor

    @classmethod
    def empty(cls, count: int, like: Scratch) -> PolicySums:
        return cls(_full(count, MASKED, like), *(_full(count, 0, like) for _ in range(4)))

    def fold(self, logits: Tensor, rows: Tensor, scratch: Scratch) -> PolicyTile:
        """Add a tile [v, n] whose row rows[i] is token i's sampled id (outside [0, v): in another tile)."""
        take_target(self.target, logits, rows)
        drop = raise_max(self.max, logits)
        logits.sub_(self.max)
        roots = torch.exp2(logits, out=scratch.like("roots", logits))
        weights = torch.square(roots, out=scratch.like("weights", logits))
        rescale = torch.exp2(2 * drop)
        before, added = self.total * rescale, weights.sum(0)
        self.weighted.addcmul_(self.total, drop).mul_(rescale).add_(logits.mul_(weights).sum(0))
        self.total.copy_(before + added)
        squares = clear_target(torch.square(weights, out=logits), rows).sum(0)
        self.squares.mul_(rescale.square()).add_(squares)
        return PolicyTile(roots, weights, before, added, drop)

    def logprobs(self) -> Tensor:
        """log p(sampled id) [N] in nats; -inf for a masked id."""
        return read_logprob(self.target, self.max, self.total)

    def entropy(self) -> Tensor:
        """H = log U - X / U [N] in nats."""
        return torch.log(self.total) - 2 * LN_2 * self.weighted / self.total

    def grad_norm(self) -> Tensor:
        """|d log p(y) / d logits| = sqrt((1 - p_y)^2 + sum_{a != y} p_a^2) = sqrt(1 - 2 p_y + sum_a p_a^2) [N]."""
        return torch.sqrt(self.logprobs().expm1().square() + self.squares / self.total.square())


@dataclass
class ReferenceSums(_Sums):
    """The reference beside a policy, and the residual |u||v| - u.v: for two heads, and where delta does not serve."""

    max: Tensor
    total: Tensor
    target: Tensor
    residual: Tensor

    @classmethod
    def empty(cls, count: int, like: Scratch) -> ReferenceSums:
        return cls(_full(count, MASKED, like), _full(count, 0, like), _full(count, 0, like), _full(count, 0, like))

    def fold(self, logits: Tensor, rows: Tensor, policy: PolicyTile, scratch: Scratch) -> None:
        """Add a tile [v, n] of the reference beside the same tile of the policy."""
        take_target(self.target, logits, rows)
        drop = raise_max(self.max, logits)
        ref_roots = logits.sub_(self.max).exp2_()
        spare = scratch.like("weights", logits)
        added = torch.square(ref_roots, out=spare).sum(0)
        before = self.total * torch.exp2(2 * drop)
        # R1 = 1/2 |u||v| sum (u/|u| - v/|v|)^2, written around u - v |u|/|v|: one pass less, exactly 0 for equal tiles.
        policy_norm, ref_norm = policy.added.sqrt(), added.sqrt()
        both = (policy_norm > 0) & (ref_norm > 0)
        ratio = torch.where(both, policy_norm / ref_norm, 0.0)
        gaps = torch.addcmul(policy.roots, ref_roots, ratio, value=-1, out=spare).square_().sum(0)
        tile_residual = torch.where(both, 0.5 * gaps * (ref_norm / policy_norm), 0.0)
        merged = merge_residual(policy.before, before, policy.added, added)
        self.residual.mul_(torch.exp2(policy.drop + drop)).add_(tile_residual).add_(merged)
        self.total.copy_(before + added)

    def logprobs(self) -> Tensor:
        """log q(sampled id) [N] in nats."""
        return read_logprob(self.target, self.max, self.total)

    def hellinger(self, policy: PolicySums) -> Tensor:
        """d = R / sqrt(U V) [N], in [0, 1]."""
        return (self.residual / (policy.total.sqrt() * self.total.sqrt())).clamp(0.0, 1.0)


@dataclass
class DeltaSums(_Sums):
    """Mean and scatter of g = expm1(-delta / 2) under the policy, one head. target: -delta / 2 of the sampled id."""

    mean: Tensor
    scatter: Tensor
    target: Tensor

    @classmethod
    def empty(cls, count: int, like: Scratch) -> DeltaSums:
        return cls(_full(count, 0, like), _full(count, 0, like), _full(count, 0, like))

    def fold(self, half_delta: Tensor, rows: Tensor, policy: PolicyTile, scratch: Scratch) -> None:
        """Add a tile [v, n] of -delta / 2 (in nats) beside the same tile of the policy.

        The tile's mean is taken out before squaring and tiles merge by their means: with almost all mass on one id the
        plain E g^2 - (E g)^2 cancels.
        """
        take_target(self.target, half_delta, rows)
        gaps = half_delta.expm1_()
        mean = torch.mul(gaps, policy.weights, out=scratch.like("roots", gaps)).sum(0)
        mean = torch.where(policy.added > 0, mean / policy.added, 0.0)
        scatter = gaps.sub_(mean).square_().mul_(policy.weights).sum(0)
        share = policy.added / (policy.before + policy.added)
        between = mean - self.mean
        self.scatter.mul_(torch.exp2(2 * policy.drop)).add_(scatter).add_(between.square() * policy.before * share)
        self.mean.addcmul_(between, share)

    def root(self, policy: PolicySums) -> Tensor:
        """rt = sqrt(E e^-delta) [N] = sqrt((1 + E g)^2 + Var g)."""
        return torch.sqrt((1 + self.mean).square() + self.scatter / policy.total)

    def trusted(self, policy: PolicySums) -> Tensor:
        """Where the sums kept their digits [N]: the two models agree on the normaliser within a factor of 256.

        Elsewhere 1 + E g cancels or e^-delta overflows, and the token belongs to `ReferenceSums`. NaN is not trusted.
        """
        return (self.mean > -0.9375) & (self.root(policy) < 16)

    def logprobs(self, policy: PolicySums) -> Tensor:
        """log q = log p - delta - log E e^-delta [N] in nats; exactly log p for identical models."""
        variance = self.scatter / policy.total
        return policy.logprobs() + 2 * self.target - torch.log1p(self.mean * (2 + self.mean) + variance)

    def hellinger(self, policy: PolicySums) -> Tensor:
        """d = Var g / (rt (rt + 1 + E g)) [N], in [0, 1]."""
        root = self.root(policy)
        return (self.scatter / policy.total / (root * (root + 1 + self.mean))).clamp(0.0, 1.0)


def merge_residual(total: Tensor, ref_total: Tensor, added: Tensor, ref_added: Tensor) -> Tensor:
    """sqrt((U+U1)(V+V1)) - sqrt(U V) - sqrt(U1 V1) [n] without its cancellation. 0 where everything is 0."""
    # Root by root: a product of two small totals would underflow.
    before, after = total.sqrt() * ref_total.sqrt(), added.sqrt() * ref_added.sqrt()
    gap = total.sqrt() * ref_added.sqrt() - added.sqrt() * ref_total.sqrt()
    whole = (total + added).sqrt() * (ref_total + ref_added).sqrt() + before + after
    return torch.where(whole > 0, gap.square() / whole, 0.0)


def raise_max(maximum: Tensor, logits: Tensor) -> Tensor:
    """Raise the running maximum [n] by a tile [v, n], in place; returns old - new [n] (<= 0)."""
    raised = torch.maximum(maximum, logits.amax(0))
    drop = maximum - raised
    maximum.copy_(raised)
    return drop


def take_target(target: Tensor, tile: Tensor, rows: Tensor) -> None:
    """Keep tile[rows[i], i] for the tokens whose row lies in this tile."""
    inside = (rows >= 0) & (rows < tile.shape[0])
    values = tile.gather(0, rows.clamp(0, tile.shape[0] - 1)[None])[0]
    target.copy_(torch.where(inside, values, target))


def clear_target(tile: Tensor, rows: Tensor) -> Tensor:
    """Set tile[rows[i], i] to 0 for the tokens whose row lies in this tile, in place."""
    inside = (rows >= 0) & (rows < tile.shape[0])
    rows = rows.clamp(0, tile.shape[0] - 1)[None]
    return tile.scatter_(0, rows, torch.where(inside, 0.0, tile.gather(0, rows)))


def read_logprob(target: Tensor, maximum: Tensor, total: Tensor) -> Tensor:
    logprobs = 2 * LN_2 * (target - maximum) - torch.log(total)
    return torch.where(target < _REMOVED, -torch.inf, logprobs)


def _full(count: int, value: float, like: Scratch) -> Tensor:
    return torch.full((count,), value, dtype=like.dtype, device=like.device)
