"""What a person sees of a sweep: one live table on a terminal, one line a job elsewhere, and a table at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from dgpo_cli.reporting.live_view import LiveView
from dgpo_cli.reporting.tables import clock, make_table

COLUMNS = ("job", "what differs", "status", "step", "accuracy", "left")
TAIL = 32768  # bytes: the last row of metrics.jsonl is far shorter
LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class JobLine:
    """A job as the table shows it."""

    number: int
    differs: str
    status: str
    folder: Path
    steps: int | None = None  # planned, of a training run
    accuracy: float | None = None  # of one that has ended
    seconds: float = 0.0  # that it has taken, once it has ended


def what_differs(overrides: Sequence[Sequence[str]]) -> list[str]:
    """For each job the overrides that not all jobs have; all of a job that stands alone."""
    common = set.intersection(*map(set, overrides)) if len(overrides) > 1 else set()
    return [" ".join(text for text in one if text not in common) for one in overrides]


def figure(value: float | None) -> str:
    """An accuracy as the tables show it."""
    return "-" if value is None else f"{value:.1%}"


def cells(line: JobLine) -> tuple[str, ...]:
    """The cells of a job's row, from the last row of its metrics.jsonl: of a running job what is left, else its time.

    The accuracy of a running job is that of its last step's samples, of one that has ended the held-out one.
    """
    running = line.status == "running"
    row = last_row(line.folder / "metrics.jsonl") if running or line.seconds else {}
    step, seconds = row.get("step"), row.get("seconds/step")
    time_shown = f"took {clock(line.seconds)}" if line.seconds and not running else "-"
    if running and step and line.steps and isinstance(seconds, int | float):
        time_shown = clock(seconds * (line.steps - step))
    accuracy = row.get("accuracy") if running and row else line.accuracy
    shown = "-" if step is None else f"{step}/{line.steps}" if line.steps else str(step)
    return (str(line.number), line.differs, line.status, shown, figure(accuracy), time_shown)


def last_row(file: Path) -> dict[str, Any]:
    """The last whole row of a file of rows that is being written; empty without any."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - TAIL))
            lines = stream.read().split(b"\n")[:-1]
        row = json.loads(lines[-1])
    except (OSError, ValueError, IndexError):
        return {}
    return row if isinstance(row, dict) else {}


def final_lines(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows under each other, each column as wide as its widest cell."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]


class SweepView(LiveView):
    """The live table on a terminal; elsewhere `note` alone says something."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[JobLine] = []
        self._looked = 0.0

    def show(self, lines: list[JobLine], *, now: bool = False) -> None:
        """The jobs as they are; drawn at most once a second, unless `now`."""
        if not self.is_live or (not now and time.monotonic() - self._looked < LOOK_SECONDS):
            return
        self._lines, self._looked = lines, time.monotonic()
        self._refresh()

    def _render(self) -> Table:
        room = max(1, self.console.size.height - 4)
        shown = self._lines
        if len(shown) > room:  # those that run, then the latest to end; those that wait can wait
            order = {"running": 0, "failed": 1, "interrupted": 1, "done": 2}
            kept = sorted(shown, key=lambda line: order.get(line.status, 3))[:room]
            shown = [line for line in shown if line in kept]
        return make_table(COLUMNS, [cells(line) for line in shown], cut="what differs")
