"""THE algorithm: verdicts -> rewards -> advantages -> credit -> loss, composed from core by a configuration.

GRPO, DAPO and DGPO are settings of this one pipeline (conf/algo), and every gating (conf/gating) composes with each.
Nothing here runs a model or touches a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgpo_cli.config.groups import AlgoConfig, Control, FilterBy, GatingConfig, Normalizer, RatioLevel, Signal
from dgpo_cli.core import credit as credits
from dgpo_cli.core.advantages import group_advantages, groups_are_equal, overlong_penalty
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.diagnostics import cell_shares, correlation, credit_spread, quantile
from dgpo_cli.core.policy_loss import PolicyLoss, policy_loss
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
        return self.gating.signal is not Signal.none

    @property
    def measures_noise(self) -> bool:
        """Whether the noise floor of scoring has to be measured, because the noise gate subtracts it."""
        return self.gates and self.gating.noise_gate

    def without_kl(self) -> Algorithm:
        """The same without the penalty."""
        return Algorithm(replace(self.algo, kl_coef=0.0), self.gating, max_completion_tokens=self.max_completion_tokens)

    @property
    def needs_reference(self) -> bool:
        """A reference is run for a distance, for KL or for the noise gate, and only then."""
        gate = self.gating
        return (
            self.algo.kl_coef > 0 or gate.signal.name in credits.REFERENCE_SIGNALS or (self.gates and gate.noise_gate)
        )

    @property
    def needed_signals(self) -> dict[str, str]:
        """What credit is computed from: the fields of `TokenSignals`, each with the setting that needs it."""
        gate = self.gating
        needed: dict[str, str] = {}
        if self.gates and gate.noise_gate:
            needed["hellinger"] = "gating.noise_gate"
        if self.gates and gate.entropy_exponent:
            needed["entropy"] = "gating.entropy_exponent"
        needed |= dict.fromkeys(credits.READS.get(gate.signal.name, ()), f"gating.signal={gate.signal.name}")
        return needed

    @property
    def credit_needs_batch(self) -> bool:
        """Whether credit depends on the whole batch, not on each rollout alone."""
        gate = self.gating
        return self.gates and (
            gate.noise_gate or gate.normalizer is Normalizer.saturate or gate.top_fraction is not None
        )

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
        """[B] float32; exactly 0 for a group of equal rewards."""
        return group_advantages(rewards.final, group_size=rewards.group_size, scale=self.algo.scale_rewards.name)

    def counted_lengths(self, rollouts: list[Rollout]) -> list[int]:
        """Tokens that carry loss: none for a truncated rollout under algo.mask_truncated."""
        masked = self.algo.mask_truncated
        return [0 if masked and rollout.truncated else len(rollout.token_ids) for rollout in rollouts]

    def credit(
        self, signals: TokenSignals, *, vocabulary_size: int, noise_floor: float, control_seeds: list[int]
    ) -> Credit:
        """w >= 0 [B, T] with mean 1 over each rollout's counted tokens (`top_fraction`: over the batch).

        `signals` holds the whole batch wherever `credit_needs_batch`. `control_seeds` has one seed a rollout.
        """
        gate, mask = self.gating, signals.mask
        if not self.gates:
            return Credit(mask.float(), torch.zeros_like(signals.logprobs), 1.0)
        score = credits.gated_score(
            signals, signal=gate.signal.name, entropy_exponent=gate.entropy_exponent, vocabulary_size=vocabulary_size
        )
        openness = self._noise_gate(signals, noise_floor)
        if gate.top_fraction is not None:
            weights = credits.top_fraction_credit(score, mask, gate.top_fraction)
        else:
            half_point = quantile(score[mask], credits.SATURATION_QUANTILE)
            weights = credits.map_rows(score, mask, lambda row, _: self._row_credit(row, half_point, openness))
        if gate.control is not Control.none:
            misplace = credits.CONTROLS[gate.control.name]
            weights = credits.map_rows(weights, mask, lambda row, i: misplace(row, control_seeds[i]))
        return Credit(weights, score, openness)

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
        weights = credits.softmax_credit(score, gate.temperature)
        if gate.clip is not None:
            weights = credits.clip_credit(weights, gate.clip[0], gate.clip[1])
        return weights if openness == 1.0 else 1.0 + openness * (weights - 1.0)

    def loss(
        self,
        logprobs: Tensor,
        old_logprobs: Tensor,
        advantages: Tensor,
        weights: Tensor,
        mask: Tensor,
        ref_logprobs: Tensor | None,
    ) -> PolicyLoss:
        """Per-token loss [B, T] of a micro-batch; `core.policy_loss.token_weights` says how its tokens are averaged."""
        algo = self.algo
        return policy_loss(
            logprobs,
            old_logprobs,
            advantages,
            weights,
            mask,
            clip_low=algo.clip_low,
            clip_high=algo.clip_high,
            clip_dual=algo.clip_dual,
            ratio_level=algo.ratio_level.name if algo.ratio_level is RatioLevel.sequence else "token",
            kl_coef=algo.kl_coef,
            ref_logprobs=ref_logprobs,
        )

    def diagnostics(self, signals: TokenSignals, credit: Credit, advantages: Tensor) -> dict[str, float | None]:
        """`credit/*`, `hellinger/*`, `score/*`, `entropy/mean` and the cells, over rollouts with A != 0."""
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
