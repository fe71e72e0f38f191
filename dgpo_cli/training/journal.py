"""What a run tells of itself as it goes: rows, rollouts and evaluations in its folder, in W&B and on the terminal.

The main process alone keeps it. Nothing here changes what is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dgpo_cli.algorithm import Algorithm
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.gating_needs import gates_noise
from dgpo_cli.config.groups import SaveRollouts
from dgpo_cli.errors import DataError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.records.rollout_records import rollout_records
from dgpo_cli.records.token_spelling import token_speller
from dgpo_cli.reporting.console import TrainingView
from dgpo_cli.reporting.tables import score_of, score_text
from dgpo_cli.training.advice import follow, why_nothing_was_learned
from dgpo_cli.training.checkpoint import RunState
from dgpo_cli.training.collect import Collected
from dgpo_cli.training.live_page import LivePage
from dgpo_cli.training.run_folder import RunFolder
from dgpo_cli.training.step import StepBatch, StepResult
from dgpo_cli.training.trackers import Trackers


@dataclass
class Journal:
    """Where a run's steps and evaluations are written down."""

    config: TrainConfig
    folder: RunFolder
    tracker: Trackers
    view: TrainingView
    state: RunState
    model: LanguageModel
    algorithm: Algorithm
    _told_of_page: bool = False

    def step(self, row: dict[str, Any], collected: Collected, batch: StepBatch, result: StepResult) -> None:
        """A finished step: its row of metrics, its rollouts if they are due, and what the user should know."""
        advice = follow(row, self.state, gates=self.algorithm.gates)
        self._keep_rollouts(row["step"], collected, batch, result)
        self.folder.add_metrics(row)
        self.tracker.log(row)
        self.view.step(row)
        nothing = why_nothing_was_learned(row, self.state)
        for text in ([nothing] if nothing else []) + advice:
            self.view.note(f"note: {text}")
        if collected.exhausted:
            self.view.note(_exhausted_line(row, collected, self.config.rollout.prompts_per_step))

    def evaluation(self, row: dict[str, Any]) -> None:
        """The row of an evaluation, as eval.jsonl holds it."""
        self.folder.add_evaluation(row)
        name = "reward" if row["avg_at_k"] is None else "avg_at_k"
        self.tracker.log({"step": row["step"], f"eval/{row['benchmark']}/{name}": score_of(row)})
        self.view.evaluated(row)
        self.view.note(_evaluation_line(row))

    @cached_property
    def spell(self) -> Callable[[int], str]:
        """The text of a token, for stored rollouts: made once, for it reads the whole vocabulary."""
        return token_speller(self.model.tokenizer)

    def records(self, collected: Collected, batch: StepBatch, result: StepResult) -> list[dict[str, Any]]:
        """The rollouts of a step as they are stored."""
        return rollout_records(
            collected.rollouts,
            collected.verdicts,
            collected.rewards.final.tolist(),
            batch.advantages.tolist(),
            result.signals,
            result.credit,
            alternatives=batch.alternatives,
            spell=self.spell,
            vocabulary_size=self.model.vocabulary_size,
            noise_floor=self.state.noise_floor if gates_noise(self.config.gating) else None,
            control_seeds=batch.control_seeds,
            credit_updates=None if result.used is None else result.used.times(),
        )

    def _keep_rollouts(self, step: int, collected: Collected, batch: StepBatch, result: StepResult) -> None:
        """Rollouts go to the run's folder and to W&B at their intervals; the last step's credit page too."""
        logger, last = self.config.logger, step == self.config.steps
        saved = self.saves_rollouts(step)
        tabled = logger.completions_every > 0 and (step == 1 or last or is_due(step, logger.completions_every))
        paged = is_due(step, logger.report_every) or (last and logger.report_every >= 0)
        if not (saved or ((tabled or paged) and self.tracker.shows)):
            return
        records = self.records(collected, batch, result)
        if saved:
            self.folder.save_rollouts(step, records)
            if self.config.report:
                self._write_page(step, records, last=last)
        if tabled or paged:
            self.tracker.show(step, records, table=tabled, gating=self.config.gating if paged else None)

    @cached_property
    def page(self) -> LivePage:
        """The run's credit page, as far as it is written."""
        return LivePage(self.folder.folder, self.config.gating)

    def _write_page(self, step: int, records: list[dict[str, Any]], *, last: bool) -> None:
        """A page that cannot be made stops no run."""
        try:
            page = self.page.after(step, records, last=last)
        except DataError as error:
            self.view.note(f"warning: report.html stays as it was: {error}")
            return
        path = self.folder.save_page(page)
        if not last and not self._told_of_page:
            self._told_of_page = True
            self.view.note(f"page: {path}: every stored step, each token shaded by its credit")

    def saves_rollouts(self, step: int) -> bool:
        mode = self.config.rollout.save
        chosen = step == 1 or step % 10 == 0 or step == self.config.steps
        return mode is SaveRollouts.all or (mode is SaveRollouts.some and chosen)


def is_due(step: int, every: int) -> bool:
    """Whether something that is done every so many steps is done after this one; 0 is never."""
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
    if average is None:
        return f"{row['benchmark']} after step {row['step']}: {score_text(row)}"
    low, high = average["ci95"] or (None, None)
    interval = f" [{low:.1%}, {high:.1%}]" if low is not None else ""
    return f"{row['benchmark']} after step {row['step']}: avg@{average['k']} {average['value']:.1%}{interval}"
