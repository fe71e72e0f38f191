"""What a person sees while a run trains: a live table on a terminal, one plain line a step elsewhere. All on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

SHOWN_STEPS = 12
COLUMNS = ("step", "reward", "accuracy", "length", "entropy", "credit ess", "hellinger", "grad", "tokens/s")


class TrainingView:
    """Shows rows of metrics.jsonl as they come."""

    def __init__(self, steps: int, first_step: int, title: str) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.steps = steps
        self.title = title
        self._rows: list[tuple[str, ...]] = []
        self._started, self._first = time.monotonic(), first_step
        self._live: Live | None = None
        if self.console.is_terminal:
            self._progress = Progress(
                TextColumn("[bold]step"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._progress.add_task("steps", total=steps, completed=first_step - 1)
            self._live = Live(self._render(), console=self.console, refresh_per_second=4)

    def __enter__(self) -> TrainingView:
        if self._live is not None:
            self._live.start()
        else:
            print(self.title, file=sys.stderr, flush=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self._render())
            self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays: a warning, an evaluation, a reason."""
        if self._live is not None:
            self.console.print(Text(text))
        else:
            print(text, file=sys.stderr, flush=True)

    def step(self, row: dict[str, Any]) -> None:
        """One finished step."""
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
        if self._live is None:
            left = self._seconds_left(row["step"])
            parts = [f"{name} {cell}" for name, cell in zip(COLUMNS, cells, strict=True)]
            print("  ".join([*parts, f"left {_clock(left)}"]), file=sys.stderr, flush=True)
            return
        self._rows = [*self._rows, cells][-SHOWN_STEPS:]
        self._progress.update(self._task, completed=row["step"])
        self._live.update(self._render())

    def _seconds_left(self, step: int) -> float:
        done = step - self._first + 1
        return (time.monotonic() - self._started) / done * (self.steps - step)

    def _render(self) -> Group:
        table = Table(title=self.title, title_justify="left", expand=False)
        for name in COLUMNS:
            table.add_column(name, justify="right")
        for cells in self._rows:
            table.add_row(*cells)
        return Group(table, self._progress)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _small(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
