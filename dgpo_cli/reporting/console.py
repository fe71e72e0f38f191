"""What a person sees while a run trains: a live panel on a terminal, one plain line a step elsewhere. All on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from dgpo_cli.files import shown_path
from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.reporting.panel import panel_lines
from dgpo_cli.reporting.tables import clock
from dgpo_cli.terminal import say, visible

FRAMED = (60, 12)  # columns and lines from which there is room for a frame
ESTIMATE_AFTER = 3  # steps
COLUMNS = ("step", "reward", "accuracy", "length", "entropy", "credit ess", "hellinger", "grad", "tokens/s")


class TrainingView:
    """Shows rows of metrics.jsonl as they come. `earlier` are those of a run that is resumed; `folder` its place."""

    def __init__(
        self,
        steps: int,
        first_step: int,
        title: str,
        earlier: Sequence[dict[str, Any]] = (),
        folder: Path | None = None,
    ) -> None:
        self.console = CleanConsole(stderr=True)
        self.steps = steps
        self.title = title
        self._frame_title = f"{shown_path(folder)}: {title}" if folder else title
        self._rows = list(earlier)
        self._started, self._first = time.monotonic(), first_step
        self._live: Live | None = None
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._progress = Progress(
                TextColumn("step"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(elapsed_when_finished=False),
                console=self.console,
                expand=True,
            )
            self._task = self._progress.add_task("steps", total=steps, completed=first_step - 1)
            # Drawn anew each time, so that it follows the size of the terminal.
            self._live = Live(get_renderable=self._render, console=self.console, refresh_per_second=2)

    def __enter__(self) -> TrainingView:
        if self._live is not None:
            self._live.start()
        else:
            say(self.title)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays: a warning, an evaluation, a reason."""
        if self._live is not None:
            self.console.print(Text(visible(text, "")))
        else:
            say(text)

    def step(self, row: dict[str, Any]) -> None:
        """One finished step."""
        if row["step"] - self._first + 1 == ESTIMATE_AFTER and row["step"] < self.steps:
            self.note(f"estimate after {ESTIMATE_AFTER} steps: {_hours(self._seconds_left(row['step']))} to go")
        if self._live is not None:
            self._rows.append(row)
            self._progress.update(self._task, completed=row["step"])
            self._live.refresh()
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
        left = self._seconds_left(row["step"])
        parts = [f"{name} {cell}" for name, cell in zip(COLUMNS, cells, strict=True)]
        say("  ".join([*parts, f"left {clock(left)}"]))

    def _seconds_left(self, step: int) -> float:
        done = step - self._first + 1
        return (time.monotonic() - self._started) / done * (self.steps - step)

    def _render(self) -> RenderableType:
        width, height = self.console.size
        framed = width >= FRAMED[0] and height >= FRAMED[1]
        room = height - 2 - (2 if framed else 0)  # the progress bar, and the line that the cursor stands on
        lines = panel_lines(
            self._rows,
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


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{clock(seconds)} minutes"
