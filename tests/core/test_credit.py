"""Credit: hand-worked weights, and the invariants that every gating keeps."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgpo_cli.core import credit as credits
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.diagnostics import quantile
from dgpo_cli.core.signals import SIGNALS, k3


def signals(lengths: list[int], seed: int = 0, width: int | None = None) -> TokenSignals:
    generator = torch.Generator().manual_seed(seed)
    width = width or max(lengths)
    mask = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    values = {
        name: torch.rand((len(lengths), width), generator=generator) * mask
        for name in ("logprobs", "entropy", "ref_logprobs", "hellinger", "grad_norm", "first_error")
    }
    signed = {name: -value if "logprobs" in name else value for name, value in values.items()}
    return TokenSignals(mask, **signed)


def test_softmax_credit_by_hand() -> None:
    # scores 0 and ln 2 at tau 1: softmax 1/3 and 2/3, times T = 2
    weights = credits.softmax_credit(torch.tensor([0.0, math.log(2.0)]), 1.0)
    assert weights.tolist() == pytest.approx([2 / 3, 4 / 3], rel=1e-6)


def test_the_published_rule_by_hand() -> None:
    # d = (1, 0), H = (log V / 2, log V) -> s = (0.5, 0); tau 0.5: exp(1) and 1
    mask = torch.tensor([[True, True]])
    values = TokenSignals(
        mask,
        torch.zeros(1, 2),
        torch.tensor([[math.log(100.0) / 2, math.log(100.0)]]),
        torch.zeros(1, 2),
        torch.tensor([[1.0, 0.0]]),
    )
    score = credits.gated_score(values, signal="hellinger", entropy_exponent=1.0, vocabulary_size=100)
    assert score.tolist() == [pytest.approx([0.5, 0.0], abs=1e-7)]
    weights = credits.softmax_credit(score[0], 0.5)
    assert weights.tolist() == pytest.approx([2 * math.e / (math.e + 1), 2 / (math.e + 1)], rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.floats(0.01, 10))
def test_mean_credit_is_one(scores: list[float], temperature: float) -> None:
    weights = credits.softmax_credit(torch.tensor(scores), temperature)
    assert float(weights.double().mean()) == pytest.approx(1.0, abs=1e-6)
    assert bool((weights >= 0).all())


def test_constant_signal_gives_exactly_one() -> None:
    assert credits.softmax_credit(torch.full((7,), 0.3), 0.1).tolist() == [1.0] * 7


def test_permuting_tokens_permutes_weights() -> None:
    scores = torch.rand(20, generator=torch.Generator().manual_seed(1))
    order = torch.randperm(20, generator=torch.Generator().manual_seed(2))
    left = credits.softmax_credit(scores, 0.2)[order]
    assert torch.allclose(left, credits.softmax_credit(scores[order], 0.2), atol=1e-6)


def test_large_temperature_tends_to_uniform() -> None:
    scores = torch.rand(50, generator=torch.Generator().manual_seed(3))
    spread = [float(credits.softmax_credit(scores, tau).std()) for tau in (0.1, 1.0, 10.0, 1e6)]
    assert spread == sorted(spread, reverse=True)
    assert spread[-1] < 1e-5


def test_kappa_zero_is_the_signal_alone() -> None:
    values = signals([5, 3])
    score = credits.gated_score(values, signal="hellinger", entropy_exponent=0.0, vocabulary_size=50)
    assert values.hellinger is not None
    assert torch.equal(score, values.hellinger)


@pytest.mark.parametrize("signal", sorted(SIGNALS))
def test_every_signal_is_finite_and_none_but_a_signed_one_is_negative(signal: str) -> None:
    score = credits.gated_score(signals([9, 4, 1]), signal=signal, entropy_exponent=1.0, vocabulary_size=50)
    assert bool(torch.isfinite(score).all())
    assert bool((score >= 0).all()) is not SIGNALS[signal].signed


def test_signal_without_its_reference_is_refused() -> None:
    values = signals([3])
    alone = TokenSignals(values.mask, values.logprobs, values.entropy)
    with pytest.raises(ValueError, match="reference"):
        credits.gated_score(alone, signal="hellinger", entropy_exponent=0.0, vocabulary_size=9)


def test_padding_changes_no_bit() -> None:
    narrow, wide = signals([7, 4]), signals([7, 4], width=7)
    padded = TokenSignals(
        *(
            torch.nn.functional.pad(getattr(narrow, name), (0, 23))
            for name in ("mask", "logprobs", "entropy", "ref_logprobs", "hellinger")
        )
    )
    for values in (wide, padded):
        score = credits.gated_score(values, signal="hellinger", entropy_exponent=1.0, vocabulary_size=50)
        weights = credits.map_rows(score, values.mask, lambda row, _: credits.softmax_credit(row, 0.05))
        if values is wide:
            expected = weights
        else:
            assert torch.equal(weights[:, :7], expected)
            assert bool((weights[:, 7:] == 0).all())


def test_rank_shares_ties_and_ends_at_one() -> None:
    # sorted 1 2 2 5 -> ranks 0, 1.5, 1.5, 3 over T - 1 = 3
    assert credits.rank(torch.tensor([2.0, 5.0, 1.0, 2.0])).tolist() == pytest.approx([0.5, 1.0, 0.0, 0.5])
    assert credits.rank(torch.tensor([4.0])).tolist() == [0.0]


def test_saturate_is_half_at_its_half_point_and_scale_free() -> None:
    scores = torch.tensor([0.1, 0.4, 0.2, 0.9, 0.0], dtype=torch.float64)
    half = quantile(scores, 0.8)
    scaled = credits.saturate(scores * 1e-6, quantile(scores * 1e-6, 0.8))
    assert float(credits.saturate(torch.tensor([half]), half)) == pytest.approx(0.5)
    assert torch.allclose(credits.saturate(scores, half), scaled, atol=1e-5)


@pytest.mark.parametrize("bounds", [(0.2, 5.0), (0.0, 1.5), (1.0, 1.0), (0.5, 1.0)])
def test_clip_keeps_bounds_and_mean(bounds: tuple[float, float]) -> None:
    weights = credits.softmax_credit(torch.rand(40, generator=torch.Generator().manual_seed(4)), 0.03)
    assert float(weights.max()) > 5.0
    clipped = credits.clip_credit(weights, *bounds)
    assert float(clipped.min()) >= bounds[0] - 1e-6
    assert float(clipped.max()) <= bounds[1] + 1e-6
    assert float(clipped.double().mean()) == pytest.approx(1.0, abs=1e-6)


def test_noise_gate_is_closed_below_the_floor_and_open_far_above() -> None:
    assert credits.noise_gate(0.0, 0.0) == 0.0
    assert credits.noise_gate(3e-6, 1e-6) == pytest.approx(0.5)
    assert credits.noise_gate(1e-3, 1e-6) > 0.99999
    assert credits.noise_gate(1e-12, 0.0) == 1.0


def test_top_fraction_takes_the_batch_and_has_mean_one_there() -> None:
    mask = torch.tensor([[True] * 5, [True] * 5])
    score = torch.tensor([[9.0, 8.0, 1.0, 1.0, 1.0], [0.5, 0.4, 0.3, 0.2, 0.1]])
    weights = credits.top_fraction_credit(score, mask, 0.2)
    assert weights.tolist() == [[5.0, 5.0, 0.0, 0.0, 0.0], [0.0] * 5]


def test_top_fraction_of_a_constant_signal_is_uniform() -> None:
    mask = torch.tensor([[True, True, False]])
    assert credits.top_fraction_credit(torch.ones(1, 3), mask, 0.2).tolist() == [[1.0, 1.0, 0.0]]


@pytest.mark.parametrize("control", sorted(credits.CONTROLS))
def test_controls_keep_the_weights_and_move_them(control: str) -> None:
    weights = credits.softmax_credit(torch.rand(30, generator=torch.Generator().manual_seed(5)), 0.1)
    moved = credits.CONTROLS[control](weights, weights, 7)
    assert torch.equal(moved.sort().values, weights.sort().values)
    assert int(moved.argmax()) != int(weights.argmax())
    assert torch.equal(moved, credits.CONTROLS[control](weights, weights, 7))
    drawn = control != "invert"
    assert torch.equal(moved, credits.CONTROLS[control](weights, weights, 8)) is not drawn


def test_invert_gives_the_largest_weight_to_the_token_that_had_the_smallest() -> None:
    weights = torch.tensor([0.5, 2.0, 0.75, 0.8])  # in order 0.5 0.75 0.8 2.0, reversed 2.0 0.8 0.75 0.5
    assert torch.equal(credits.invert_credit(weights, weights, 3), torch.tensor([2.0, 0.5, 0.8, 0.75]))


def test_invert_turns_ranks_around_and_twice_is_nothing() -> None:
    weights = credits.softmax_credit(torch.rand(41, generator=torch.Generator().manual_seed(6)), 0.1)
    inverted = credits.invert_credit(weights, weights, 1)
    ranks = torch.stack([one.argsort().argsort() for one in (weights, inverted)])
    assert torch.equal(ranks[0] + ranks[1], torch.full((41,), 40))
    assert torch.equal(credits.invert_credit(inverted, inverted, 2), weights)


def test_invert_of_a_hard_mask_keeps_the_lowest_scores_and_draws_among_equals() -> None:
    mask, score = torch.tensor([4.0, 0.0, 0.0, 0.0]), torch.tensor([9.0, 3.0, 1.0, 2.0])
    assert credits.invert_credit(mask, score, 5).tolist() == [0.0, 0.0, 4.0, 0.0]
    places = {int(credits.invert_credit(mask, torch.tensor([9.0, 1.0, 1.0, 1.0]), seed).argmax()) for seed in range(40)}
    assert places == {1, 2, 3}


def window_by_loop(entropy: list[float], half: int) -> list[float]:
    """T e / sum e with e_t = exp(H_t) / sum of exp(H_k) around t, an end reflected about its last token."""

    def reflected(place: int) -> int:
        while len(entropy) > 1 and not 0 <= place < len(entropy):
            place = -place if place < 0 else 2 * (len(entropy) - 1) - place
        return min(max(place, 0), len(entropy) - 1)

    shares = [
        math.exp(here) / sum(math.exp(entropy[reflected(k)]) for k in range(t - half, t + half + 1))
        for t, here in enumerate(entropy)
    ]
    return [len(entropy) * share / sum(shares) for share in shares]


def test_a_token_against_its_window_by_hand() -> None:
    # exp(H) = 1 2 4, window 3, ends reflected: 1/(2+1+2), 2/(1+2+4), 4/(2+4+2) = 1/5, 2/7, 1/2; times 3 over their sum
    score = credits.against_window(torch.tensor([0.0, math.log(2.0), math.log(4.0)]), 1.0, 3)
    shares = torch.tensor([1 / 5, 2 / 7, 1 / 2], dtype=torch.float64)
    assert score.exp().tolist() == pytest.approx(shares.tolist(), rel=1e-6)
    assert credits.softmax_credit(score, 1.0).tolist() == pytest.approx((3 * shares / shares.sum()).tolist(), rel=1e-6)


@pytest.mark.parametrize("length", [1, 2, 7, 50, 51, 101, 230])
def test_the_window_of_any_rollout_agrees_with_a_loop(length: int) -> None:
    entropy = 3 * torch.rand(length, generator=torch.Generator().manual_seed(length))
    weights = credits.softmax_credit(credits.against_window(entropy, 1.0, 101), 1.0)
    assert weights.tolist() == pytest.approx(window_by_loop(entropy.double().tolist(), 50), rel=1e-5)


def test_linear_weights_by_hand_and_damping_is_the_opposite_of_rarity() -> None:
    # p = 0.5 and 0.9: 1 + 0.2 (1 - p) = 1.1 and 1.02, over their mean 1.06; damping 0.1 p + 0.9 = 0.95 and 0.99
    rare = torch.tensor([0.5, 0.1])
    assert credits.linear_credit(rare, 0.2).tolist() == pytest.approx([1.1 / 1.06, 1.02 / 1.06])
    assert credits.linear_credit(rare, -0.1).tolist() == pytest.approx([0.95 / 0.97, 0.99 / 0.97])
    assert credits.linear_credit(torch.tensor([5.0, 0.0]), -1.0).tolist() == [0.0, 2.0]  # never below 0
    assert credits.linear_credit(torch.tensor([5.0, 6.0]), -1.0).tolist() == [1.0, 1.0]


def test_sigmoid_weights_by_hand() -> None:
    # alpha 10, D = 0 and ln(3) / 10: sigmoid 1/2 and 3/4; s = 0.4: 1 and 1.1 over 1.05
    weights = credits.sigmoid_credit(torch.tensor([0.0, math.log(3.0) / 10]), 0.1, 0.4)
    assert weights.tolist() == pytest.approx([1 / 1.05, 1.1 / 1.05])


def test_a_band_keeps_the_tokens_within_and_has_mean_one_over_the_batch() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False]])
    score = torch.tensor([[0.05, 0.1, 3.0], [3.1, 1.0, 1.0]])  # 3 of 5 within, the last one is padding
    assert credits.band_credit(score, mask, 0.1, 3.0).tolist() == [
        [0.0, pytest.approx(5 / 3), pytest.approx(5 / 3)],
        [0.0, pytest.approx(5 / 3), 0.0],
    ]
    assert credits.band_credit(score, mask, 8.0, 9.0).tolist() == mask.float().tolist()


def test_a_part_of_the_gradient_is_zero_where_the_clip_cuts_it() -> None:
    ratio = torch.tensor([[1.1, 1.3, 0.7], [1.1, 1.3, 0.7]])
    part = credits.part_of_gradient(ratio, torch.tensor([2.0, -0.5]), clip_low=0.2, clip_high=0.2)
    assert part.tolist() == [pytest.approx([2.2, 0.0, 1.4]), pytest.approx([0.55, 0.65, 0.0])]


def test_the_top_by_a_part_of_the_gradient_takes_no_token_without_one() -> None:
    mask, score = torch.ones(1, 5, dtype=torch.bool), torch.tensor([[0.0, 0.0, 0.0, 0.0, 2.0]])
    assert credits.top_fraction_credit(score, mask, 0.4, above_zero=True).tolist() == [[0.0] * 4 + [5.0]]
    assert credits.top_fraction_credit(score * 0, mask, 0.4, above_zero=True).tolist() == [[1.0] * 5]


def test_misplace_moves_the_peak_only() -> None:
    weights = torch.tensor([0.5, 2.0, 0.75, 0.75])
    for seed in range(20):
        moved = credits.misplace_credit(weights, weights, seed)
        assert int((moved != weights).sum()) == 2
        assert float(moved[1]) != 2.0


def test_a_rollout_without_tokens_contributes_nothing() -> None:
    values = signals([3, 0])
    weights = credits.map_rows(values.entropy, values.mask, lambda row, _: credits.softmax_credit(row, 0.5))
    assert weights[1].tolist() == [0.0, 0.0, 0.0]
    assert credits.clip_credit(torch.zeros(0), 0.2, 5.0).numel() == 0
    assert credits.misplace_credit(torch.ones(1), torch.ones(1), 3).tolist() == [1.0]


def test_k3_by_hand() -> None:
    # log q - log p = ln 2: 2 - ln 2 - 1
    value = k3(torch.tensor([-2.0]), torch.tensor([-2.0 + math.log(2.0)]))
    assert float(value) == pytest.approx(1 - math.log(2.0), rel=1e-6)
    assert float(k3(torch.tensor([-1.0]), torch.tensor([-1.0]))) == 0.0
