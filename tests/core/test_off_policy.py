"""The factors of off-policy correction by hand, against a float64 loop, and where they are exactly 1."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgpo_cli.core.off_policy import KINDS, OffPolicy, effective_share, off_policy

LOG2 = math.log(2.0)


def of(old: list[list[float]], drawn: list[list[float]], mask: list[list[bool]], kind: str, cap: float) -> OffPolicy:
    return off_policy(torch.tensor(old), torch.tensor(drawn), torch.tensor(mask), kind=kind, cap=cap)


# Ratios of the first rollout: 4, 1/4, 3/2. Of the second: 1/2, 1, and a token that does not count.
OLD = [[-1.0, -1.0 - 2 * LOG2, -1.0], [-2.0, -3.0, -9.0]]
DRAWN = [[-1.0 - 2 * LOG2, -1.0, -1.0 - math.log(1.5)], [-2.0 + LOG2, -3.0, 0.0]]
MASK = [[True, True, True], [True, True, False]]


@pytest.mark.parametrize(
    ("kind", "factors", "corrected"),
    [
        ("token", [[2.0, 0.25, 1.5], [0.5, 1.0, 1.0]], [[True, False, False], [False, False, False]]),
        # 4 * 1/4 * 3/2 = 1.5; 1/2 * 1 = 0.5
        ("sequence", [[1.5, 1.5, 1.5], [0.5, 0.5, 1.0]], [[False, False, False], [False, False, False]]),
        ("mask", [[0.0, 0.0, 1.5], [0.5, 1.0, 1.0]], [[True, True, False], [False, False, False]]),
    ],
)
def test_factors_by_hand(kind: str, factors: list[list[float]], corrected: list[list[bool]]) -> None:
    found = of(OLD, DRAWN, MASK, kind, 2.0 + 1e-6)  # the ratio of 1/2 lies on the bound of [1/2, 2]
    assert torch.allclose(found.factors, torch.tensor(factors), atol=1e-5)
    assert found.corrected.tolist() == corrected


def test_the_product_over_a_rollout_is_cut_as_a_whole() -> None:
    found = of(OLD, DRAWN, MASK, "sequence", 1.2)
    assert torch.allclose(found.factors, torch.tensor([[1.2, 1.2, 1.2], [0.5, 0.5, 1.0]]))
    assert found.corrected.tolist() == [[True, True, True], [False, False, False]]


def loop(old: Tensor, drawn: Tensor, mask: Tensor, kind: str, cap: float) -> Tensor:
    """Token by token, in float64."""
    factors = torch.ones(old.shape, dtype=torch.float64)
    for row in range(old.shape[0]):
        ratios = {t: math.exp(float(old[row, t]) - float(drawn[row, t])) for t in range(old.shape[1]) if mask[row, t]}
        for at, ratio in ratios.items():
            if kind == "sequence":
                ratio = math.prod(ratios.values())
            if kind == "mask":
                factors[row, at] = ratio if 1 / cap <= ratio <= cap else 0.0
            else:
                factors[row, at] = min(ratio, cap)
    return factors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cap", [1.1, 2.0, 5.0])
def test_factors_agree_with_a_loop_in_float64(kind: str, cap: float) -> None:
    generator = torch.Generator().manual_seed(3)
    old = -3 * torch.rand(6, 9, generator=generator)
    drawn = old + 0.4 * torch.randn(6, 9, generator=generator)
    mask = torch.arange(9) < torch.tensor([[9], [0], [4], [1], [7], [9]])
    found = off_policy(old, drawn, mask, kind=kind, cap=cap)
    assert torch.allclose(found.factors.double(), loop(old, drawn, mask, kind, cap), rtol=1e-6)
    assert not bool(found.corrected[~mask].any())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_log_probs_give_exactly_one(kind: str) -> None:
    logprobs = -10 * torch.rand(5, 7, generator=torch.Generator().manual_seed(1))
    found = off_policy(logprobs, logprobs.clone(), torch.ones(5, 7, dtype=torch.bool), kind=kind, cap=1.0 + 1e-6)
    assert torch.equal(found.factors, torch.ones(5, 7))
    assert not bool(found.corrected.any())


@pytest.mark.parametrize(("kind", "factor"), [("token", 2.0), ("sequence", 2.0), ("mask", 0.0)])
def test_a_token_that_the_engine_found_impossible_stays_within_the_cap(kind: str, factor: float) -> None:
    found = of([[-1.0]], [[-math.inf]], [[True]], kind, 2.0)
    assert found.factors.tolist() == [[factor]]
    assert found.corrected.tolist() == [[True]]


def test_padding_does_not_reach_a_factor() -> None:
    old, drawn = torch.tensor([[-1.0, math.nan]]), torch.tensor([[-1.5, -math.inf]])
    found = off_policy(old, drawn, torch.tensor([[True, False]]), kind="sequence", cap=2.0)
    assert torch.allclose(found.factors, torch.tensor([[math.exp(0.5), 1.0]]))


def test_no_gradient_goes_through_a_factor() -> None:
    old, mask = torch.tensor([[-1.0]], requires_grad=True), torch.tensor([[True]])
    assert not off_policy(old, torch.tensor([[-1.2]]), mask, kind="token", cap=2.0).factors.requires_grad


@pytest.mark.parametrize(
    ("factors", "share"),
    [([0.7, 0.7, 0.7], 1.0), ([1.0, 0.0, 0.0, 0.0], 0.25), ([1.0, 2.0], 9 / 10), ([0.0, 0.0], 0.0)],
)
def test_effective_share_by_hand(factors: list[float], share: float) -> None:
    assert effective_share(torch.tensor(factors)) == pytest.approx(share)
