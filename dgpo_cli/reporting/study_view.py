"""Tables of the studies, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from dgpo_cli.core.intervals import MeanReward
from dgpo_cli.evidence.localisation import Located
from dgpo_cli.reporting.tables import interval, make_table, percent


def localisation_table(rows: Sequence[Located], record: dict[str, Any]) -> Table:
    """One row a floor, signal or gating, with its three measures and their intervals by prompt."""
    columns = ("", "by", "precision at 1", "95%", "reciprocal rank", "95%", "share on it", "95%")
    title = (
        f"the first wrong token of {record['n_wrong']} completions of {record['n_wrong_prompts']} prompts "
        f"({record['benchmark']}, {record['model']})"
    )
    cells = [
        [row.kind, row.name, *_cells(row.precision_at_1), *_cells(row.reciprocal_rank), *_cells(row.share)]
        for row in rows
    ]
    return make_table(columns, cells, title=title)


def _cells(value: MeanReward | None) -> list[str]:
    return ["-", "-"] if value is None else [percent(value.mean), interval(value.ci95)]
