"""Where an update goes: Adam's direction for a gradient, and the cosine of two directions over parts of a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def adam_direction(
    gradient: Tensor, mean: Tensor, square: Tensor, steps: float, *, betas: tuple[float, float], eps: float
) -> Tensor:
    """What Adam would move these weights by, up to -lr, if it got this gradient next. float64, any shape.

    mean, square: its two moments after `steps` updates. Weight decay is left out: it does not depend on the gradient.
    """
    gradient, count = gradient.double(), steps + 1
    moved = betas[0] * mean.double() + (1 - betas[0]) * gradient
    size = betas[1] * square.double() + (1 - betas[1]) * gradient.square()
    direction: Tensor = moved / (1 - betas[0] ** count) / ((size / (1 - betas[1] ** count)).sqrt() + eps)
    return direction


def inner_products(parts: Iterable[tuple[Tensor, Tensor, float]]) -> Tensor:
    """a.b, a.a and b.b in float64 [3], summed over parts: two vectors, and how many weights each entry stands for."""
    total = torch.zeros(3, dtype=torch.float64)
    for left, right, stands_for in parts:
        a, b = left.double(), right.double()
        total += stands_for * torch.stack([(a * b).sum(), (a * a).sum(), (b * b).sum()]).cpu()
    return total


def cosine(products: Tensor) -> float | None:
    """a.b / (|a| |b|) of `inner_products`; None if one of them is 0."""
    scale = float(products[1].sqrt() * products[2].sqrt())
    return max(-1.0, min(1.0, float(products[0]) / scale)) if scale > 0 else None
