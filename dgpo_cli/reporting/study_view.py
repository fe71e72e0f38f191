"""Tables of the studies, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from dgpo_cli.core.intervals import MeanReward
from dgpo_cli.evidence.localisation import Located
from dgpo_cli.reporting.tables import interval, make_table, percent, points


def localisation_tables(rows: Sequence[Located], record: dict[str, Any]) -> list[Table]:
    """One row a floor, signal or gating, with its three measures and their intervals by prompt; and the cells."""
    columns = ("", "by", "precision at 1", "95%", "reciprocal rank", "95%", "share on it", "95%")
    title = (
        f"the first wrong token of {record['n_wrong']} completions of {record['n_wrong_prompts']} prompts "
        f"({record['benchmark']}, {record['model']})"
    )
    cells = [
        [row.kind, row.name, *_cells(row.precision_at_1), *_cells(row.reciprocal_rank), *_cells(row.share)]
        for row in rows
    ]
    return [make_table(columns, cells, title=title), *_cell_tables(record)]


def _cell_tables(record: dict[str, Any]) -> list[Table]:
    """Where the first wrong tokens lie by d and H, if d was measured."""
    if record["cells"] is None:
        return []
    rows = []
    for cell in record["cells"]:
        texts = [f"{percent(one['value'])} {interval(one['ci95'])}" for one in (cell["wrong"], cell["tokens"])]
        rows.append([cell["cell"].replace("_", " "), *texts])
    columns = ("cell", "first wrong tokens [95%]", "all tokens of these completions [95%]")
    return [make_table(columns, rows, title="where the first wrong tokens lie, high being the upper fifth")]


def _cells(value: MeanReward | None) -> list[str]:
    return ["-", "-"] if value is None else [percent(value.mean), interval(value.ci95)]


def swap_table(record: dict[str, Any]) -> Table:
    """One row an arm: who chose how many tokens, the accuracy, and the lead over each control."""
    columns = ("way", "arm", "asked", "swapped", "avg@k", "95%", "above random", "95%", "above low", "95%")
    title = f"swap test on {record['benchmark']} by {record['signal']}: A is {record['a']}, B is {record['b']}"
    rows = []
    for row in record["arms"]:
        accuracy = row["accuracy"]
        cells = [row["way"], row["arm"], percent(row["fraction"]), percent(row["share"])]
        cells += [percent(accuracy["value"]), interval(accuracy["ci95"])]
        for control in ("random", "low"):
            lead = row.get(f"above_{control}")
            cells += ["-", "-"] if lead is None else [points(lead["value"]), interval(lead["ci95"], signed=True)]
        rows.append(cells)
    return make_table(columns, rows, title=title)
