"""Adam's direction is what torch's Adam does, and cosines of vectors in parts are those of the whole."""

from __future__ import annotations

import math

import pytest
import torch

from dgpo_cli.core.directions import adam_direction, cosine, inner_products


def test_the_direction_is_what_torch_moves_the_weights_by() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    adam = torch.optim.AdamW([weight], lr=1e-2, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.0)
    for step in range(4):
        state = adam.state.get(weight)
        mean, square = (
            state[name].clone() if state else torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")
        )
        weight.grad = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        expected = adam_direction(weight.grad, mean, square, float(step), betas=(0.9, 0.99), eps=1e-8)
        before = weight.detach().clone()
        adam.step()
        torch.testing.assert_close((before - weight.detach()) / 1e-2, expected, rtol=1e-9, atol=1e-9)


def test_a_first_direction_is_the_sign_of_the_gradient() -> None:
    zero = torch.zeros(3)
    direction = adam_direction(torch.tensor([2.0, -0.1, 0.0]), zero, zero, 0.0, betas=(0.9, 0.999), eps=1e-12)
    assert direction.tolist() == pytest.approx([1.0, -1.0, 0.0])


def test_the_cosine_by_hand() -> None:
    # (3, 4) and (4, 3): 24 / 25
    assert cosine(inner_products([(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0]), 1.0)])) == pytest.approx(0.96)
    one = torch.tensor([1.0])
    parts = [(one, one, 3.0), (one, -one, 1.0)]  # (1, 1, 1, 1) and (1, 1, 1, -1), of which three are one watched weight
    assert cosine(inner_products(parts)) == pytest.approx(0.5)
    assert cosine(inner_products([(one, one, 1.0)])) == 1.0
    assert cosine(inner_products([(one, 0 * one, 1.0)])) is None
    assert cosine(inner_products([])) is None


def test_a_part_has_no_size_of_its_own_in_the_cosine_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(1)
    a, b = torch.randn(40, generator=generator), torch.randn(40, generator=generator)
    whole = float(torch.nn.functional.cosine_similarity(a.double(), b.double(), dim=0))
    parts = cosine(inner_products((a[i::3], b[i::3], 1.0) for i in range(3)))
    assert parts is not None
    assert math.isclose(parts, whole, rel_tol=1e-12)
