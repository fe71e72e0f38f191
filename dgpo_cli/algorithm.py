"""THE algorithm: verdicts -> rewards -> advantages -> credit -> loss, composed from core by a configuration.

GRPO, DAPO and DGPO are settings of this one pipeline (conf/algo), and every gating (conf/gating) composes with each.
Nothing here runs a model or touches a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgpo_cli.config.gating_needs import needs_reference, needs_whole_batch, shapes_credit
from dgpo_cli.config.groups import (
    AlgoConfig,
    Control,
    FilterBy,
    Form,
    GatingConfig,
    Normalizer,
    Sign,
)
from dgpo_cli.core import credit as credits
from dgpo_cli.core.advantages import group_advantages, groups_are_equal, overlong_penalty
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.diagnostics import (
    cell_shares,
    correlation,
    credit_spread,
    first_error_credit,
    quantile,
    relative_positions,
)
from dgpo_cli.core.policy_loss import PolicyLoss, importance_ratio, policy_loss
from dgpo_cli.errors import RewardError
from dgpo_cli.types import Rollout, Verdict


@dataclass(frozen=True)
class Rewards:
    """Rewards [B] of a batch, before (`raw`) and after (`final`) the length term; advantages come from `final`."""

    raw: Tensor
    final: Tensor
    group_size: int
    correct: tuple[bool | None, ...]

    @property
    def groups(self) -> int:
        return len(self.correct) // self.group_size

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, or None for a float reward without a notion of correct."""
        known = [value for value in self.correct if value is not None]
        return sum(known) / len(known) if known and len(known) == len(self.correct) else None

    def groups_without_spread(self) -> int:
        """Number of groups whose final rewards are all equal: every advantage in them is 0."""
        return int(groups_are_equal(self.final, self.group_size).sum()) if self.groups else 0

    def group_accuracy(self) -> Tensor | None:
        """[B] the share of right answers in each rollout's group; None where an answer has no notion of right."""
        if None in self.correct:
            return None
        right = torch.tensor(self.correct, dtype=torch.float32).view(-1, self.group_size)
        return right.mean(dim=1).repeat_interleave(self.group_size)

    def right_and_wrong_groups(self) -> tuple[int, int] | None:
        """Number of groups with all answers right, and all wrong; None where an answer has no notion of right."""
        if None in self.correct:
            return None
        groups = self._answers()
        return sum(all(group) for group in groups), sum(not any(group) for group in groups)

    def informative_groups(self, by: FilterBy) -> list[bool]:
        """Dynamic sampling's filter (arXiv 2503.14476): which groups stay, by their raw rewards or their answers.

        Raises:
            RewardError: by right and wrong, and an answer has no notion of it.
        """
        if by is FilterBy.spread:
            return (~groups_are_equal(self.raw, self.group_size)).tolist() if self.groups else []
        if None in self.correct:
            raise RewardError(
                "algo.dynamic_sampling.by=correct goes by right and wrong, and the reward gave a number alone",
                "return (score, correct) from it, or algo.dynamic_sampling.by=spread",
            )
        return [any(group) and not all(group) for group in self._answers()]

    def _answers(self) -> list[tuple[bool | None, ...]]:
        """Whether they are right, by group."""
        size = self.group_size
        return [self.correct[start : start + size] for start in range(0, len(self.correct), size)]


@dataclass(frozen=True)
class Credit:
    """Weights and scores [B, T] of the counted tokens, and the share that the noise gate let through."""

    weights: Tensor
    score: Tensor
    noise_gate: float


class Algorithm:
    """The pipeline of one run: pure functions of core with the run's settings filled in."""

    def __init__(self, algo: AlgoConfig, gating: GatingConfig, *, max_completion_tokens: int) -> None:
        self.algo = algo
        self.gating = gating
        self.max_completion_tokens = max_completion_tokens

    @property
    def gates(self) -> bool:
        """Whether tokens can get different credit at all."""
        return shapes_credit(self.gating)

    def without_kl(self) -> Algorithm:
        """The same without the penalty."""
        return Algorithm(replace(self.algo, kl_coef=0.0), self.gating, max_completion_tokens=self.max_completion_tokens)

    def ungated(self) -> Algorithm:
        """The same with uniform credit."""
        return Algorithm(self.algo, GatingConfig(), max_completion_tokens=self.max_completion_tokens)

    @property
    def needs_reference(self) -> bool:
        """A reference is run for a distance, for KL or for the noise gate, and only then."""
        return needs_reference(self.algo, self.gating)

    @property
    def credit_needs_batch(self) -> bool:
        """Whether credit depends on the whole batch, not on each rollout alone."""
        return needs_whole_batch(self.gating)

    def rewards(
        self, rollouts: list[Rollout], verdicts: list[Verdict], *, group_size: int, own_scores: bool = False
    ) -> Rewards:
        """Right and wrong become algo.reward_right and .reward_wrong, then comes the length term.

        `own_scores`: the scores are a user's own floats and stay as they are.
        """
        algo = self.algo
        if own_scores:
            scores = [verdict.score for verdict in verdicts]
        else:
            scores = [algo.reward_right if verdict.correct else algo.reward_wrong for verdict in verdicts]
        raw = torch.tensor(scores, dtype=torch.float64)
        final = raw.clone()
        if algo.overlong.enabled:
            buffer = algo.overlong.buffer_tokens or max(1, round(0.2 * self.max_completion_tokens))
            lengths = torch.tensor([len(rollout.token_ids) for rollout in rollouts])
            final += overlong_penalty(
                lengths,
                max_tokens=self.max_completion_tokens,
                buffer_tokens=buffer,
                reward_range=algo.reward_right - algo.reward_wrong,
            )
        return Rewards(raw, final, group_size, tuple(verdict.correct for verdict in verdicts))

    def advantages(self, rewards: Rewards) -> Tensor:
        """[B] float32; exactly 0 for a group of equal rewards, and for those that algo.sign leaves out."""
        found = self._of_both_signs(rewards)
        return torch.where(_has_sign(found, self.algo.sign), found, 0.0)

    def other_sign(self, rewards: Rewards) -> float | None:
        """Share of the rollouts that algo.sign leaves out; None if it leaves out none."""
        if self.algo.sign is Sign.all or not rewards.groups:
            return None
        found = self._of_both_signs(rewards)
        return float(((found != 0) & ~_has_sign(found, self.algo.sign)).double().mean())

    def _of_both_signs(self, rewards: Rewards) -> Tensor:
        return group_advantages(rewards.final, group_size=rewards.group_size, scale=self.algo.scale_rewards.name)

    def counted_lengths(self, rollouts: list[Rollout]) -> list[int]:
        """Tokens that carry loss: none for a truncated rollout under algo.mask_truncated."""
        masked = self.algo.mask_truncated
        return [0 if masked and rollout.truncated else len(rollout.token_ids) for rollout in rollouts]

    def credit(
        self,
        signals: TokenSignals,
        *,
        advantages: Tensor,
        vocabulary_size: int,
        noise_floor: float,
        control_seeds: list[int],
        old_logprobs: Tensor | None = None,
    ) -> Credit:
        """w >= 0 [B, T] with mean 1 over each rollout's counted tokens (`top_fraction`, `band`: over the batch).

        `signals` holds the whole batch wherever `credit_needs_batch`. `advantages` [B]; `control_seeds` has one seed a
        rollout. `old_logprobs` [B, T]: by the policy that sampled, if the signals are of a later one.
        """
        gate, mask = self.gating, signals.mask
        if not self.gates:
            return Credit(mask.float(), torch.zeros_like(signals.logprobs), 1.0)
        score = credits.gated_score(
            signals, signal=gate.signal.name, entropy_exponent=gate.entropy_exponent, vocabulary_size=vocabulary_size
        )
        if gate.times_advantage:
            score = score * self._part_of_gradient(signals, advantages, old_logprobs)
        openness = self._noise_gate(signals, noise_floor)
        weighted = mask & _has_sign(advantages, gate.sign)[:, None]
        weights = self._weights(score, mask, weighted, openness)
        if gate.control is not Control.none and not self._inverts_strength:
            control = credits.CONTROLS[gate.control.name]
            length = mask.sum(dim=1).tolist()
            weights = credits.map_rows(
                weights, mask, lambda row, i: control(row, score[i, : length[i]], control_seeds[i])
            )
        return Credit(torch.where(weighted, weights, mask.float()), score, openness)

    def _weights(self, score: Tensor, mask: Tensor, weighted: Tensor, openness: float) -> Tensor:
        """Weights [B, T] of the tokens that are to be `weighted`; those of the others do not count."""
        gate = self.gating
        if gate.top_fraction is not None:
            return credits.top_fraction_credit(score, weighted, gate.top_fraction, above_zero=gate.times_advantage)
        if gate.band is not None:
            return credits.band_credit(score, weighted, gate.band[0], gate.band[1])
        half_point = quantile(score[mask], credits.SATURATION_QUANTILE)
        return credits.map_rows(score, mask, lambda row, _: self._row_credit(row, half_point, openness))

    @property
    def _inverts_strength(self) -> bool:
        """Whether the control of a rule with a direction is the rule with the other one."""
        gate = self.gating
        soft = gate.form is not Form.softmax and gate.top_fraction is None and gate.band is None
        return gate.control is Control.invert and soft

    def _part_of_gradient(self, signals: TokenSignals, advantages: Tensor, old_logprobs: Tensor | None) -> Tensor:
        algo, now = self.algo, signals.logprobs
        ratio = importance_ratio(
            now, now if old_logprobs is None else old_logprobs, signals.mask, level=algo.ratio_level.name
        )
        return credits.part_of_gradient(ratio, advantages, clip_low=algo.clip_low, clip_high=algo.clip_high)

    def _noise_gate(self, signals: TokenSignals, floor: float) -> float:
        if not self.gating.noise_gate or signals.hellinger is None:
            return 1.0
        distances = signals.hellinger[signals.mask].double()
        return credits.noise_gate(float(distances.mean()) if distances.numel() else 0.0, floor)

    def _row_credit(self, score: Tensor, half_point: float, openness: float) -> Tensor:
        gate = self.gating
        if gate.normalizer is Normalizer.saturate:
            score = credits.saturate(score, half_point)
        elif gate.normalizer is Normalizer.rank:
            score = credits.rank(score)
        elif gate.normalizer is Normalizer.window:
            score = credits.against_window(score, gate.temperature, gate.window)
        strength = -gate.strength if self._inverts_strength else gate.strength
        if gate.form is Form.sigmoid:
            weights = credits.sigmoid_credit(score, gate.temperature, strength)
        elif gate.form is Form.linear:
            weights = credits.linear_credit(score, strength)
        else:
            weights = credits.softmax_credit(score, gate.temperature)
        if gate.clip is not None:
            weights = credits.clip_credit(weights, gate.clip[0], gate.clip[1])
        return weights if openness == 1.0 else 1.0 + openness * (weights - 1.0)

    def loss(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        factors: Tensor,
        mask: Tensor,
        ref_logprobs: Tensor | None,
    ) -> PolicyLoss:
        """The loss of each token [B, T] of a micro-batch, its policy term times `factors` (its credit).

        `core.policy_loss.token_weights` says how its tokens are averaged.
        """
        algo = self.algo
        return policy_loss(
            logprobs,
            old_logprobs,
            advantages,
            factors,
            mask,
            clip_low=algo.clip_low,
            clip_high=algo.clip_high,
            clip_dual=algo.clip_dual,
            ratio_level=algo.ratio_level.name,
            detached_ratio=algo.detached_ratio,
            max_probability_change=algo.max_probability_change,
            kl_coef=algo.kl_coef,
            ref_logprobs=ref_logprobs,
        )

    def diagnostics(
        self, signals: TokenSignals, credit: Credit, advantages: Tensor, group_accuracy: Tensor | None = None
    ) -> dict[str, float | None]:
        """`credit/*`, `hellinger/*`, `score/*`, `entropy/mean` and the cells, over rollouts with A != 0.

        group_accuracy: [B], the share of right answers in each rollout's group, if it is known.
        """
        rows = [row for row in torch.nonzero(advantages)[:, 0].tolist() if bool(signals.mask[row].any())]
        if not rows:
            return {"credit/noise_gate": credit.noise_gate}
        mask = signals.mask[rows]
        weights, entropy = credit.weights[rows][mask], signals.entropy[rows][mask]
        lengths = mask.sum(dim=1).tolist()
        values: dict[str, float | None] = {"credit/noise_gate": credit.noise_gate}
        values |= credit_spread([credit.weights[row, :length] for row, length in zip(rows, lengths, strict=True)])
        values["entropy/mean"] = float(entropy.double().mean())
        if self.gates:
            score = credit.score[rows][mask]
            values |= {"score/mean": float(score.double().mean()), "score/max": float(score.max())}
            values["credit/corr_entropy"] = correlation(weights, entropy)
            values["credit/corr_position"] = correlation(weights, relative_positions(mask)[mask])
            if group_accuracy is not None:
                accuracy = group_accuracy[rows][:, None].expand_as(mask)[mask]
                values["credit/corr_accuracy"] = correlation(weights, accuracy)
        if signals.first_error is not None:
            values |= first_error_credit(credit.weights[rows], signals.first_error[rows], advantages[rows] < 0)
        if signals.hellinger is not None:
            distance = signals.hellinger[rows][mask]
            values |= {
                "hellinger/mean": float(distance.double().mean()),
                "hellinger/p95": quantile(distance, 0.95),
                "hellinger/max": float(distance.max()),
            }
            if self.gates:
                values["credit/corr_hellinger"] = correlation(weights, distance)
                positive = (advantages[rows][:, None] > 0).expand_as(mask)[mask]
                values |= cell_shares(distance, entropy, weights, positive)
        return {name: value if value is None or math.isfinite(value) else None for name, value in values.items()}


def _has_sign(advantages: Tensor, sign: Sign) -> Tensor:
    """[B] bool: the rollouts whose advantage has that sign."""
    if sign is Sign.all:
        return torch.ones_like(advantages, dtype=torch.bool)
    return advantages > 0 if sign is Sign.positive else advantages < 0
