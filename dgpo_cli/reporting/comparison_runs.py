"""The table of runs on the page of a comparison: what all of them share is said once, above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dgpo_cli.reporting.learning_curves import METRICS
from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import Side
from dgpo_cli.reporting.tables import duration, interval, percent, sampling_text

FINAL = (*(metric.key for metric in METRICS), "hellinger/max", "kl/max")  # of the last step
TITLES = {metric.key: metric.title for metric in METRICS}
COLUMNS = ("seed", "accuracy [95%]", "after step", "measured by", "steps", "time", "status", "commit")
MAY_BE_SHARED = ("after step", "measured by", "steps", "status", "commit")


def run_table(runs: Sequence[Run], sides: Sequence[Side]) -> dict[str, Any]:
    """For the template: `columns`, the rows of each side with a cell for each, and `shared_facts` in words."""
    cells = [_cells(run) for run in runs]
    shared = [name for name in MAY_BE_SHARED if len(runs) > 1 and len({one[name] for one in cells}) == 1]
    final = [key for key in FINAL if any(run.final.get(key) is not None for run in runs)]
    columns = [name for name in COLUMNS if name not in shared]
    best = any(run.best for run in runs)
    rows = [
        {
            "name": run.name,
            "cells": [
                *(own[name] for name in columns),
                *(_figure(run.final.get(key)) for key in final),
                *([_best(run)] if best else []),
            ],
        }
        for run, own in zip(runs, cells, strict=True)
    ]
    by_name = {row["name"]: row for row in rows}
    return {
        "shared_facts": ", ".join(f"{name} {cells[0][name]}" for name in shared if cells[0][name] != "-"),
        "columns": [*columns, *(f"last {TITLES.get(key, key)}" for key in final), *(["best"] if best else [])],
        "rows_of_sides": [[by_name[run.name] for run in side.runs] for side in sides],
    }


def score_of_run(run: Run) -> str:
    return percent(run.evaluation.value if run.evaluation else None)


def _cells(run: Run) -> dict[str, str]:
    evaluation = run.evaluation
    return {
        "seed": "-" if run.seed is None else str(run.seed),
        "accuracy [95%]": f"{score_of_run(run)} {interval(evaluation.ci95)}" if evaluation else "-",
        "after step": "-" if evaluation is None or evaluation.step is None else str(evaluation.step),
        "measured by": f"{evaluation.benchmark} @{evaluation.k}, {sampling_text(evaluation.sampling)}"
        if evaluation
        else "-",
        "steps": "-" if run.last_step is None else str(run.last_step),
        "time": duration(run.wall_seconds),
        "status": run.status or "-",
        "commit": (run.commit or "-")[:12],
    }


def _best(run: Run) -> str:
    """The best evaluation; without any the best step."""
    name = next((name for name in ("avg_at_k", *run.best) if name in run.best), None)
    if name is None:
        return "-"
    best = run.best[name]
    shown = percent(best["value"]) if name in ("avg_at_k", "accuracy") else _figure(best["value"])
    return f"{shown} after {best['step']}"


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
