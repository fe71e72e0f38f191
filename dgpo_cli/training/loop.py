"""The loop: prompts -> rollouts -> rewards -> advantages -> credit -> loss -> step.

It owns the order of these, of evaluations and of checkpoints. What a step draws is collect.py's, how it trains
update.py's, what it tells journal.py's; which engine draws is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.gating_needs import gates_noise
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.crew import Crew
from dgpo_cli.errors import RunError
from dgpo_cli.evidence.first_errors import FirstErrors
from dgpo_cli.models.frozen import renew
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.processes import Processes
from dgpo_cli.reporting.console import TrainingView
from dgpo_cli.terminal import FirstPhases, phase
from dgpo_cli.traffic import SAMPLES, TRAFFIC
from dgpo_cli.training.checkpoint import Checkpoints, RunState, checkpoint_name
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.evaluations import Evaluations
from dgpo_cli.training.journal import Journal, is_due
from dgpo_cli.training.metrics import metrics_row, peak_bytes, traffic_row
from dgpo_cli.training.optimizer import Optimizer, learning_rate
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.step import StepBatch, StepResult
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.supply import Supply
from dgpo_cli.training.trackers import Trackers
from dgpo_cli.training.update import Updater
from dgpo_cli.types import Engine


@dataclass
class Trainer:
    """Everything that a run is made of; `run` is the loop."""

    config: TrainConfig
    folder: RunFolder
    checkpoints: Checkpoints
    state: RunState
    model: LanguageModel
    reference: LanguageModel | None
    algorithm: Algorithm
    supply: Supply
    optimizer: Optimizer
    updater: Updater
    benchmarks: Mapping[str, Callable[[int], dict[str, Any]]]  # by name: the row of eval.jsonl after that step
    tracker: Trackers
    view: TrainingView
    guard: StopGuard
    engine: Engine
    crew: Crew
    first_errors: FirstErrors | None = None  # of an oracle gating alone

    def __post_init__(self) -> None:
        self._first_phases = FirstPhases()
        self.journal = Journal(
            self.config, self.folder, self.tracker, self.view, self.state, self.model, self.algorithm
        )
        self.evaluations = Evaluations(
            self.config,
            self.benchmarks,
            self.engine,
            self.crew,
            self.guard,
            self.folder,
            self.checkpoints,
            self.journal,
            self.save,
        )

    @property
    def processes(self) -> Processes:
        return self.crew.processes

    def run(self) -> None:
        """Train from the state's step to the last, evaluating before, during and after. All processes do so together.

        What is decided from files, graders and clocks is decided by the main one; everything else is the same in each.
        """
        if self.state.step == 0 or is_due(self.state.step, self.config.eval.every):
            self.evaluations.after(self.state.step)
        for step in range(self.state.step + 1, self.config.steps + 1):
            self._step(step)
            if is_due(step, self.config.eval.every):
                self.evaluations.after(step)
        self.evaluations.after(self.config.steps)

    def _step(self, step: int) -> None:
        started = time.perf_counter()
        # prompts -> rollouts -> rewards
        with self._phase("load", f"step {step}: loading the weights into the engine"):
            self.engine.load(step - 1)
        collected = self.supply.take(step, self.state.next_draw)
        self.engine.rest()
        # -> advantages
        batch = self._batch(step, collected)
        with self._phase("noise", f"step {step}: measuring the noise floor of the distance"):
            noise_floor = self._noise_floor(batch)
        lr = learning_rate(step, self.config.steps, self.config.optim, self.state.decay_from)
        self.supply.begin(step + 1, collected.next_draw, self.evaluations.beside)
        self.guard.agree()
        with self.guard.protected():  # from the first update to the row and the checkpoint, all or nothing
            batch = self._with_alternatives(step, batch)
            # -> credit -> loss -> step
            with self._phase("update", f"step {step}: scoring and updating on {len(batch.rollouts)} completions"):
                result = self.updater.run(
                    batch,
                    lr=lr,
                    noise_floor=noise_floor,
                    guard=self.guard,
                    terms=is_due(step, self.config.optim.grad_norms_every),
                    cosines=is_due(step, self.config.optim.grad_cos_every),
                    nonfinite_streak=self.state.nonfinite_streak,
                )
            self._guard_against_nonfinite(step, batch, collected, result)
            self.supply.finish()
            self.evaluations.keep()
            seconds, peak = time.perf_counter() - started, self.processes.highest(peak_bytes())[0]
            measured, traffic = self.engine.measured(), TRAFFIC.taken()
            self._advance(step, collected)
            if self.processes.main:  # the others have neither verdicts nor all scores
                diagnostics = self._diagnostics(batch, result)
                row = metrics_row(step, lr, collected, result, diagnostics, seconds=seconds, peak=peak)
                row |= {**measured, **self.supply.idle(seconds), **self._left_out(collected)}
                row |= {} if self.processes.alone else traffic_row(traffic)
                self.journal.step(row, collected, batch, result)
            self._refresh_reference(step)
            if is_due(step, self.config.checkpoint.every) or step == self.config.steps:
                self.save()

    def _phase(self, kind: str, text: str) -> AbstractContextManager[None]:
        """What the first step does, in the main process's words; the lines of steps speak for the later ones."""
        return self._first_phases(kind, text) if self.processes.main else nullcontext()

    def save(self) -> None:
        """Checkpoint the state as it stands, unless that was done already."""
        self.checkpoints.settle()
        if self.processes.from_main(self.checkpoints.newest_name()) == checkpoint_name(self.state.step):
            return
        renewed = self.reference if self.config.reference.refresh_every else None
        with phase(f"saving after step {self.state.step}") if self.processes.main else nullcontext():
            self.checkpoints.save(self.state, self.model, self.optimizer, renewed, self.supply.ahead)

    def _batch(self, step: int, collected: Collected) -> StepBatch:
        """What a step trains on. Rewards stay rewards: their advantages stand in a record of their own."""
        return StepBatch(
            rollouts=collected.rollouts,
            lengths=self.algorithm.counted_lengths(collected.rollouts),
            advantages=self.algorithm.advantages(collected.rewards),
            group_size=self.config.rollout.group_size,
            control_seeds=[
                derive_seed("control", self.config.seed, step, rollout.request.draw, rollout.request.sample)
                for rollout in collected.rollouts
            ],
            policy_step=self.state.step,
            group_accuracy=collected.rewards.group_accuracy(),
            first_errors=self._first_errors(collected),
        )

    def _first_errors(self, collected: Collected) -> list[int | None] | None:
        """[B] what an oracle gating knows; None for every other gating."""
        known, main = self.first_errors, self.processes.main
        if known is None:
            return None
        return self.processes.from_main(known.places(collected.rollouts, collected.verdicts) if main else [], SAMPLES)

    def _with_alternatives(self, step: int, batch: StepBatch) -> StepBatch:
        """The batch with what its tokens could have been, if that is stored of this step."""
        count = self.config.rollout.alternatives
        if not count or not self.journal.saves_rollouts(step):
            return batch
        return replace(batch, alternatives=self.updater.alternatives(batch, count))

    def _noise_floor(self, batch: StepBatch) -> float:
        """Measured once, on the first rollouts there are, and kept in the checkpoint."""
        if self.state.noise_floor is None and not any(batch.lengths):
            return 0.0
        if self.state.noise_floor is None:
            self.state.noise_floor = self.updater.noise_floor(batch) if gates_noise(self.config.gating) else 0.0
        return self.state.noise_floor

    def _advance(self, step: int, collected: Collected) -> None:
        """The state after a step, as a checkpoint keeps it."""
        self.state.step, self.state.next_draw = step, collected.next_draw
        self.state.scores_given = (self.supply.ahead or collected).scores_given  # the function was last called for it
        self.state.tokens_per_microbatch = self.updater.budget.halved

    def _diagnostics(self, batch: StepBatch, result: StepResult) -> dict[str, float | None]:
        """Of the credit that trained; the mean over the updates, if each had its own."""
        if result.used is not None:
            return result.used.diagnostics()
        if result.signals is None or result.credit is None:
            return {}
        return self.algorithm.diagnostics(result.signals, result.credit, batch.advantages, batch.group_accuracy)

    def _left_out(self, collected: Collected) -> dict[str, float]:
        share = self.algorithm.other_sign(collected.rewards)
        return {} if share is None else {"samples/other_sign": share}

    def _guard_against_nonfinite(self, step: int, batch: StepBatch, collected: Collected, result: StepResult) -> None:
        """Several updates in a row without a finite gradient end the run; the batch that did it is kept."""
        streak = self.state.nonfinite_streak = result.nonfinite_streak
        if result.nonfinite and self.processes.main:
            skipped = "1 update was" if result.nonfinite == 1 else f"{result.nonfinite} updates were"
            self.view.note(f"warning: step {step}: {skipped} skipped, without a finite gradient")
        if streak and streak >= self.config.optim.max_nonfinite:
            path = None
            if self.processes.main:
                records = self.journal.records(collected, batch, result)
                path = self.folder.save_rollouts(step, records, name="nonfinite_step")
            path = self.processes.from_main(path)
            row = "1 update" if streak == 1 else f"{streak} updates in a row"
            raise RunError(
                f"{row} had a gradient that was not finite, the last in step {step}; the batch is in {path}",
                "a smaller optim.lr, or rewards of a smaller size (algo.scale_rewards=group); resume= continues from "
                "the last checkpoint",
            )

    def _refresh_reference(self, step: int) -> None:
        if self.reference is not None and is_due(step, self.config.reference.refresh_every):
            renew(self.reference, self.model)
