"""The records of a step: what it trains on, what it trains towards, what its scores say, and what its updates did."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.core.credit import TokenSignals, marked
from dgpo_cli.core.policy_loss import PolicyLoss
from dgpo_cli.models.microbatch import MicroBatch
from dgpo_cli.processes import Processes
from dgpo_cli.traffic import SIGNALS
from dgpo_cli.training.correction import UNCORRECTED, Correction
from dgpo_cli.training.current_credit import UsedCredit
from dgpo_cli.training.optimizer import UpdateOutcome
from dgpo_cli.types import Rollout


@dataclass(frozen=True)
class StepBatch:
    """What a step trains on: B rollouts with their advantages."""

    rollouts: list[Rollout]
    lengths: list[int]  # counted tokens
    advantages: Tensor  # [B]
    group_size: int
    control_seeds: list[int]  # [B]
    policy_step: int | None = None  # the training step whose weights are trained, 0 before the first
    group_accuracy: Tensor | None = None  # [B], the share of right answers in each rollout's group
    first_errors: list[int | None] | None = None  # [B], where the first wrong token is, if an oracle asks for it
    alternatives: Tensor | None = None  # [B, T, C] of core/alternatives.py, of a step that stores them

    @property
    def rows(self) -> list[int]:
        return list(range(len(self.rollouts)))

    @property
    def shape(self) -> tuple[int, int]:
        """[B, T] of the counted tokens."""
        return len(self.lengths), max(self.lengths, default=0)

    @property
    def drawn_by_another(self) -> bool:
        """Whether a policy other than the one that trains drew any of the rollouts, as far as they say."""
        told = {rollout.policy_step for rollout in self.rollouts} - {None}
        return bool(told - {self.policy_step})

    def minibatches(self, count: int) -> list[list[int]]:
        """Rows of each of `count` minibatches: whole groups, in draw order. Fewer only if there are fewer groups."""
        groups = len(self.rollouts) // self.group_size
        cuts = np.array_split(np.arange(groups), count)
        return [
            [row for group in cut.tolist() for row in range(group * self.group_size, (group + 1) * self.group_size)]
            for cut in cuts
            if len(cut)
        ]


@dataclass(frozen=True)
class Scored:
    """The signals [B, T] of a batch, and the credit that comes of them. Rows that were not scored are unmasked.

    Both are on the CPU. They are a few numbers a token, and credit goes through them row by row: a GPU would not be
    quicker, and its memory is for activations.
    """

    signals: TokenSignals
    credit: Credit
    correction: Tensor | None = None  # [B, T], by the policy before the step's first update; None: 1 everywhere

    def ungated(self) -> Scored:
        """The same with uniform credit."""
        return replace(self, credit=replace(self.credit, weights=self.signals.mask.float()))

    @property
    def factors(self) -> Tensor:
        """[B, T] what multiplies the policy loss of each token."""
        return self.credit.weights if self.correction is None else self.credit.weights * self.correction


@dataclass(frozen=True)
class Objective:
    """What a step trains towards: the loss of an algorithm on a batch."""

    algorithm: Algorithm
    batch: StepBatch
    noise_floor: float
    vocabulary_size: int
    off_policy: Correction = UNCORRECTED

    def credit(self, signals: TokenSignals, rows: list[int], old_logprobs: Tensor | None = None) -> Credit:
        """The credit of those rows of the batch that `signals` is about, in its order.

        `old_logprobs` [b, T]: by the policy before the step's first update, if the signals are of a later one.
        """
        return self.algorithm.credit(
            self.informed(signals, rows),
            advantages=self.batch.advantages[rows],
            old_logprobs=old_logprobs,
            vocabulary_size=self.vocabulary_size,
            noise_floor=self.noise_floor,
            control_seeds=[self.batch.control_seeds[row] for row in rows],
        )

    def informed(self, signals: TokenSignals, rows: list[int]) -> TokenSignals:
        """The signals of those rows, with what an oracle knows of them."""
        places = self.batch.first_errors
        if places is None:
            return signals
        return replace(signals, first_error=marked([places[row] for row in rows], signals.mask))

    def correction(self, old_logprobs: Tensor, mask: Tensor, rows: list[int]) -> Tensor | None:
        """Factors for those rows, whose log-probs [b, T] before any update of the step these are. None: all are 1."""
        if not self.off_policy.is_due(drawn_by_another=self.batch.drawn_by_another):
            return None
        return self.off_policy.of([self.batch.rollouts[row] for row in rows], old_logprobs, mask).factors

    def trained(self, rows: list[int]) -> list[int]:
        """Those of `rows` that can move a weight. A rollout with A = 0 has no policy gradient, only one of the KL term.

        The others are left out to save their passes; they stay in every denominator.
        """
        lengths, advantages = self.batch.lengths, self.batch.advantages
        keep = self.algorithm.algo.kl_coef > 0
        return [row for row in rows if lengths[row] and (keep or float(advantages[row]) != 0.0)]

    def ungated(self) -> Objective:
        """The same with uniform credit."""
        return replace(self, algorithm=self.algorithm.ungated())

    def terms(self) -> dict[str, Objective]:
        """The loss's policy term and its KL term, each alone; none if there is no KL term to tell apart."""
        if not self.algorithm.algo.kl_coef:
            return {}
        no_advantage = replace(self.batch, advantages=torch.zeros_like(self.batch.advantages))
        return {
            "policy": replace(self, algorithm=self.algorithm.without_kl()),
            "kl": replace(self, batch=no_advantage),
        }


SUMMED = ("tokens", "clipped_low", "clipped_high", "ratio_error", "positions", "padding")


@dataclass
class Tally:
    """Sums over the micro-batches of one update, and over the updates of one step."""

    loss: float = 0.0
    tokens: int = 0
    clipped_low: int = 0
    clipped_high: int = 0
    ratio_error: float = 0.0  # of |ratio - 1|
    kl_values: list[Tensor] = field(default_factory=list)
    positions: int = 0
    padding: int = 0

    def add(self, batch: MicroBatch, loss: PolicyLoss, value: float) -> None:
        """A micro-batch whose tokens added `value` to the minibatch's loss."""
        mask = batch.mask.to(loss.ratio.device)
        self.loss += value
        self.tokens += int(mask.sum())
        self.clipped_low += int(loss.clipped_low.sum())
        self.clipped_high += int(loss.clipped_high.sum())
        self.ratio_error += float((loss.ratio - 1.0).abs()[mask].double().sum())
        if loss.kl is not None:
            self.kl_values.append(loss.kl[mask].cpu())
        self.positions += batch.input_ids.numel()
        self.padding += batch.padding

    def over(self, processes: Processes) -> Tally:
        """The sums over all processes, the same in each; the tokens' KL in the main one alone.

        The loss is a sum too: each token has its final weight.
        """
        if processes.alone:
            return self
        told = processes.gathered((replace(self, kl_values=[]), bool(self.kl_values)))
        parts, kl = [part for part, _ in told], []
        if any(has_kl for _, has_kl in told):
            own = torch.cat([torch.empty(0), *self.kl_values])
            kl = [part[0] for part in processes.rows_to_main(own[None], SIGNALS)]
        return replace(_summed(parts), loss=sum(part.loss for part in parts), kl_values=kl)


def merged(tallies: list[Tally]) -> Tally:
    """One tally over the updates of a step: the loss is their mean, the rest are sums."""
    return replace(_summed(tallies), loss=sum(tally.loss / len(tallies) for tally in tallies))


def _summed(tallies: list[Tally]) -> Tally:
    """The sums of all but the loss."""
    sums = {name: sum(getattr(tally, name) for tally in tallies) for name in SUMMED}
    return Tally(**sums, kl_values=[values for tally in tallies for values in tally.kl_values])


@dataclass(frozen=True)
class StepResult:
    """What the updates of one step did."""

    tallies: list[Tally]
    outcomes: list[UpdateOutcome]
    skipped: int  # updates without signal, or with a gradient that was not finite
    nonfinite: int
    nonfinite_streak: int  # updates without a finite gradient since the last that was applied, over steps
    signals: TokenSignals | None  # by the policy before the first update; None if nothing was scored
    credit: Credit | None  # that trained
    score_seconds: float
    train_seconds: float
    term_norms: dict[str, float] = field(default_factory=dict)  # grad_norm/policy, grad_norm/kl, if asked for
    cosines: dict[str, float | None] = field(default_factory=dict)  # credit/grad_cos, credit/update_cos, if asked for
    engine_gap: dict[str, float] = field(default_factory=dict)  # engine/logprob_gap_*, if the engine says log-probs
    used: UsedCredit | None = None  # if each update had credit of its own: `credit` is the mean over them
