"""From verdicts to rewards, groups and advantages, and what an algorithm needs to run."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from dgpo_cli.algorithm import Algorithm, Credit, Rewards
from dgpo_cli.config.gatings import gating_option
from dgpo_cli.config.groups import (
    AlgoConfig,
    Control,
    FilterBy,
    GatingConfig,
    Normalizer,
    OverlongConfig,
    Sign,
    Signal,
)
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.errors import RewardError
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest, Verdict

PROMPT = Prompt(Problem(0, "0", (("user", ""),), "g"), "", (1,))
PAPER = GatingConfig(name="paper", signal=Signal.hellinger, entropy_exponent=1.0)


def rollout(length: int, finish: str = "stop") -> Rollout:
    return Rollout(SampleRequest(PROMPT, 0, 0), tuple(range(length)), "", finish)


def algorithm(gating: GatingConfig | None = None, **algo: Any) -> Algorithm:
    return Algorithm(replace(AlgoConfig(), **algo), gating or GatingConfig(), max_completion_tokens=10)


def verdicts(*right: bool) -> list[Verdict]:
    return [Verdict(float(value), value) for value in right]


def test_right_and_wrong_take_the_rewards_of_the_algorithm() -> None:
    rewards = algorithm(reward_wrong=-1.0).rewards([rollout(3)] * 2, verdicts(True, False), group_size=2)
    assert rewards.final.tolist() == [1.0, -1.0]
    assert rewards.accuracy == 0.5


def test_a_users_own_scores_stay_as_they_are() -> None:
    own = [Verdict(0.3, None), Verdict(-7.0, None)]
    rewards = algorithm(reward_wrong=-1.0).rewards([rollout(3)] * 2, own, group_size=2, own_scores=True)
    assert rewards.final.tolist() == [0.3, -7.0]
    assert rewards.accuracy is None


def test_the_overlong_term_uses_a_fifth_of_the_limit_by_default() -> None:
    shaped = algorithm(reward_wrong=-1.0, overlong=OverlongConfig(enabled=True))
    rewards = shaped.rewards([rollout(8), rollout(9), rollout(10)], verdicts(True, True, True), group_size=3)
    assert rewards.raw.tolist() == [1.0, 1.0, 1.0]
    assert rewards.final.tolist() == [1.0, 0.5, 0.0]


BY = list(FilterBy)


def own(*given: tuple[float, bool | None], lengths: tuple[int, ...] = (2,) * 6, **algo: Any) -> Rewards:
    """Groups of two, rewarded by a user's function."""
    made = [rollout(length) for _, length in zip(given, lengths, strict=False)]
    return algorithm(**algo).rewards(made, [Verdict(*one) for one in given], group_size=2, own_scores=True)


def test_of_right_and_wrong_both_filters_are_the_same() -> None:
    graded = algorithm().rewards([rollout(2)] * 6, verdicts(True, True, False, False, True, False), group_size=2)
    assert graded.right_and_wrong_groups() == (1, 1)
    assert graded.groups_without_spread() == 2
    assert [graded.informative_groups(by) for by in BY] == [[False, False, True]] * 2


def test_a_number_alone_has_no_right_and_wrong_groups() -> None:
    floats = own((0.1, None), (0.1, None), (-0.0, None), (0.0, None), (0.1, None), (0.9, None))
    assert floats.right_and_wrong_groups() is None
    assert floats.groups_without_spread() == 2
    assert floats.informative_groups(FilterBy.spread) == [False, False, True]
    with pytest.raises(RewardError, match=r"dynamic_sampling\.by=correct"):
        floats.informative_groups(FilterBy.correct)
    assert own((0.0, False), (0.0, False), (0.0, False), (0.0, None)).right_and_wrong_groups() is None


def test_partial_credit_in_an_all_wrong_group_can_teach() -> None:
    rewards = own((0.2, False), (0.7, False), (1.0, True), (1.0, True), (0.5, True), (0.5, False))
    assert rewards.right_and_wrong_groups() == (1, 1)
    assert rewards.groups_without_spread() == 2
    assert rewards.informative_groups(FilterBy.spread) == [True, False, False]
    assert rewards.informative_groups(FilterBy.correct) == [False, False, True]


def test_the_filter_looks_before_length_terms_and_the_statistic_behind_them() -> None:
    # Buffer 2 of 10, range 1: the second of the first group loses 0.5 at 10 tokens, the second of the other 0.25 at 9,
    # which is what its score was ahead.
    rewards = own(
        (1.0, None),
        (1.0, None),
        (0.5, None),
        (0.75, None),
        lengths=(8, 10, 8, 9),
        overlong=OverlongConfig(enabled=True),
    )
    assert rewards.final.tolist() == [1.0, 0.5, 0.5, 0.5]
    assert rewards.informative_groups(FilterBy.spread) == [False, True]
    assert rewards.groups_without_spread() == 1


def test_rewards_that_differ_by_rounding_have_no_spread() -> None:
    rewards = own((0.1 + 0.2, None), (0.3, None), (0.0, None), (2e-8, None))
    assert rewards.groups_without_spread() == 1
    assert rewards.informative_groups(FilterBy.spread) == [False, True]


def test_truncated_rollouts_are_masked_where_asked_and_stay_in_the_mean() -> None:
    masked = algorithm(mask_truncated=True)
    made = [rollout(4), rollout(10, "length")]
    assert masked.counted_lengths(made) == [4, 0]
    assert algorithm().counted_lengths(made) == [4, 10]
    advantages = masked.advantages(masked.rewards(made, verdicts(True, False), group_size=2))
    assert advantages[0] == -advantages[1] != 0


@pytest.mark.parametrize(
    ("gating", "kl_coef", "needed"),
    [
        (GatingConfig(), 0.0, False),
        (GatingConfig(), 0.04, True),
        (PAPER, 0.0, True),
        (GatingConfig(signal=Signal.entropy, top_fraction=0.2), 0.0, False),
        (GatingConfig(signal=Signal.surprisal), 0.0, False),
        (GatingConfig(signal=Signal.surprisal, noise_gate=True), 0.0, True),
    ],
)
def test_a_reference_is_run_only_where_it_is_needed(gating: GatingConfig, kl_coef: float, needed: bool) -> None:
    assert algorithm(gating, kl_coef=kl_coef).needs_reference is needed


def signals() -> TokenSignals:
    mask = torch.tensor([[True, True, True, True], [True, True, False, False]])
    distance = torch.tensor([[0.9, 0.1, 0.2, 0.4], [0.0, 0.5, 0.0, 0.0]])
    return TokenSignals(mask, -distance, mask.float(), -distance, distance)


def credit(gating: GatingConfig, floor: float = 0.0, seeds: tuple[int, int] = (1, 2)) -> torch.Tensor:
    made = algorithm(gating).credit(
        signals(),
        advantages=torch.tensor([1.0, -1.0]),
        vocabulary_size=8,
        noise_floor=floor,
        control_seeds=list(seeds),
    )
    return made.weights


def test_noise_gate_shrinks_credit_towards_one() -> None:
    gate = GatingConfig(signal=Signal.hellinger, normalizer=Normalizer.saturate, temperature=1.0, noise_gate=True)
    mean = float(signals().hellinger[signals().mask].double().mean())  # type: ignore[index]
    open_, half, shut = credit(gate), credit(gate, mean / 3), credit(gate, mean * 1e6)
    assert torch.allclose(half[0] - 1, (open_[0] - 1) / 2, atol=1e-6)
    assert torch.allclose(shut[0], torch.ones(4), atol=1e-6)


def test_clip_holds_inside_the_pipeline() -> None:
    clipped = credit(replace(PAPER, entropy_exponent=0.0, temperature=0.05, clip=[0.5, 1.5]))
    assert float(clipped[0].max()) == 1.5
    assert float(clipped[0].mean()) == pytest.approx(1.0, abs=1e-6)
    assert float(clipped[0].min()) >= 0.5


def test_a_control_keeps_the_spread_of_every_rollout() -> None:
    plain, moved = credit(PAPER), credit(replace(PAPER, control=Control.permute), seeds=(5, 6))
    assert torch.equal(plain.sort(dim=1).values, moved.sort(dim=1).values)
    assert not torch.equal(plain, moved)


def test_diagnostics_look_at_rollouts_with_an_advantage_only() -> None:
    made = algorithm(PAPER)
    advantages = torch.tensor([1.0, -1.0])
    weights = made.credit(signals(), advantages=advantages, vocabulary_size=8, noise_floor=0.0, control_seeds=[0, 0])
    both = made.diagnostics(signals(), weights, torch.tensor([1.0, -1.0]))
    first = made.diagnostics(signals(), weights, torch.tensor([1.0, 0.0]))
    assert first["hellinger/mean"] == pytest.approx(0.4)
    assert both["hellinger/mean"] == pytest.approx((1.6 + 0.5) / 6)
    assert first["credit/corr_hellinger"] == pytest.approx(1.0, abs=0.05)
    assert sum(value for key, value in both.items() if key.endswith("tokens_pos")) == pytest.approx(1.0)  # type: ignore[misc]
    assert made.diagnostics(signals(), weights, torch.zeros(2)) == {"credit/noise_gate": 1.0}


LENGTHS, SIDES = [7, 1, 12, 5], [0.8, -1.2, -0.3, 1.5]


def uneven() -> TokenSignals:
    generator = torch.Generator().manual_seed(11)
    mask = torch.arange(12)[None] < torch.tensor(LENGTHS)[:, None]

    def drawn(scale: float) -> torch.Tensor:
        return scale * torch.rand(4, 12, generator=generator) * mask

    logprobs = -drawn(2.0)
    return TokenSignals(mask, logprobs, drawn(1.5), logprobs + 0.3 * drawn(1.0), drawn(0.2), drawn(1.4))


def credit_of(gating: GatingConfig, **given: Any) -> torch.Tensor:
    sides = torch.tensor(SIDES)
    facts: dict[str, Any] = {"vocabulary_size": 8, "noise_floor": 0.0, "control_seeds": [3, 4, 5, 6]} | given
    return algorithm(gating).credit(uneven(), advantages=sides, **facts).weights


def by_loop(name: str) -> list[list[float]]:
    """The weights of a published rule in plain float64, token by token, mean 1 over each rollout or over the batch."""
    values = uneven()
    rows, count = [], sum(LENGTHS)
    for row, length in enumerate(LENGTHS):
        p = [math.exp(float(value)) for value in values.logprobs[row, :length]]
        entropy = [float(value) for value in values.entropy[row, :length]]
        assert values.ref_logprobs is not None
        gap = [float(q) - math.log(one) for q, one in zip(values.ref_logprobs[row, :length], p, strict=True)]
        if name == "rarity":
            weights = [1 + 0.2 * (1 - one) for one in p]
        elif name == "damping":
            weights = [0.1 * one + 0.9 for one in p]
        elif name == "divergence_sigmoid":
            weights = [1 + 0.3 * (1 / (1 + math.exp(-10 * (math.exp(x) - 1 - x))) - 0.5) for x in gap]
        elif name == "rsi":
            weights = [float(0.1 <= -math.log(one) / (h + 1e-6) <= 3) for one, h in zip(p, entropy, strict=True)]
        else:
            assert values.grad_norm is not None
            size = entropy if name == "gmts" else [float(value) for value in values.grad_norm[row, :length]]
            weights = [one * abs(SIDES[row]) for one in size]
        rows.append(weights)
    if name in ("rarity", "damping", "divergence_sigmoid"):
        return [[weight * len(row) / sum(row) for weight in row] for row in rows]
    if name in ("gmts", "gmts_exact"):
        least = sorted((weight for row in rows for weight in row), reverse=True)[math.ceil(0.2 * count) - 1]
        rows = [[float(weight >= least) for weight in row] for row in rows]
    kept = sum(sum(row) for row in rows)
    return [[weight * count / kept for weight in row] for row in rows]


@pytest.mark.parametrize("name", ["rarity", "damping", "divergence_sigmoid", "rsi", "gmts", "gmts_exact"])
def test_a_published_rule_agrees_with_a_loop_in_float64(name: str) -> None:
    weights = credit_of(gating_option(name))
    for row, expected in enumerate(by_loop(name)):
        assert weights[row, : LENGTHS[row]].tolist() == pytest.approx(expected, rel=1e-5)
        assert not weights[row, LENGTHS[row] :].any()


def test_gmts_counts_the_ratio_and_leaves_out_what_is_clipped() -> None:
    """One rollout of two equal entropies: the token that the ratio has raised counts, until it is clipped."""
    made = algorithm(replace(gating_option("gmts"), top_fraction=0.5), clip_high=0.5)
    mask, now = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[-1.0, -1.0]])

    def weights(moved: float) -> Any:
        old = now - torch.tensor([[0.0, moved]])
        facts: dict[str, Any] = {"vocabulary_size": 8, "noise_floor": 0.0, "control_seeds": [0]}
        values = TokenSignals(mask, now, torch.ones(1, 2))
        return made.credit(values, advantages=torch.ones(1), old_logprobs=old, **facts).weights.tolist()

    assert weights(0.1) == [[0.0, 2.0]]
    assert weights(-0.1) == [[2.0, 0.0]]
    assert weights(0.6) == [[2.0, 0.0]]


@pytest.mark.parametrize("sign", list(Sign))
@pytest.mark.parametrize("name", ["paper", "calibrated", "proximal", "rarity", "top_entropy", "rsi", "random"])
def test_rollouts_of_the_other_sign_have_uniform_credit_and_the_rest_their_own(name: str, sign: Sign) -> None:
    gating = replace(gating_option(name), sign=sign)
    weights, every = credit_of(gating), credit_of(replace(gating, sign=Sign.all))
    assert float(weights.double().sum()) == pytest.approx(sum(LENGTHS), rel=1e-6)
    over_batch = gating.top_fraction is not None or gating.band is not None
    for row, length in enumerate(LENGTHS):
        if sign is not Sign.all and (SIDES[row] > 0) is not (sign is Sign.positive):
            assert weights[row, :length].tolist() == [1.0] * length
        elif not over_batch:
            assert torch.equal(weights[row], every[row])


@pytest.mark.parametrize("name", ["paper", "calibrated", "surprisal", "proximal", "top_entropy"])
def test_inverted_credit_is_the_same_weights_in_reverse_order(name: str) -> None:
    gating = gating_option(name)
    plain, inverted = credit_of(gating), credit_of(replace(gating, control=Control.invert))
    assert torch.equal(plain.sort(dim=1).values, inverted.sort(dim=1).values)
    mean = plain.sum(dim=1, keepdim=True) / torch.tensor(LENGTHS)[:, None] * uneven().mask
    assert float(((plain - mean) * (inverted - mean)).sum()) < 0


def test_a_rule_with_a_direction_is_inverted_by_the_opposite_strength() -> None:
    for name in ("rarity", "divergence_sigmoid"):
        gating = gating_option(name)
        inverted = credit_of(replace(gating, control=Control.invert))
        assert torch.equal(inverted, credit_of(replace(gating, strength=-gating.strength)))
    tenth = replace(gating_option("rarity"), strength=0.1, control=Control.invert)
    assert torch.equal(credit_of(tenth), credit_of(gating_option("damping")))


def test_credit_is_held_against_position_and_the_accuracy_of_the_group() -> None:
    """Two groups, right 3/4 and 1/4 of the time. The mask falls on the second one, on its first token."""
    made = algorithm(GatingConfig(signal=Signal.entropy, top_fraction=0.2))
    mask, entropy = torch.ones(2, 2, dtype=torch.bool), torch.tensor([[0.1, 0.2], [0.9, 0.3]])
    values, sides = TokenSignals(mask, -entropy, entropy), torch.tensor([1.0, -1.0])
    given = made.credit(values, advantages=sides, vocabulary_size=8, noise_floor=0.0, control_seeds=[0, 0])
    found = made.diagnostics(values, given, sides, torch.tensor([0.75, 0.25]))
    # w - 1 = -1 -1 3 -1. Accuracy - 1/2 = + + - - of 1/4, position - 1/2 = - + - + of 1/2: -1 / (sqrt(12) / 2) each
    for name in ("credit/corr_position", "credit/corr_accuracy"):
        assert found[name] == pytest.approx(-1 / math.sqrt(3))
    assert "credit/corr_accuracy" not in made.diagnostics(values, given, sides)


def test_the_accuracy_of_each_group_is_known_if_every_answer_is_right_or_wrong() -> None:
    graded = algorithm().rewards([rollout(2)] * 4, verdicts(True, True, False, True), group_size=2)
    accuracy = graded.group_accuracy()
    assert accuracy is not None
    assert accuracy.tolist() == [1.0, 1.0, 0.5, 0.5]
    assert own((0.1, None), (0.1, None)).group_accuracy() is None


ORACLE = gating_option("oracle_first_error")


def by_oracle(gating: GatingConfig) -> torch.Tensor:
    """A wrong rollout of four tokens whose third is the first wrong one, and a right one of two."""
    known = replace(signals(), first_error=torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    facts: dict[str, Any] = {"vocabulary_size": 8, "noise_floor": 0.0, "control_seeds": [3, 4]}
    return algorithm(gating).credit(known, advantages=torch.tensor([-1.0, 1.0]), **facts).weights


def test_an_oracle_gives_five_times_the_credit_to_the_first_wrong_token() -> None:
    # (1, 1, 5, 1) over its mean of 2; the right rollout is uniform.
    assert by_oracle(ORACLE).tolist() == [[0.5, 0.5, 2.5, 0.5], [1.0, 1.0, 0.0, 0.0]]


def test_controls_of_an_oracle_have_its_weights_elsewhere() -> None:
    wrong, right = by_oracle(replace(ORACLE, control=Control.misplace))
    assert sorted(wrong.tolist()) == [0.5, 0.5, 0.5, 2.5]
    assert wrong[2] == 0.5
    assert right.tolist() == [1.0, 1.0, 0.0, 0.0]
    shuffled, _ = by_oracle(replace(ORACLE, control=Control.permute))
    assert sorted(shuffled.tolist()) == [0.5, 0.5, 0.5, 2.5]
    assert by_oracle(replace(ORACLE, control=Control.invert))[0].tolist() == pytest.approx([4 / 3, 4 / 3, 0, 4 / 3])


def test_what_an_oracle_did_is_logged() -> None:
    known = replace(signals(), first_error=torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]))
    made = Credit(by_oracle(ORACLE), torch.zeros(2, 4), 1.0)
    both_wrong, one_right = torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, 1.0])
    assert algorithm(ORACLE).diagnostics(known, made, both_wrong)["credit/first_error_known"] == 0.5
    logged = algorithm(ORACLE).diagnostics(known, made, one_right)
    assert (logged["credit/first_error_known"], logged["credit/first_error"]) == (1.0, 2.5)
    assert "credit/first_error" not in algorithm(ORACLE).diagnostics(signals(), made, one_right)


@pytest.mark.parametrize(
    ("sign", "kept", "left_out"),
    [
        (Sign.all, [1.5, -0.5, -0.5, -0.5], None),
        (Sign.negative, [0, -0.5, -0.5, -0.5], 0.25),
        (Sign.positive, [1.5, 0, 0, 0], 0.75),
    ],
    ids=str,
)
def test_rollouts_of_the_other_sign_carry_no_advantage_and_stay_in_the_mean(
    sign: Sign, kept: list[float], left_out: float | None
) -> None:
    # One right of four: mean 1/4, std 1/2. The second group has no spread, so nothing of it is left out by the sign.
    one = algorithm(sign=sign)
    rewards = one.rewards([rollout(4)] * 8, verdicts(True, *[False] * 7), group_size=4)
    assert one.advantages(rewards).tolist() == pytest.approx([*kept, 0, 0, 0, 0], abs=1e-3)
    assert one.other_sign(rewards) == (None if left_out is None else left_out / 2)
