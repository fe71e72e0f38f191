"""The clipped loss by hand, and how tokens are averaged."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dgpo_cli.core.policy_loss import PolicyLoss, importance_ratio, policy_loss, token_weights


def loss_of(ratio: float, advantage: float, **options: object) -> PolicyLoss:
    """The loss of one token whose probability changed by `ratio`."""
    logprobs = torch.tensor([[math.log(ratio) - 1.0]], requires_grad=True)
    settings = {"clip_low": 0.2, "clip_high": 0.28} | options
    one = torch.ones(1, 1)
    return policy_loss(
        logprobs,
        torch.tensor([[-1.0]]),
        torch.tensor([advantage]),
        one,
        one.bool(),
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, -2.2),  # inside: -rho A
        (1.5, 2.0, -2.56),  # clipped above at 1.28
        (0.5, 2.0, -1.0),  # below, A > 0: the minimum is the unclipped
        (0.5, -2.0, 1.6),  # clipped below at 0.8
        (1.5, -2.0, 3.0),  # above, A < 0: unclipped
    ],
)
def test_token_loss_by_hand(ratio: float, advantage: float, expected: float) -> None:
    assert float(loss_of(ratio, advantage).token_loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_dual_clip_bounds_the_loss_of_negative_advantages() -> None:
    assert float(loss_of(50.0, -2.0, clip_dual=10.0).token_loss.detach()) == pytest.approx(20.0)
    assert float(loss_of(5.0, -2.0, clip_dual=10.0).token_loss.detach()) == pytest.approx(10.0, rel=1e-5)


def test_clip_fractions_count_where_the_gradient_is_cut() -> None:
    assert bool(loss_of(1.5, 2.0).clipped_high.all())
    assert not bool(loss_of(1.5, -2.0).clipped_high.any())
    assert bool(loss_of(0.5, -2.0).clipped_low.all())


def test_a_factor_multiplies_loss_and_gradient_of_its_token_and_gets_none_itself() -> None:
    logprobs = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    factors = torch.tensor([[0.5, 1.5]], requires_grad=True)
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss = policy_loss(
        logprobs, logprobs.detach(), torch.tensor([2.0]), factors, mask, clip_low=0.2, clip_high=0.2
    ).token_loss
    assert loss.detach().tolist() == [pytest.approx([-1.0, -3.0])]  # - w * 1 * 2
    loss.sum().backward()
    assert factors.grad is None
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [pytest.approx([-1.0, -3.0])]


def test_factors_multiply_each_other_as_credit_and_a_correction_do() -> None:
    """Credit 1.5 of a token whose correction is 0.4, and A = 2: - 1.5 * 0.4 * 2 = -1.2. Its KL stays whole."""
    logprobs = torch.tensor([[-1.0]])
    result = policy_loss(
        logprobs,
        logprobs,
        torch.tensor([2.0]),
        torch.tensor([[1.5]]) * torch.tensor([[0.4]]),
        torch.ones(1, 1, dtype=torch.bool),
        clip_low=0.2,
        clip_high=0.2,
        kl_coef=0.5,
        ref_logprobs=torch.tensor([[-1.0 + math.log(2.0)]]),
    )
    assert float(result.token_loss) == pytest.approx(-1.2 + 0.5 * (1 - math.log(2.0)), rel=1e-5)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_factors_of_one_change_no_bit(level: str) -> None:
    generator = torch.Generator().manual_seed(0)
    old = -3 * torch.rand(4, 6, generator=generator)
    start = old + 0.4 * torch.randn(4, 6, generator=generator)
    mask = torch.arange(6)[None, :] < torch.tensor([6, 3, 1, 5])[:, None]
    advantages = torch.tensor([1.3, -0.7, 0.9, -1.1])
    logprobs, same = start.clone().requires_grad_(), start.clone().requires_grad_()
    loss = policy_loss(
        logprobs, old, advantages, torch.ones(4, 6), mask, clip_low=0.2, clip_high=0.28, ratio_level=level
    ).token_loss
    ratio = importance_ratio(same, old, mask, level=level)
    plain = -torch.minimum(ratio * advantages[:, None], ratio.clamp(0.8, 1.28) * advantages[:, None])
    plain = torch.where(mask, plain, 0.0)
    loss.sum().backward()
    plain.sum().backward()
    assert logprobs.grad is not None
    assert same.grad is not None
    assert torch.equal(loss, plain)
    assert torch.equal(logprobs.grad, same.grad)


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("rollout_mean", 1 / (2 * 2) + 1 / (2 * 1)),  # of the first rollout one token of two is left
        ("token_mean", 2 / 3),
        ("constant", 2 / (2 * 10)),
    ],
)
def test_a_factor_of_zero_leaves_the_denominators(aggregation: str, expected: float) -> None:
    """Two rollouts of 2 and 1 tokens, A = -1 and ratio 1, so each token's loss is its factor: 1 but for the second."""
    mask = torch.tensor([[True, True], [True, False]])
    logprobs = torch.full((2, 2), -1.0)
    loss = policy_loss(
        logprobs,
        logprobs,
        torch.tensor([-1.0, -1.0]),
        torch.tensor([[1.0, 0.0], [1.0, 1.0]]),
        mask,
        clip_low=0.2,
        clip_high=0.2,
    ).token_loss
    weights = token_weights(mask.sum(1), aggregation=aggregation, max_tokens=10)
    assert float((loss * weights[:, None]).sum()) == pytest.approx(expected)


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_factors_change_the_gradient_under_both_ratio_levels(level: str) -> None:
    gradients: list[Tensor] = []
    for factors in (torch.ones(1, 2), torch.tensor([[0.5, 1.5]])):
        logprobs = torch.tensor([[-1.0, -1.1]], requires_grad=True)
        mask = torch.ones(1, 2, dtype=torch.bool)
        policy_loss(
            logprobs,
            torch.tensor([[-1.05, -1.05]]),
            torch.tensor([1.0]),
            factors,
            mask,
            clip_low=0.2,
            clip_high=0.2,
            ratio_level=level,
        ).token_loss.sum().backward()
        assert logprobs.grad is not None
        gradients.append(logprobs.grad)
    assert not torch.allclose(gradients[0], gradients[1])


def test_sequence_ratio_is_the_geometric_mean() -> None:
    logprobs, old = torch.tensor([[-1.0, -2.0, 9.0]]), torch.tensor([[-1.2, -2.4, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert importance_ratio(logprobs, old, mask, level="sequence")[0, :2].tolist() == pytest.approx([math.exp(0.3)] * 2)


def test_log_ratio_is_clamped() -> None:
    ratio = importance_ratio(torch.tensor([[0.0]]), torch.tensor([[-500.0]]), torch.ones(1, 1, dtype=torch.bool))
    assert float(ratio) == pytest.approx(math.exp(20.0), rel=1e-5)


def test_kl_adds_k3_with_its_own_gradient() -> None:
    # policy -1, reference -1 + ln 2: k3 = 1 - ln 2, d k3 / d logp = 1 - exp(ref - p) = -1
    logprobs = torch.tensor([[-1.0]], requires_grad=True)
    one = torch.ones(1, 1)
    result = policy_loss(
        logprobs,
        logprobs.detach(),
        torch.tensor([0.0]),
        one,
        one.bool(),
        clip_low=0.2,
        clip_high=0.2,
        kl_coef=0.5,
        ref_logprobs=torch.tensor([[-1.0 + math.log(2.0)]]),
    )
    assert float(result.token_loss.detach()) == pytest.approx(0.5 * (1 - math.log(2.0)), rel=1e-5)
    result.token_loss.sum().backward()
    assert float(logprobs.grad) == pytest.approx(-0.5, rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [
        ("rollout_mean", [1 / (3 * 2), 1 / (3 * 4), 1 / 3]),
        ("token_mean", [1 / 6] * 3),
        ("constant", [1 / (3 * 10)] * 3),
    ],
)
def test_token_weights_by_hand(aggregation: str, expected: list[float]) -> None:
    # The third rollout has no counted token and keeps its place in B'.
    weights = token_weights(torch.tensor([2, 4, 0]), aggregation=aggregation, max_tokens=10)
    assert weights.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("advantage", [2.0, -2.0])
@pytest.mark.parametrize(("ratio", "capped"), [(1.5, 1.5), (0.1, 0.1), (8.0, 5.0)])
def test_a_detached_ratio_weighs_log_p_and_no_token_loses_its_gradient(
    ratio: float, capped: float, advantage: float
) -> None:
    """l = - min(rho, 5) A log p, d l / d log p = - min(rho, 5) A."""
    logprobs = torch.tensor([[-1.0]], requires_grad=True)
    one = torch.ones(1, 1)
    settings = {"clip_low": 1.0, "clip_high": 4.0, "detached_ratio": True}
    old = torch.tensor([[-1.0 - math.log(ratio)]])
    result = policy_loss(logprobs, old, torch.tensor([advantage]), one, one.bool(), **settings)  # type: ignore[arg-type]
    result.token_loss.sum().backward()
    assert float(result.token_loss.detach()) == pytest.approx(capped * advantage, rel=1e-5)
    assert float(logprobs.grad) == pytest.approx(-capped * advantage, rel=1e-5)  # type: ignore[arg-type]
    assert bool(result.clipped_high.all()) is (ratio > 5.0)
    assert not bool(result.clipped_low.any())


@pytest.mark.parametrize(
    ("old", "now", "advantage", "trains"),
    [
        (0.5, 0.64, 1.0, True),
        (0.5, 0.66, 1.0, False),  # 0.16 up
        (0.5, 0.2, 1.0, True),  # far down, and A drives it up again
        (0.5, 0.36, -1.0, True),
        (0.5, 0.34, -1.0, False),
        (0.5, 0.9, -1.0, True),
        (0.001, 0.01, 1.0, True),  # tenfold, and yet a small change
    ],
)
def test_a_token_trains_until_its_probability_has_moved_far_in_the_direction_of_its_advantage(
    old: float, now: float, advantage: float, trains: bool
) -> None:
    logprobs = torch.tensor([[math.log(now)]], requires_grad=True)
    one = torch.ones(1, 1)
    result = policy_loss(
        logprobs,
        torch.tensor([[math.log(old)]]),
        torch.tensor([advantage]),
        one,
        one.bool(),
        clip_low=1.0,
        clip_high=4.0,
        detached_ratio=True,
        max_probability_change=0.15,
    )
    result.token_loss.sum().backward()
    expected = -min(now / old, 5.0) * advantage if trains else 0.0
    assert float(logprobs.grad) == pytest.approx(expected, rel=1e-5)  # type: ignore[arg-type]
    cut = result.clipped_high if advantage > 0 else result.clipped_low
    assert bool(cut.all()) is (not trains or now / old > 5.0)
