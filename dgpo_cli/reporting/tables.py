"""Tables for a person at a terminal. rich honours NO_COLOR; a pipe gets JSON from the commands instead."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from dgpo_cli.reporting.clean_console import CleanConsole
from dgpo_cli.terminal import put, visible


def make_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", cut: str | None = None
) -> Table:
    """A table whose cells are shown as they are: nothing in them is markup, or acts on the terminal.

    cut: the column that is cut off where there is no room, so that each row is one line; without it cells are folded.
    """
    table = Table(title=Text(visible(title)) if title else None, title_justify="left", header_style="bold")
    for number, column in enumerate(columns):
        whole = cut is not None and column != cut
        justify: JustifyMethod = "left" if number == 0 or column == cut else "right"
        table.add_column(Text(visible(column)), overflow="fold", no_wrap=whole, justify=justify)
    for row in rows:
        if cut is None:
            table.add_row(*(Text(visible(cell)) for cell in row))
        else:
            table.add_row(*(Text(visible(cell, ""), no_wrap=True, overflow="ellipsis") for cell in row))
    return table


def show(tables: Sequence[RenderableType], record: Any) -> None:
    """What a command says on stdout: tables on a terminal, one JSON document in a pipe."""
    if not sys.stdout.isatty():
        put(json.dumps(record, indent=2, allow_nan=False))
        return
    console = CleanConsole()
    for table in tables:
        console.print(table)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def points(value: float | None) -> str:
    """A difference, in percentage points with its sign: one of less than 0.05 points is not shown as none."""
    if not value:
        return "-" if value is None else "0.0"
    return f"{100 * value:+.1f}" if abs(100 * value) >= 0.05 else f"{100 * value:+.1g}"


def interval(ci95: Sequence[float] | None, *, signed: bool = False) -> str:
    if ci95 is None:
        return "-"
    return "[" + ", ".join(points(end) if signed else f"{100 * end:.1f}" for end in ci95) + "]"


def reward_interval(ci95: Sequence[float] | None) -> str:
    """An interval in the unit of a reward, which is no share."""
    return "-" if ci95 is None else f"[{ci95[0]:.4g}, {ci95[1]:.4g}]"


def score_text(record: dict[str, Any]) -> str:
    """What an evaluation reached, of a row of eval.jsonl or results.json: avg@k, or the mean reward; the interval."""
    average, reward = record["avg_at_k"], record.get("reward")
    if average is not None:
        return f"avg@{average['k']} {percent(average['value'])} {interval(average['ci95'])}"
    if reward is None:
        return "no score"
    return f"reward {reward['mean']:.4g} {reward_interval(reward['ci95'])}"


def score_of(record: dict[str, Any]) -> float | None:
    """The number that says which of two evaluations is better: avg@k, or the mean reward."""
    average, reward = record["avg_at_k"], record.get("reward")
    if average is not None:
        return float(average["value"])
    return None if reward is None else float(reward["mean"])


def confidence(level: float) -> str:
    """Of an interval at that level: 95%, 98.3%."""
    return f"{100 * (1 - level):.3g}%"


def p_text(p_value: float, level: float) -> str:
    """A p-value in three digits, or in as many as show on which side of `level` it lies."""
    digits = 3
    while (float(f"{p_value:.{digits}g}") < level) != (p_value < level) and digits < 17:
        digits += 1
    return f"{p_value:.{digits}g}"


def clock(seconds: float) -> str:
    """`1:40`, or `2:01:40`: time that is left or was taken, as it goes."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def sampling_text(sampling: dict[str, Any]) -> str:
    """The preset that every score is shown beside."""
    temperature, top_p, max_tokens = (sampling.get(key) for key in ("temperature", "top_p", "max_tokens"))
    if temperature is None:
        return "stored completions"
    drawn = "greedy" if temperature == 0 else f"T={temperature:g} top_p={top_p:g}"
    return f"{drawn} max_tokens={max_tokens}"
