"""The loop: prompts -> rollouts -> rewards -> advantages -> credit -> loss -> step."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.gating_needs import gates_noise
from dgpo_cli.config.groups import SaveRollouts
from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.crew import Crew
from dgpo_cli.errors import RunError
from dgpo_cli.models.frozen import renew
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.processes import Processes
from dgpo_cli.records.rollout_records import rollout_records
from dgpo_cli.records.token_spelling import token_speller
from dgpo_cli.reporting.console import TrainingView
from dgpo_cli.training.advice import follow, why_nothing_was_learned
from dgpo_cli.training.checkpoint import Checkpoints, RunState, checkpoint_name
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.metrics import metrics_row, peak_bytes
from dgpo_cli.training.optimizer import Optimizer, learning_rate
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.step import StepBatch, StepResult
from dgpo_cli.training.stopping import StopGuard
from dgpo_cli.training.tracker import Tracker
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
    collect: Callable[[int, int], Collected]  # a step, its first draw; in the main process
    optimizer: Optimizer
    updater: Updater
    evaluate: Callable[[int], dict[str, Any] | None]  # the row of eval.jsonl after that step; None without a benchmark
    tracker: Tracker
    view: TrainingView
    guard: StopGuard
    engine: Engine
    crew: Crew

    @property
    def processes(self) -> Processes:
        return self.crew.processes

    def run(self) -> None:
        """Train from the state's step to the last, evaluating before, during and after. All processes do so together.

        What is decided from files, graders and clocks is decided by the main one; everything else is the same in each.
        """
        if self.state.step == 0 or self._due(self.state.step, self.config.eval.every):
            self._evaluate_and_log(self.state.step)
        for step in range(self.state.step + 1, self.config.steps + 1):
            self._step(step)
            if self._due(step, self.config.eval.every):
                self._evaluate_and_log(step)
        self._evaluate_and_log(self.config.steps)

    def _step(self, step: int) -> None:
        started = time.perf_counter()
        self.engine.load(step - 1)
        collected = self.crew.on_main(lambda: self.collect(step, self.state.next_draw))
        advantages = self.algorithm.advantages(collected.rewards)
        batch = StepBatch(
            rollouts=collected.rollouts,
            lengths=self.algorithm.counted_lengths(collected.rollouts),
            advantages=advantages,
            group_size=self.config.rollout.group_size,
            control_seeds=self._control_seeds(step, collected),
            policy_step=self.state.step,
        )
        noise_floor = self._noise_floor(batch)
        lr = learning_rate(step, self.config.steps, self.config.optim, self.state.decay_from)
        self.guard.agree()
        with self.guard.protected():  # from the first update to the row and the checkpoint, all or nothing
            result = self.updater.run(
                batch,
                lr=lr,
                noise_floor=noise_floor,
                guard=self.guard,
                terms=self._due(step, self.config.optim.grad_norms_every),
                nonfinite_streak=self.state.nonfinite_streak,
            )
            self._guard_against_nonfinite(step, batch, collected, result)
            row = metrics_row(
                step,
                lr,
                collected,
                result,
                self._diagnostics(batch, result),
                seconds=time.perf_counter() - started,
                peak=self.processes.highest(peak_bytes())[0],
            )
            self.state.step, self.state.next_draw = step, collected.next_draw
            self.state.scores_given = collected.scores_given
            self.state.tokens_per_microbatch = self.updater.budget.halved
            if self.processes.main:
                self._report(row, collected, result)
            self._refresh_reference(step)
            if self._due(step, self.config.checkpoint.every) or step == self.config.steps:
                self.save()

    def save(self) -> None:
        """Checkpoint the state as it stands, unless that was done already."""
        if self.processes.from_main(self.checkpoints.newest_name()) == checkpoint_name(self.state.step):
            return
        renewed = self.reference if self.config.reference.refresh_every else None
        self.checkpoints.save(self.state, self.model, self.optimizer, renewed)

    def _report(self, row: dict[str, Any], collected: Collected, result: StepResult) -> None:
        advice = follow(row, self.state, gates=self.algorithm.gates)
        self._keep_rollouts(row["step"], collected, result)
        self.folder.add_metrics(row)
        self.tracker.log(row)
        self.view.step(row)
        nothing = why_nothing_was_learned(row, self.state)
        for text in ([nothing] if nothing else []) + advice:
            self.view.note(f"note: {text}")
        if collected.exhausted:
            self.view.note(_exhausted_line(row, collected, self.config.rollout.prompts_per_step))

    def _keep_rollouts(self, step: int, collected: Collected, result: StepResult) -> None:
        """Rollouts go to the run's folder and to W&B at their intervals; the last step's credit page too."""
        logger, last = self.config.logger, step == self.config.steps
        saved = self._saves_rollouts(step)
        tabled = logger.completions_every > 0 and (step == 1 or last or self._due(step, logger.completions_every))
        paged = self._due(step, logger.report_every) or (last and logger.report_every >= 0)
        if not (saved or ((tabled or paged) and self.tracker.run_id is not None)):
            return
        records = self._records(step, collected, result)
        if saved:
            self.folder.save_rollouts(step, records)
        if tabled or paged:
            self.tracker.show(step, records, table=tabled, gating=self.config.gating if paged else None)

    def _evaluate_and_log(self, step: int) -> None:
        self.engine.load(step)
        row, is_best = self.crew.on_main(lambda: self._evaluated(step))
        if row is None:
            return
        with self.guard.protected():
            if is_best and self.config.checkpoint.keep_best:
                self.save()
            if self.processes.main:
                self._report_evaluation(row, is_best)

    def _evaluated(self, step: int) -> tuple[dict[str, Any] | None, bool]:
        """The row of an evaluation after `step`, and whether no earlier one was as good; nothing if it was done."""
        done = self.folder.evaluated_steps()
        row = None if step in done else self.evaluate(step)
        if row is None:
            return None, False
        best = max((earlier["avg_at_k"]["value"] for at, earlier in done.items() if at), default=float("-inf"))
        return row, bool(step) and row["avg_at_k"]["value"] > best

    def _report_evaluation(self, row: dict[str, Any], is_best: bool) -> None:
        if is_best and self.config.checkpoint.keep_best:
            self.checkpoints.name_best(row["step"])
        self.folder.add_evaluation(row)
        self.tracker.log({"step": row["step"], f"eval/{row['benchmark']}/avg_at_k": row["avg_at_k"]["value"]})
        self.view.note(_evaluation_line(row))

    def _diagnostics(self, batch: StepBatch, result: StepResult) -> dict[str, float | None]:
        """Of the credit that trained: where each update had its own, the mean over them."""
        if result.used is not None:
            return result.used.diagnostics()
        if result.signals is None or result.credit is None:
            return {}
        return self.algorithm.diagnostics(result.signals, result.credit, batch.advantages)

    def _records(self, step: int, collected: Collected, result: StepResult) -> list[dict[str, Any]]:
        return rollout_records(
            collected.rollouts,
            collected.verdicts,
            collected.rewards.final.tolist(),
            self.algorithm.advantages(collected.rewards).tolist(),
            result.signals,
            result.credit,
            spell=token_speller(self.model.tokenizer),
            vocabulary_size=self.model.vocabulary_size,
            noise_floor=self.state.noise_floor if self._measures_noise else None,
            control_seeds=self._control_seeds(step, collected),
            credit_updates=None if result.used is None else result.used.times(),
        )

    @property
    def _measures_noise(self) -> bool:
        return gates_noise(self.algorithm.gating)

    def _noise_floor(self, batch: StepBatch) -> float:
        """Measured once, on the first rollouts there are, and kept in the checkpoint."""
        if self.state.noise_floor is None and not any(batch.lengths):
            return 0.0
        if self.state.noise_floor is None:
            self.state.noise_floor = self.updater.noise_floor(batch) if self._measures_noise else 0.0
        return self.state.noise_floor

    def _control_seeds(self, step: int, collected: Collected) -> list[int]:
        return [
            derive_seed("control", self.config.seed, step, rollout.request.draw, rollout.request.sample)
            for rollout in collected.rollouts
        ]

    def _guard_against_nonfinite(self, step: int, batch: StepBatch, collected: Collected, result: StepResult) -> None:
        """Several updates in a row without a finite gradient end the run; the batch that did it is kept."""
        streak = self.state.nonfinite_streak = result.nonfinite_streak
        if result.nonfinite and self.processes.main:
            skipped = "1 update was" if result.nonfinite == 1 else f"{result.nonfinite} updates were"
            self.view.note(f"warning: step {step}: {skipped} skipped, without a finite gradient")
        if streak and streak >= self.config.optim.max_nonfinite:
            path = None
            if self.processes.main:
                path = self.folder.save_rollouts(step, self._records(step, collected, result), name="nonfinite_step")
            path = self.processes.from_main(path)
            row = "1 update" if streak == 1 else f"{streak} updates in a row"
            raise RunError(
                f"{row} had a gradient that was not finite, the last in step {step}; the batch is in {path}",
                "a smaller optim.lr, or rewards of a smaller size (algo.scale_rewards=group); resume= continues from "
                "the last checkpoint",
            )

    def _refresh_reference(self, step: int) -> None:
        if self.reference is not None and self._due(step, self.config.reference.refresh_every):
            renew(self.reference, self.model)

    def _saves_rollouts(self, step: int) -> bool:
        mode = self.config.rollout.save
        chosen = step == 1 or step % 10 == 0 or step == self.config.steps
        return mode is SaveRollouts.all or (mode is SaveRollouts.some and chosen)

    @staticmethod
    def _due(step: int, every: int) -> bool:
        return every > 0 and step % every == 0


def _exhausted_line(row: dict[str, Any], collected: Collected, wanted: int) -> str:
    kept, drawn = collected.rewards.groups, collected.sampled.groups
    dropped = f"{drawn - kept} of {drawn} dropped"
    if row["groups/all_correct"] is not None:
        dropped += f", {row['groups/all_correct']:.0%} all right, {row['groups/all_wrong']:.0%} all wrong"
    return (
        f"warning: dynamic sampling kept {kept} of {wanted} groups after {collected.refills} refills ({dropped}): "
        "trained on those"
    )


def _evaluation_line(row: dict[str, Any]) -> str:
    average = row["avg_at_k"]
    low, high = average["ci95"] or (None, None)
    interval = f" [{low:.1%}, {high:.1%}]" if low is not None else ""
    return f"{row['benchmark']} after step {row['step']}: avg@{average['k']} {average['value']:.1%}{interval}"
