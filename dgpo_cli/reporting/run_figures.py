"""Figures of each side of a comparison: how steady its updates were, and where its credit went, with intervals.

Each figure is one number a run, from the rows of its metrics.jsonl; its interval is over the runs of a side. It is
described and not judged: verdicts are about accuracy alone (`comparison` beside this file).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dgpo_cli.core.intervals import MeanReward
from dgpo_cli.core.steadiness import over_runs, variation
from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.sides import Side
from dgpo_cli.reporting.word_table import WordTable

Values = Sequence[float]
CELLS = ("high_d_high_h", "high_d_low_h", "low_d_high_h", "low_d_low_h")
SIGNS = {"pos": "A > 0", "neg": "A < 0"}
UPDATES = "updates: mean over runs [95%]"
IN_CELLS = "cells: share of the tokens, and how many times as much of the credit [95%]"


@dataclass(frozen=True)
class Figure:
    """A number of a run: `of_run` of one column of its metrics.jsonl, over the steps that had an update."""

    name: str
    title: str
    column: str
    of_run: Callable[[Values], float | None]
    geometric: bool = False


def _mean(values: Values) -> float:
    return sum(values) / len(values)


FIGURES = (
    Figure("grad_norm_mean", "gradient norm", "grad_norm", _mean),
    Figure("grad_norm_variation", "its variation", "grad_norm", variation),
    Figure("kl_max", "largest KL of a token, nats", "kl/max", max, geometric=True),
    Figure("hellinger_max", "largest d of a token", "hellinger/max", max),
    Figure("credit_ess_min", "least credit/ess", "credit/ess", min),
)


def run_figures(sides: Sequence[Side]) -> list[Json]:
    """For compare.json: of every side of training runs its figures, and the cells if its runs measured them."""
    trained = [side for side in sides if any(run.rows for run in side.runs)]
    return [
        {
            "side": side.label,
            "runs": len(side.runs),
            "figures": {figure.name: _record(_figure(side, figure)) for figure in FIGURES},
            "cells": _cells(side),
        }
        for side in trained
    ]


def figure_tables(records: Sequence[Json]) -> list[WordTable]:
    """How steady each side was, and its cells, for a terminal; none of runs without metrics."""
    titled = ((UPDATES, figure_rows(records)), (IN_CELLS, cell_rows(records)))
    return [WordTable(rows[0], rows[1:], title=title) for title, rows in titled if rows]


def figure_rows(records: Sequence[Json]) -> list[list[str]]:
    """The header, then a row a side: the figures that any side has. Empty if there are none."""
    known = [figure for figure in FIGURES if any(record["figures"][figure.name] for record in records)]
    rows = [[record["side"], *(_text(record["figures"][one.name]) for one in known)] for record in records]
    return [["side", *(one.title for one in known)], *rows] if known else []


def cell_rows(records: Sequence[Json]) -> list[list[str]]:
    """The header, then a row a side and sign of A: the four cells. Empty if no side measured them."""
    rows = [
        [record["side"], SIGNS[sign], *(_cell_text(record["cells"][sign][cell]) for cell in CELLS)]
        for record in records
        for sign in record["cells"] or {}
    ]
    return [["side", "sign", *(cell.replace("_", " ") for cell in CELLS)], *rows] if rows else []


def _figure(side: Side, figure: Figure) -> MeanReward | None:
    """Over the runs that have it: a column of nulls, as that of d without a reference, is none."""
    found = [figure.of_run(own) for run in side.runs if (own := _column(run.rows, figure.column))]
    return over_runs([value for value in found if value is not None], geometric=figure.geometric)


def _cells(side: Side) -> Json | None:
    """By sign of A and cell: the share of tokens, and how many times that share of the credit lies there.

    Shares are means over the steps of a run that had tokens of that sign; the factor is of these means, one a run.
    """
    found: Json = {}
    for sign in SIGNS:
        of_sign: Json = {}
        for cell in CELLS:
            shares = [
                [
                    _mean(own)
                    for kind in ("tokens", "credit")
                    if (own := _column(run.rows, f"cells/{cell}/{kind}_{sign}"))
                ]
                for run in side.runs
            ]
            known = [share for share in shares if len(share) == 2]
            if known:
                factors = [credit / tokens for tokens, credit in known if tokens > 0]
                of_sign[cell] = {
                    "tokens": _mean([tokens for tokens, _ in known]),
                    "credit": _mean([credit for _, credit in known]),
                    "factor": _record(over_runs(factors)),
                }
        if len(of_sign) == len(CELLS):
            found[sign] = of_sign
    return found or None


def _column(rows: Sequence[Json], key: str) -> list[float]:
    """The finite values of the steps that had an update."""
    updated = [row.get(key) for row in rows if row.get("optim/updates", 1)]
    return [float(value) for value in updated if isinstance(value, int | float) and math.isfinite(value)]


def _record(value: MeanReward | None) -> Json | None:
    return None if value is None else {"value": value.mean, "ci95": None if value.ci95 is None else list(value.ci95)}


def _text(record: Json | None) -> str:
    if record is None:
        return "-"
    ends = "" if record["ci95"] is None else f" [{record['ci95'][0]:.4g}, {record['ci95'][1]:.4g}]"
    return f"{record['value']:.4g}{ends}"


def _cell_text(record: Json) -> str:
    return f"{100 * record['tokens']:.1f}% x {_text(record['factor'])}"
