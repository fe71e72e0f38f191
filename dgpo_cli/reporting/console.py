"""What a person sees while a run trains: a live panel on a terminal, one plain line a step elsewhere. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from dgpo_cli.files import shown_path
from dgpo_cli.reporting.live_view import LiveView
from dgpo_cli.reporting.panel import About, Row, panel_lines
from dgpo_cli.reporting.tables import clock, duration
from dgpo_cli.terminal import PATIENCE, Phase, current_phase, say, showing_phases, visible

FRAMED = (60, 12)  # columns and lines from which there is room for a frame
ESTIMATE_AFTER = 3  # steps
COLUMNS = ("step", "reward", "accuracy", "length", "entropy", "credit ess", "hellinger", "grad", "tokens/s")


class TrainingView(LiveView):
    """Shows rows of metrics.jsonl and of eval.jsonl as they come.

    earlier, evaluations: rows of a run that is resumed. folder: its place. eval_every: steps between evaluations, 0 for
    none in between; an evaluation after the last step is expected if there was any.
    """

    def __init__(
        self,
        steps: int,
        first_step: int,
        title: str,
        earlier: Sequence[Row] = (),
        folder: Path | None = None,
        *,
        evaluations: Sequence[Row] = (),
        eval_every: int = 0,
    ) -> None:
        super().__init__(refresh_per_second=2)
        self.steps, self.title = steps, title
        self._folder = shown_path(folder) if folder else ""
        self._frame_title = f"{self._folder}: {title}" if folder else title
        self._rows, self._evaluations = list(earlier), list(evaluations)
        self._first, self._eval_every = first_step, eval_every
        self._done_at = time.monotonic()  # the last step
        self._showing = ExitStack()
        self._progress = Progress(
            TextColumn("step"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left {task.fields[left]}"),
            console=self.console,
            expand=True,
        )
        self._task = self._progress.add_task("steps", total=steps, completed=first_step - 1, left="-")

    def __enter__(self) -> Self:
        if self.is_live:
            self._showing.enter_context(showing_phases())
        else:
            say(self.title)
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._showing.close()

    def evaluated(self, row: Row) -> None:
        """One finished evaluation."""
        self._evaluations.append(row)

    def step(self, row: Row) -> None:
        """One finished step."""
        self._rows.append(row)
        self._done_at = time.monotonic()
        left = self._seconds_left()
        if row["step"] - self._first + 1 == ESTIMATE_AFTER and row["step"] < self.steps and left is not None:
            self.note(f"estimate after {ESTIMATE_AFTER} steps: {_hours(left)} to go")
        if self.is_live:
            self._progress.update(self._task, completed=row["step"])
            self._refresh()
            return
        cells = (
            f"{row['step']}/{self.steps}",
            _number(row["reward/mean"], 3),
            _percent(row["accuracy"]),
            _number(row["completion/length_mean"], 1),
            _number(row["entropy/mean"], 3),
            _number(row["credit/ess"], 4),
            _small(row["hellinger/mean"]),
            _number(row["grad_norm"], 2),
            _number(row["tokens/per_second"], 0),
        )
        parts = [f"{name} {cell}" for name, cell in zip(COLUMNS, cells, strict=True)]
        say("  ".join([*parts, f"left {'-' if left is None else clock(left)}"]))

    def _seconds_left(self) -> float | None:
        """From the last step on: the steps that are left as long as this session's were, evaluations as their mean."""
        known = [row.get("seconds/step") for row in self._rows if row["step"] >= self._first]
        steps = [seconds for seconds in known if seconds is not None]
        if not steps:
            return None
        last = self._rows[-1]["step"]
        left = float((self.steps - last) * sum(steps) / len(steps))
        taken: dict[int, float] = {}  # by step, for all of its benchmarks
        for row in self._evaluations:
            taken[row["step"]] = taken.get(row["step"], 0.0) + (row.get("seconds") or 0.0)
        if taken:
            between = self.steps // self._eval_every - last // self._eval_every if self._eval_every else 0
            end = 0 if self._eval_every and self.steps % self._eval_every == 0 else int(last < self.steps)
            left += (between + end) * sum(taken.values()) / len(taken)
        return left

    def _render(self) -> RenderableType:
        left = self._seconds_left()
        if left is not None:
            rest = max(0.0, left - (time.monotonic() - self._done_at))
            self._progress.update(self._task, left=clock(rest))
        width, height = self.console.size
        framed = width >= FRAMED[0] and height >= FRAMED[1]
        now = current_phase()
        about = About(
            now="" if now is None else f"{now}{_lasting(now)}",
            folder="" if framed else self._folder,  # it stands in the frame
            evaluations=self._evaluations,
        )
        room = height - 2 - (2 if framed else 0)  # the progress bar, and the line that the cursor stands on
        lines = panel_lines(
            self._rows,
            about,
            width=width - 4 if framed else width,
            height=room,
            ascii_only=self.console.options.ascii_only,
        )
        inside = Group(self._progress, *lines)
        if not framed:
            return inside
        return Panel(
            inside, title=Text(visible(self._frame_title, ""), no_wrap=True, overflow="ellipsis"), title_align="left"
        )


def _lasting(now: Phase) -> str:
    """For how long a phase goes on that does not say how far it is."""
    seconds = time.monotonic() - now.started
    return "" if now.progress or seconds < PATIENCE else f", since {duration(seconds)}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{clock(seconds)} minutes"
