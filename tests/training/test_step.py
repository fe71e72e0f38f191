"""The records of a step, in numbers worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from step_factory import MAX_TOKENS, batch, options

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.core.policy_loss import PolicyLoss
from dgpo_cli.models.microbatch import microbatch_of
from dgpo_cli.training.step import Objective, Tally, merged


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [list(range(12))]),
        (2, [[0, 1, 2, 3, 4, 5, 6, 7], [8, 9, 10, 11]]),  # a group stays whole: two and one
        (5, [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]),  # there are three groups
    ],
)
def test_minibatches_are_whole_groups_in_draw_order(count: int, expected: list[list[int]]) -> None:
    assert batch([0.0] * 12).minibatches(count) == expected


@pytest.mark.parametrize(
    ("policy_step", "drawn", "expected"),
    [
        (3, [3, 3, 3, 3], False),
        (3, [3, 2, 3, 3], True),
        (3, [None, None, None, None], False),  # who drew them does not say
        (0, [None, 0, 0, 0], False),
        (
            None,
            [3, 3, 3, 3],
            True,
        ),  # the batch does not say which policy it trains: no reason to trust they are the same
        (None, [None, None, None, None], False),
    ],
)
def test_one_rollout_of_another_policy_is_enough(
    policy_step: int | None, drawn: list[int | None], expected: bool
) -> None:
    step = batch([1.0, -1.0, 0.5, -0.5])
    rollouts = [replace(rollout, policy_step=at) for rollout, at in zip(step.rollouts, drawn, strict=True)]
    assert replace(step, rollouts=rollouts, policy_step=policy_step).drawn_by_another is expected


def objective(kl_coef: float) -> Objective:
    """Of four rollouts the second has no counted token and the third no advantage."""
    algo, gating = options("grpo")
    algorithm = Algorithm(replace(algo, kl_coef=kl_coef), gating, max_completion_tokens=MAX_TOKENS)
    return Objective(algorithm, batch([1.0, 1.0, 0.0, -2.0], [3, 0, 2, 4]), 0.0, 400)


def test_rows_that_can_move_no_weight_are_not_trained() -> None:
    assert objective(kl_coef=0.0).trained([0, 1, 2, 3]) == [0, 3]
    assert objective(kl_coef=0.1).trained([0, 1, 2, 3]) == [0, 2, 3]  # by the penalty
    assert objective(kl_coef=0.1).trained([1]) == []


def test_a_loss_has_two_terms_if_there_is_a_penalty() -> None:
    assert objective(kl_coef=0.0).terms() == {}
    terms = objective(kl_coef=0.1).terms()
    assert list(terms) == ["policy", "kl"]
    assert terms["policy"].trained([0, 1, 2, 3]) == [0, 3]
    assert terms["policy"].batch.advantages.tolist() == [1.0, 1.0, 0.0, -2.0]
    assert terms["kl"].trained([0, 1, 2, 3]) == [0, 2, 3]
    assert terms["kl"].batch.advantages.tolist() == [0.0] * 4


def test_a_tally_counts_the_tokens_of_its_micro_batches() -> None:
    """A row of 7 + 2 and one of 6 + 1 tokens, padded to 9: 18 positions, 2 of them pads, 3 counted tokens."""
    step = batch([1.0, -1.0, 0.0, 0.0], [1, 1, 2, 1])
    micro = microbatch_of(step.rollouts, [2, 1], step.lengths, 0)
    ratio = torch.tensor([[1.25, 0.5], [1.0, 9.0]])  # the 9 is no counted token
    no, yes = torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[False, True], [False, False]])
    kl = torch.tensor([[0.5, 0.25], [0.125, 7.0]])
    tally = Tally()
    tally.add(micro, PolicyLoss(ratio, ratio, yes, no, kl), 0.75)
    tally.add(micro, PolicyLoss(ratio, ratio, no, yes, kl), -0.5)
    assert (tally.loss, tally.tokens, tally.positions, tally.padding) == (0.25, 6, 36, 4)
    assert (tally.clipped_low, tally.clipped_high) == (1, 1)
    assert tally.ratio_error == pytest.approx(2 * (0.25 + 0.5))
    assert [values.tolist() for values in tally.kl_values] == [[0.5, 0.25, 0.125]] * 2


def test_over_the_updates_of_a_step_the_loss_is_a_mean_and_the_rest_are_sums() -> None:
    one = Tally(loss=1.0, tokens=3, clipped_low=1, positions=10, padding=2, kl_values=[torch.tensor([0.5])])
    two = Tally(loss=-4.0, tokens=5, clipped_high=2, positions=20, padding=1, kl_values=[torch.tensor([0.25])])
    total = merged([one, two])
    assert total.loss == -1.5
    assert (total.tokens, total.clipped_low, total.clipped_high) == (8, 1, 2)
    assert (total.positions, total.padding) == (30, 3)
    assert torch.cat(total.kl_values).tolist() == [0.5, 0.25]
