"""How much credit is really redistributed: the numbers that a step logs beside its loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

HIGH_QUANTILE = 0.8  # of the batch: above it d, or H, is called high


def quantile(values: Tensor, q: float) -> float:
    """The q-quantile with linear interpolation; NaN for no values. torch.quantile stops at 16 M values. values: [n]."""
    count = values.numel()
    if count == 0:
        return float("nan")
    ordered = values.double().sort().values
    position = q * (count - 1)
    low = int(position)
    high = min(low + 1, count - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (position - low))


def credit_spread(rows: list[Tensor]) -> dict[str, float]:
    """`credit/*` over rollouts: rows are the credits [T_i] of those that carry a gradient. Empty for none."""
    rows = [row.double() for row in rows if row.numel()]
    if not rows:
        return {}
    weights = pad_sequence(rows, batch_first=True)  # [B, T]
    counts = torch.tensor([row.numel() for row in rows], dtype=torch.float64)
    padding = torch.arange(weights.shape[1]) >= counts[:, None]
    ascending = weights.masked_fill(padding, math.inf).sort(dim=1).values.masked_fill(padding, 0.0)
    descending = weights.masked_fill(padding, -math.inf).sort(dim=1, descending=True).values.masked_fill(padding, 0.0)
    tokens = torch.cat(rows)
    return {
        "credit/ess": float(_effective_sample_share(weights, counts).mean()),
        "credit/gini": float(_gini(ascending, counts).mean()),
        "credit/top20": float(_top_share(descending, counts).mean()),
        "credit/std": float(tokens.std(unbiased=False)),
        "credit/max": float(tokens.max()),
    }


def _effective_sample_share(weights: Tensor, counts: Tensor) -> Tensor:
    """(sum w)^2 / (T sum w^2) of rollouts [B]: 1 = uniform, 1/T = all on one token; 0 where no token counts."""
    square = (weights**2).sum(dim=1)
    return torch.where(square > 0, weights.sum(dim=1) ** 2 / (counts * square), 0.0)


def _gini(ascending: Tensor, counts: Tensor) -> Tensor:
    """Gini coefficient of the credit of rollouts [B]: 0 = uniform, towards 1 = all on one token."""
    total = ascending.sum(dim=1)
    position = torch.arange(1, ascending.shape[1] + 1, dtype=torch.float64)
    moment = ((2 * position - counts[:, None] - 1) * ascending).sum(dim=1)
    return torch.where(total > 0, moment / (counts * total), 0.0)


def _top_share(descending: Tensor, counts: Tensor, fraction: float = 0.2) -> Tensor:
    """Share of each rollout's credit [B] that its top `fraction` of tokens holds; a part of a token counts in part."""
    total = descending.sum(dim=1)
    places = torch.arange(descending.shape[1], dtype=torch.float64)
    held = descending * (fraction * counts[:, None] - places).clamp(0.0, 1.0)
    return torch.where(total > 0, held.sum(dim=1) / total, fraction)


def correlation(left: Tensor, right: Tensor) -> float | None:
    """Pearson's correlation of two [n] series; None where one of them is constant."""
    a, b = left.double() - left.double().mean(), right.double() - right.double().mean()
    scale = float(a.norm() * b.norm())
    return float(a @ b) / scale if scale > 0 else None


def relative_positions(mask: Tensor) -> Tensor:
    """Place of each counted token in its rollout, from 0 for the first to 1 for the last. mask: [B, T]."""
    places = torch.arange(mask.shape[1], dtype=torch.float64)
    positions: Tensor = places / (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    return positions


def first_error_credit(credit: Tensor, first_error: Tensor, negative: Tensor) -> dict[str, float | None]:
    """What an oracle did: how often it knew the first wrong token, and the mean credit on it; None without any.

    credit, first_error: [B, T], the latter 1 on that token of a rollout and 0 elsewhere. negative: [B], True for A < 0.
    """
    known = first_error.any(dim=1)
    of_negatives = known[negative].double()
    there = credit[first_error > 0].double()
    return {
        "credit/first_error_known": float(of_negatives.mean()) if of_negatives.numel() else None,
        "credit/first_error": float(there.mean()) if there.numel() else None,
    }


def cell_shares(distance: Tensor, entropy: Tensor, credit: Tensor, positive: Tensor) -> dict[str, float]:
    """Shares of tokens and of credit in the four cells of high or low d and H, for each sign of the advantage.

    High means above the batch's 80th percentile. "high d, low H" is the paper's hallucination, "high d, high H" its
    breakthrough. All [n]; `positive` is True where A > 0. Signs without tokens are left out.
    """
    high_d = distance > quantile(distance, HIGH_QUANTILE)
    high_h = entropy > quantile(entropy, HIGH_QUANTILE)
    shares: dict[str, float] = {}
    for sign, chosen in (("pos", positive), ("neg", ~positive)):
        tokens, held = int(chosen.sum()), float(credit[chosen].sum())
        if not tokens:
            continue
        for d_name, d_cell in (("high", high_d), ("low", ~high_d)):
            for h_name, h_cell in (("high", high_h), ("low", ~high_h)):
                cell = chosen & d_cell & h_cell
                name = f"cells/{d_name}_d_{h_name}_h"
                shares[f"{name}/tokens_{sign}"] = int(cell.sum()) / tokens
                shares[f"{name}/credit_{sign}"] = float(credit[cell].sum()) / held if held else 0.0
    return shares
