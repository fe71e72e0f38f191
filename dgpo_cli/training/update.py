"""From advantages to new weights: credit -> loss -> step, in minibatches, epochs and micro-batches.

With one minibatch and one epoch the policy that sampled is the policy that is trained: its log-probs, detached, are the
old ones, and the signals of credit come out of the training pass itself. Otherwise one scoring pass goes before the
updates. Loss denominators belong to the whole minibatch and are fixed before its first micro-batch.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.algorithm import Algorithm, Credit
from dgpo_cli.config.commands import OptimConfig
from dgpo_cli.config.gating_needs import scores_each_update, scores_first
from dgpo_cli.core.credit import TokenSignals
from dgpo_cli.core.policy_loss import PolicyLoss, token_weights
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch, dealt, make_microbatches, mask_of, scatter_rows
from dgpo_cli.models.noise_floor import measure_noise_floor, noise_sizes
from dgpo_cli.models.scoring import (
    logprobs_and_stats,
    logprobs_of_states,
    predictive_states,
    score_rollouts,
    share_values,
    signals_of_stats,
)
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.training.current_credit import ReferenceStates, UsedCredit, joined
from dgpo_cli.training.engine_gap import logprob_gap
from dgpo_cli.training.optimizer import Optimizer, UpdateOutcome
from dgpo_cli.training.out_of_memory import MicrobatchBudget, Result
from dgpo_cli.training.stopping import StepUnderway, StopGuard, StopRequested, UnfinishedStep
from dgpo_cli.types import Rollout


@dataclass(frozen=True)
class StepBatch:
    """What a step trains on: B rollouts with their advantages."""

    rollouts: list[Rollout]
    lengths: list[int]  # counted tokens
    advantages: Tensor  # [B]
    group_size: int
    control_seeds: list[int]  # [B]


SUMMED = ("loss", "tokens", "clipped_low", "clipped_high", "ratio_error", "positions", "padding")


@dataclass
class Tally:
    """Sums over the micro-batches of one update, and over the updates of one step."""

    loss: float = 0.0
    tokens: int = 0
    clipped_low: int = 0
    clipped_high: int = 0
    ratio_error: float = 0.0
    kl_values: list[Tensor] = field(default_factory=list)
    positions: int = 0
    padding: int = 0

    def add(self, batch: MicroBatch, loss: PolicyLoss, value: float) -> None:
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
        """The sums over all processes, the same in each."""
        if processes.alone:
            return self
        parts = processes.gathered(self)
        sums = {name: sum(getattr(part, name) for part in parts) for name in SUMMED}
        return Tally(**sums, kl_values=[values for part in parts for values in part.kl_values])


@dataclass(frozen=True)
class StepResult:
    """What the updates of one step did."""

    tallies: list[Tally]
    outcomes: list[UpdateOutcome]
    skipped: int  # updates without signal, or with a gradient that was not finite
    nonfinite: int
    nonfinite_streak: int  # updates without a finite gradient since the last that was applied, over steps
    signals: TokenSignals | None  # by the policy that sampled
    credit: Credit | None  # that trained
    score_seconds: float
    train_seconds: float
    term_norms: dict[str, float] = field(default_factory=dict)  # grad_norm/policy, grad_norm/kl, where asked for
    engine_gap: dict[str, float] = field(default_factory=dict)  # engine/logprob_gap_*, where the engine says log-probs
    used: UsedCredit | None = None  # where each update had credit of its own: `credit` is the mean over them


class Updater:
    """Turns a step's batch into optimizer updates."""

    def __init__(
        self,
        model: LanguageModel,
        reference: LanguageModel | None,
        algorithm: Algorithm,
        optimizer: Optimizer,
        settings: OptimConfig,
        *,
        temperature: float,
        say: Callable[[str], None] = print,
        processes: Processes = SOLO,
    ) -> None:
        self.processes = processes
        self.model = model
        self.reference = reference if algorithm.needs_reference else None
        self.algorithm = algorithm
        self.optimizer = optimizer
        self.settings = settings
        self.temperature = temperature
        self.budget = MicrobatchBudget(settings.tokens_per_microbatch, say)
        self._ref_states: ReferenceStates | None = None  # within a step, where updates score again

    def run(
        self,
        batch: StepBatch,
        *,
        lr: float,
        noise_floor: float,
        guard: StopGuard,
        terms: bool = False,
        nonfinite_streak: int = 0,
    ) -> StepResult:
        """Minibatches x epochs updates; fewer where optim.max_nonfinite in a row had no finite gradient.

        `terms`: also the gradient norms of the loss's terms, of the first minibatch that is trained.
        `nonfinite_streak`: such updates since the last that was applied, before this step.

        Raises:
            StopRequested: a signal came before the first update; no weight has moved.
            UnfinishedStep: one came after it, and the rest would take longer than its grace time.
        """
        self._noise_floor = noise_floor
        plan = self._plan(batch)
        self._underway = StepUnderway(guard, len(plan) * self.settings.epochs)
        try:
            return self._run(batch, plan, lr, terms, nonfinite_streak)
        except (StopRequested, UnfinishedStep):
            self.optimizer.zero_grad()  # what is saved next can do with the memory
            self._ref_states = None
            raise

    def noise_floor(self, batch: StepBatch) -> float:
        """The numerical floor of the distance, on the first of these rollouts; the same in every process."""

        def measured() -> float:
            return self.processes.all_or_none(
                lambda _: measure_noise_floor(
                    self.model,
                    batch.rollouts,
                    batch.lengths,
                    temperature=self.temperature,
                    tokens=self.budget.tokens,
                    after_each=self.processes.beat,
                ),
                apart=self.model.shards is None,
                rounds=0,
                after_each=lambda: None,
            )

        def in_use() -> tuple[int, int]:
            return noise_sizes(batch.rollouts, batch.lengths, tokens=self.budget.tokens)

        return self.processes.from_main(self._fitted(measured, in_use))

    def _run(
        self, batch: StepBatch, plan: list[list[int]], lr: float, terms: bool, nonfinite_streak: int
    ) -> StepResult:
        started = time.perf_counter()
        signals, credit, used = None, None, None
        if self._rescores(plan):
            used = UsedCredit((len(batch.lengths), max(batch.lengths, default=0)))
            self._ref_states = None if self.reference is None else ReferenceStates(self.reference)
            signals = self._fitted_to(batch, lambda: joined([self._score(batch, rows) for rows in plan]))
        elif not self._inline(batch, plan):
            signals, credit = self._fitted_to(batch, lambda: self._score_all(batch, plan))
        scored = time.perf_counter()
        tallies: list[Tally] = []
        outcomes: list[UpdateOutcome] = []
        norms: dict[str, float] = {}
        gap: dict[str, float] = {}
        skipped = nonfinite = 0
        updates = plan * self.settings.epochs
        self._underway.begin()
        for rows in updates:
            self._underway.ask()
            if not self._trained_rows(batch, rows):
                skipped += 1
                self._underway.passed(taken=False)
                continue
            current = None
            if used is not None:
                current, credit = self._fitted_to(batch, partial(self._scored_again, batch, rows))
            if terms and not tallies and self.algorithm.algo.kl_coef:
                norms = self._norms_of_terms(batch, plan, rows, signals, credit)
            work = partial(self._minibatch, batch, plan, rows, signals, credit)
            tally, signals, credit = self._fitted_to(batch, work)
            if not tallies:  # no weight has moved: these are the log-probs of the policy that sampled
                gap = logprob_gap(batch.rollouts, signals)
            tallies.append(tally)
            outcomes.append(self.optimizer.update(lr, tally.loss))
            self._underway.passed(taken=True)
            if not outcomes[-1].applied:
                nonfinite, nonfinite_streak = nonfinite + 1, nonfinite_streak + 1
                if nonfinite_streak >= self.settings.max_nonfinite:
                    break
                continue
            nonfinite_streak = 0
            if used is not None and current is not None:
                diagnosed = self.algorithm.diagnostics(current, credit, batch.advantages)
                used.add(self._trained_rows(batch, rows), credit, diagnosed)
        self._ref_states = None
        return StepResult(
            tallies,
            outcomes,
            skipped + nonfinite,
            nonfinite,
            nonfinite_streak,
            signals,
            credit if used is None else used.credit(),
            scored - started,
            time.perf_counter() - scored,
            norms,
            gap,
            used,
        )

    def _rescores(self, plan: list[list[int]]) -> bool:
        """Whether every update gets credit by the policy as it is then."""
        return scores_each_update(self.algorithm.gating, updates=len(plan) * self.settings.epochs)

    def _scored_again(self, batch: StepBatch, rows: list[int]) -> tuple[TokenSignals, Credit]:
        """One minibatch by the policy as it is now."""
        signals = self._score(batch, rows)
        return signals, self._credit(signals, batch.control_seeds)

    def _norms_of_terms(
        self,
        batch: StepBatch,
        plan: list[list[int]],
        rows: list[int],
        signals: TokenSignals | None,
        credit: Credit | None,
    ) -> dict[str, float]:
        """Gradient norms of one minibatch's policy term and of its KL term, each alone; no weight moves."""
        policy = copy.copy(self)
        policy.algorithm = self.algorithm.without_kl()
        no_advantage = replace(batch, advantages=torch.zeros_like(batch.advantages))
        norms = {}
        for name, updater, given in (("policy", policy, batch), ("kl", self, no_advantage)):
            self._fitted_to(given, partial(updater._minibatch, given, plan, rows, signals, credit))
            norms[f"grad_norm/{name}"] = self.optimizer.spent_norm()
        return norms

    def _fitted_to(self, batch: StepBatch, work: Callable[[], Result]) -> Result:
        """`work` on the batch's micro-batches, with such that memory holds."""

        def in_use() -> tuple[int, int]:
            rows = list(range(len(batch.rollouts)))
            sizes = [micro.input_ids.shape for micro in self._microbatches(batch, rows)]
            return max(count * width for count, width in sizes), max(width for _, width in sizes)

        return self._fitted(work, in_use)

    def _fitted(self, work: Callable[[], Result], in_use: Callable[[], tuple[int, int]]) -> Result:
        """`work`, cut by the budget, in such pieces that memory holds."""
        if self.model.shards is not None and not self.processes.alone:
            return work()  # the others wait in the middle of it, and cannot go back
        return self.budget.fitted(work, clean_up=self.optimizer.zero_grad, in_use=in_use)

    def _score_all(self, batch: StepBatch, plan: list[list[int]]) -> tuple[TokenSignals, Credit]:
        """The scoring pass before the updates."""
        signals = self._score(batch, [row for rows in plan for row in rows])
        return signals, self._credit(signals, batch.control_seeds)

    def _minibatch(
        self,
        batch: StepBatch,
        plan: list[list[int]],
        rows: list[int],
        signals: TokenSignals | None,
        credit: Credit | None,
    ) -> tuple[Tally, TokenSignals, Credit]:
        """The gradient of one minibatch, with the step's signals and credit."""
        if signals is None and not self._inline(batch, plan):  # no longer: the micro-batches became smaller
            signals, credit = self._score_all(batch, plan)
        recorder = _Recorder(batch, has_reference=self.reference is not None) if signals is None else None
        tally = self._whole(batch, rows, signals, credit, recorder)
        if recorder is not None:
            recorder.share(self.processes)
            signals, credit = recorder.signals(), recorder.credit()
        assert signals is not None
        assert credit is not None
        return tally, signals, credit

    def _plan(self, batch: StepBatch) -> list[list[int]]:
        """Rows of each minibatch: whole groups, in draw order; fewer minibatches only where there are fewer groups."""
        groups = len(batch.rollouts) // batch.group_size
        cuts = np.array_split(np.arange(groups), self.settings.minibatches)
        return [
            [row for group in cut.tolist() for row in range(group * batch.group_size, (group + 1) * batch.group_size)]
            for cut in cuts
            if len(cut)
        ]

    def _trained_rows(self, batch: StepBatch, rows: list[int]) -> list[int]:
        """Rows that can move a weight. Those with A = 0 do only through KL; they stay in every denominator."""
        keep = self.algorithm.algo.kl_coef > 0
        return [row for row in rows if batch.lengths[row] and (keep or float(batch.advantages[row]) != 0.0)]

    def _inline(self, batch: StepBatch, plan: list[list[int]]) -> bool:
        """Whether the training pass can give the signals of credit itself."""
        updates = len(plan) * self.settings.epochs
        # What depends on the whole batch can come out of the training pass only if that trains all of its rollouts.
        rows = [row for row, length in enumerate(batch.lengths) if length]
        if self.algorithm.credit_needs_batch and self._trained_rows(batch, rows) != rows:
            return False
        count = len(self._microbatches(batch, rows)) if self.algorithm.credit_needs_batch else 1
        return not scores_first(self.algorithm.gating, updates=updates, micro_batches=count)

    def _microbatches(self, batch: StepBatch, rows: list[int]) -> list[MicroBatch]:
        return make_microbatches(
            batch.rollouts,
            rows,
            batch.lengths,
            tokens=self.budget.tokens,
            pad_id=self.model.pad_id,
            processes=self.processes.size,
        )

    def _score(self, batch: StepBatch, rows: list[int]) -> TokenSignals:
        return score_rollouts(
            self.model,
            self.reference,
            batch.rollouts,
            batch.lengths,
            temperature=self.temperature,
            tokens=self.budget.tokens,
            rows=rows,
            processes=self.processes,
            after_each=self._underway.ask,
            reference_states=self._ref_states,
        )

    def _credit(self, signals: TokenSignals, control_seeds: list[int]) -> Credit:
        return self.algorithm.credit(
            signals,
            vocabulary_size=self.model.vocabulary_size,
            noise_floor=self._noise_floor,
            control_seeds=control_seeds,
        )

    def _whole(
        self,
        batch: StepBatch,
        rows: list[int],
        signals: TokenSignals | None,
        credit: Credit | None,
        recorder: _Recorder | None,
    ) -> Tally:
        """The gradient of one minibatch in the shares of all processes."""
        mine = dealt(self._microbatches(batch, self._trained_rows(batch, rows)), self.processes)
        tally = self.processes.all_or_none(
            partial(self._accumulate, batch, rows, mine, signals, credit, recorder),
            apart=self.model.shards is None,
            rounds=len(mine),
            after_each=self._underway.ask,
        )
        return tally.over(self.processes)

    def _accumulate(
        self,
        batch: StepBatch,
        rows: list[int],
        mine: list[tuple[MicroBatch, bool]],
        signals: TokenSignals | None,
        credit: Credit | None,
        recorder: _Recorder | None,
        after_each: Callable[[], None],
    ) -> Tally:
        """The gradient of one minibatch, summed over this process's micro-batches; those it does not count add 0."""
        algorithm, tally = self.algorithm, Tally()
        lengths = torch.tensor([batch.lengths[row] for row in rows])
        averaging = token_weights(
            lengths,
            aggregation=algorithm.algo.loss_aggregation.name,
            max_tokens=algorithm.max_completion_tokens,
        )
        weight_of = dict(zip(rows, averaging.tolist(), strict=True))
        for micro, counts in mine:
            if not counts and self.model.shards is None:
                after_each()
                continue
            device = self.model.device
            states = predictive_states(self.model, micro)
            if recorder is None:
                assert signals is not None
                assert credit is not None
                logprobs = scatter_rows(
                    logprobs_of_states(self.model, states, micro, temperature=self.temperature), micro
                )  # [b, T]
                width = micro.mask.shape[1]
                old = signals.logprobs[micro.rows, :width].to(device)
                credit_rows = credit.weights[micro.rows, :width]
                ref_rows = None if signals.ref_logprobs is None else signals.ref_logprobs[micro.rows, :width]
            else:
                flat, stats = logprobs_and_stats(
                    self.model,
                    states,
                    micro,
                    temperature=self.temperature,
                    reference=self.reference,
                    ref_states=self._reference_states(micro) if self.reference is not None else None,
                )
                logprobs = scatter_rows(flat, micro)  # [b, T]
                own = signals_of_stats(stats, micro)
                weights = self._credit(own, [batch.control_seeds[row] for row in micro.rows])
                if counts:
                    recorder.add(micro, own, weights)
                old, credit_rows = logprobs.detach(), weights.weights
                ref_rows = own.ref_logprobs
            loss = algorithm.loss(
                logprobs,
                old,
                batch.advantages[micro.rows].to(device),
                credit_rows.to(device),
                micro.mask.to(device),
                None if ref_rows is None else ref_rows.to(device),
            )
            scale = torch.tensor([weight_of[row] for row in micro.rows], device=device)[:, None]
            total = (loss.token_loss * scale).sum() * float(counts)
            total.backward()
            self.processes.beat()
            if counts:
                tally.add(micro, loss, float(total.detach()))
            after_each()
        return tally

    @torch.no_grad()
    def _reference_states(self, micro: MicroBatch) -> Tensor:
        assert self.reference is not None
        return predictive_states(self.reference, micro)


class _Recorder:
    """Gathers the signals and the credit of micro-batches into [B, T]; rows that were not trained stay unmasked."""

    def __init__(self, batch: StepBatch, *, has_reference: bool) -> None:
        shape = (len(batch.lengths), max(batch.lengths, default=0))
        names = ("logprobs", "entropy", "ref_logprobs", "hellinger") if has_reference else ("logprobs", "entropy")
        self._lengths = [0] * shape[0]
        self._values: dict[str, Tensor] = {name: torch.zeros(shape) for name in names}
        self._weights, self._score = torch.zeros(shape), torch.zeros(shape)
        self._gate = 1.0
        self._width = shape[1]

    def add(self, micro: MicroBatch, signals: TokenSignals, credit: Credit) -> None:
        width = signals.mask.shape[1]
        for row, length in zip(micro.rows, micro.lengths, strict=True):
            self._lengths[row] = length
        for name, target in self._values.items():
            target[micro.rows, :width] = getattr(signals, name)
        self._weights[micro.rows, :width] = credit.weights
        self._score[micro.rows, :width] = credit.score
        self._gate = credit.noise_gate

    def share(self, processes: Processes) -> None:
        """Put together what each process recorded."""
        self._lengths = processes.total(torch.tensor(self._lengths)).tolist()
        mask = mask_of(self._lengths, self._width)
        share_values([*self._values.values(), self._weights, self._score], mask, processes)

    def signals(self) -> TokenSignals:
        mask = mask_of(self._lengths, self._width)
        values = self._values
        return TokenSignals(
            mask, values["logprobs"], values["entropy"], values.get("ref_logprobs"), values.get("hellinger")
        )

    def credit(self) -> Credit:
        return Credit(self._weights, self._score, self._gate)


def merged(tallies: list[Tally]) -> Tally:
    """One tally over the updates of a step: the loss is their mean, the rest are sums."""
    total = Tally()
    for tally in tallies:
        total = replace(
            total,
            loss=total.loss + tally.loss / len(tallies),
            tokens=total.tokens + tally.tokens,
            clipped_low=total.clipped_low + tally.clipped_low,
            clipped_high=total.clipped_high + tally.clipped_high,
            kl_values=total.kl_values + tally.kl_values,
            positions=total.positions + tally.positions,
            padding=total.padding + tally.padding,
        )
    return total
