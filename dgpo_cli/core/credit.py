"""Token-level credit: how a rollout's advantage is spread over its tokens.

    s   = signal * H^kappa        s~ = s | saturate(s) | rank(s) | s against its window
    w   = T * softmax(s~ / tau)   or (1 + a (sigmoid(s~ / tau) - 1/2)) / mean   or (1 + a s~) / mean
    w   = clip(c w) with mean 1   w = 1 + lam (w - 1)                   (noise gate)

Or a hard mask over the batch: the tokens with the largest scores, or with scores within a band, times n / n_kept.

The rule with signal d, kappa 1, no normaliser and tau 0.5 is DGPO's (arXiv 2605.03327) as publicly understood.
Credit is never negative, has mean 1 over the counted tokens of every rollout (a mask: over the batch) and carries no
gradient. Rows are handled one by one at their own length, so padding cannot change a bit. Whatever uses the whole batch
(percentiles, the mean distance) is a number that the caller passes in, so that it can come from all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.core.seeds import uniforms
from dgpo_cli.core.signals import SIGNALS

SATURATION_QUANTILE = 0.8
NOISE_FLOORS = 3.0  # the noise gate opens if the mean distance passes this many numerical floors


@dataclass(frozen=True)
class TokenSignals:
    """What is known of each counted token: float32 [B, T], 0 beyond the mask, without gradient."""

    mask: Tensor  # [B, T] bool, True on the first lengths[i] tokens of a row
    logprobs: Tensor
    entropy: Tensor  # nats
    ref_logprobs: Tensor | None = None
    hellinger: Tensor | None = None  # the squared distance d, in [0, 1]
    grad_norm: Tensor | None = None  # of log p by the logits, in [0, sqrt 2]; None of rollouts that lack it
    first_error: Tensor | None = None  # 1 on the first wrong token of a wrong rollout; None if no answer was read
    alternatives: Tensor | None = None  # [B, T, C] of core/alternatives.py; no gating reads them


def measured(*, has_reference: bool) -> tuple[str, ...]:
    """The fields of `TokenSignals` that a scoring pass fills, in one order: processes add them up by it."""
    return ("logprobs", "entropy", "grad_norm", *(("ref_logprobs", "hellinger") if has_reference else ()))


def gated_score(signals: TokenSignals, *, signal: str, entropy_exponent: float, vocabulary_size: int) -> Tensor:
    """s = signal * H^kappa with H the policy's entropy over log V. Returns [B, T], 0 beyond the mask.

    Raises:
        ValueError: a field that the signal reads was not scored: it may need a reference.
    """
    rule = SIGNALS[signal]
    score = rule.score(*(_scored(signals, name) for name in rule.reads))
    if entropy_exponent:
        normalized: Tensor = (signals.entropy / math.log(vocabulary_size)).clamp(0.0, 1.0)
        score = score * normalized.pow(entropy_exponent)
    gated: Tensor = torch.where(signals.mask, score, 0.0)
    return gated


def _scored(signals: TokenSignals, name: str) -> Tensor:
    values: Tensor | None = getattr(signals, name)
    if values is None:
        raise ValueError(f"{name} was not scored: what is measured from a reference needs one")
    return values


def marked(places: Sequence[int | None], mask: Tensor) -> Tensor:
    """float32 [B, T]: 1 at the place of each row, if it has one and that is counted; 0 elsewhere. mask: [B, T]."""
    marks = torch.zeros(mask.shape)
    for row, place in enumerate(places):
        if place is not None and place < mask.shape[1]:
            marks[row, place] = 1.0
    return marks * mask


def saturate(score: Tensor, half_point: float) -> Tensor:
    """s / (s + q + 1e-12) in [0, 1): scale-free, because the half point q moves with the scores. Any shape."""
    return score / (score + half_point + 1e-12)


def rank(score: Tensor) -> Tensor:
    """Average rank over T - 1, in [0, 1]; ties share their mean rank; 0 for a single token. score: [T]."""
    count = score.numel()
    if count < 2:
        return torch.zeros_like(score)
    _, inverse, counts = torch.unique(score, return_inverse=True, return_counts=True)
    mean_rank = counts.cumsum(0) - (counts + 1) / 2  # of the 0-based ranks that a value covers
    ranks: Tensor = mean_rank[inverse].to(score.dtype) / (count - 1)
    return ranks


def against_window(score: Tensor, temperature: float, window: int) -> Tensor:
    """s - tau log sum_{|k-t| <= window // 2} exp(s_k / tau), in float64: a token beside those around it. score: [T].

    With the softmax after it, w = T e / sum e, e_t = exp(s_t / tau) / sum_window exp(s_k / tau): PEPO's proximal
    weights (arXiv 2609.39402, eq. 6-7) for the entropy in nats, tau 1 and window 101. Both ends are reflected about
    their last token, as often as a short rollout needs it. That the last token is not repeated is our reading.
    """
    count, half = score.numel(), window // 2
    if count == 0:
        return score.double()
    period = max(1, 2 * (count - 1))
    place = torch.arange(-half, count + half).remainder(period)
    around = torch.minimum(place, (period - place) % period if count > 1 else place)
    sharp = score.double() / temperature
    return (sharp - torch.logsumexp(sharp[around].unfold(0, 2 * half + 1, 1), dim=1)) * temperature


def softmax_credit(score: Tensor, temperature: float) -> Tensor:
    """w = T * softmax(s / tau), mean 1. score: [T]; a constant score gives exactly 1; T = 0 gives nothing."""
    if score.numel() == 0:
        return score
    # Without this the rounding of the softmax would leave 1 +- 1e-7 if policy and reference are the same.
    if bool((score == score[0]).all()):
        return torch.ones_like(score)
    return (torch.softmax(score.double() / temperature, dim=0) * score.numel()).float()


def sigmoid_credit(score: Tensor, temperature: float, strength: float) -> Tensor:
    """(1 + strength (sigmoid(s / tau) - 1/2)) over its mean (after arXiv 2603.22446, sec. 6.2). score: [T]."""
    return _mean_one(1.0 + strength * (torch.sigmoid(score.double() / temperature) - 0.5), score)


def linear_credit(score: Tensor, strength: float) -> Tensor:
    """(1 + strength s), at least 0, over its mean. score: [T].

    With s = 1 - p: rare tokens more (arXiv 2603.22117) for a strength a > 0. The weights a p + 1 - a that damp them
    (arXiv 2505.12929) are those of the strength -a.
    """
    return _mean_one(1.0 + strength * score.double(), score)


def _mean_one(weights: Tensor, score: Tensor) -> Tensor:
    """float64 weights as credit: not below 0, mean 1; all 1 if the score is constant or no weight is left."""
    if score.numel() == 0:
        return score
    weights = weights.clamp(min=0.0)
    mean = weights.mean()
    if bool((score == score[0]).all()) or float(mean) <= 0.0:
        return torch.ones_like(score)
    return (weights / mean).float()


def clip_credit(credit: Tensor, low: float, high: float) -> Tensor:
    """clip(c * w, low, high) with c found by bisection so that the mean stays 1.

    Clipping and then renormalising would break the bounds. credit: [T] with mean 1; needs low <= 1 <= high. The mean of
    the clipped weights grows with c, from low to high, so a solution exists.
    """
    if credit.numel() == 0:
        return credit
    weights = credit.double()
    lower, upper = 0.0, high / max(float(weights.min()), 1e-300)
    for _ in range(200):
        middle = (lower + upper) / 2
        if middle in (lower, upper):
            break
        if float((weights * middle).clamp(low, high).mean()) < 1.0:
            lower = middle
        else:
            upper = middle
    return (weights * upper).clamp(low, high).float()


def noise_gate(mean_distance: float, floor: float) -> float:
    """lam = 0 if D = 0 else 1 / (1 + (D0/D)^2), D0 three numerical floors: credit fades if d is rounding noise."""
    if mean_distance <= 0.0:
        return 0.0
    return 1.0 / (1.0 + (NOISE_FLOORS * floor / mean_distance) ** 2)


def top_fraction_credit(score: Tensor, mask: Tensor, fraction: float, *, above_zero: bool = False) -> Tensor:
    """Only the batch's highest-scoring tokens count, all alike (arXiv 2506.01939): w = chosen / share.

    Mean 1 over the batch, not over each rollout. Tokens that tie with the threshold are all taken. score, mask: [B, T].
    above_zero: of these, only tokens with a score above 0.
    """
    values = score[mask]
    if values.numel() == 0:
        return torch.zeros_like(score)
    threshold = values.sort(descending=True).values[max(1, math.ceil(fraction * values.numel())) - 1]
    chosen = (score >= threshold) & mask
    return _kept(chosen & (score > 0) if above_zero else chosen, mask)


def band_credit(score: Tensor, mask: Tensor, low: float, high: float) -> Tensor:
    """Only tokens with low <= score <= high count, all alike: w = kept * n / n_kept over the batch. [B, T] each."""
    return _kept((score >= low) & (score <= high) & mask, mask)


def _kept(chosen: Tensor, mask: Tensor) -> Tensor:
    """Weights of a hard mask with mean 1 over the batch; 1 everywhere if nothing was chosen."""
    kept = int(chosen.sum())
    return chosen.float() * (int(mask.sum()) / kept) if kept else mask.float()


def part_of_gradient(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> Tensor:
    """|rho A| [B, T], and 0 where the clipped loss has no gradient. ratio: [B, T], advantages: [B]."""
    advantage = advantages[:, None].expand_as(ratio)
    cut = ((advantage < 0) & (ratio < 1.0 - clip_low)) | ((advantage > 0) & (ratio > 1.0 + clip_high))
    return torch.where(cut, 0.0, (ratio * advantage).abs())


def permute_credit(credit: Tensor, score: Tensor, seed: int) -> Tensor:
    """Control: the same weights, shuffled. credit: [T]."""
    return credit[torch.from_numpy(np.argsort(uniforms(seed, credit.numel()), kind="stable"))]


def invert_credit(credit: Tensor, score: Tensor, seed: int) -> Tensor:
    """Control: the same weights in reverse rank order: the largest where the smallest was. credit, score: [T].

    Equal weights, as those of a hard mask, are ranked by score; tokens that are equal in both in a random order, so
    that their place in the rollout decides nothing.
    """
    keys = (uniforms(seed, credit.numel()), score.double().numpy(), credit.double().numpy())
    order = torch.from_numpy(np.lexsort(keys))  # the last key is the first to go by
    inverted = torch.empty_like(credit)
    inverted[order] = credit[order.flip(0)]
    return inverted


def misplace_credit(credit: Tensor, score: Tensor, seed: int) -> Tensor:
    """Control: the largest weight changes places with that of another token. credit: [T]."""
    if credit.numel() < 2:
        return credit
    peak = int(credit.argmax())
    other = int(uniforms(seed, 1)[0] * (credit.numel() - 1))
    other += other >= peak
    moved = credit.clone()
    moved[peak], moved[other] = credit[other], credit[peak]
    return moved


Controlled = Callable[[Tensor, Tensor, int], Tensor]  # credit [T], score [T], seed -> credit [T]
CONTROLS: dict[str, Controlled] = {"permute": permute_credit, "misplace": misplace_credit, "invert": invert_credit}


def map_rows(values: Tensor, mask: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply `function(row[:length], i)` to the counted tokens of every row; 0 beyond. values, mask: [B, T]."""
    result = torch.zeros_like(values)
    for row, length in enumerate(mask.sum(dim=1).tolist()):
        result[row, :length] = function(values[row, :length], row)
    return result
