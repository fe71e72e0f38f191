"""A comparison as tables on a terminal."""

from __future__ import annotations

from rich.table import Table

from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import short_labels
from dgpo_cli.reporting.tables import duration, interval, make_table, percent, points, sampling_text

RUN_COLUMNS = ("run", "differs in", "accuracy", "95%", "measured by", "steps", "time", "status")
PAIR_COLUMNS = ("b", "against a", "difference", "95%", "p", "unit", "wins/ties/losses", "detectable", "b is")


def comparison_tables(runs: list[Run], pairs: list[Pair]) -> list[Table]:
    rows = []
    for run, label in zip(runs, short_labels(runs), strict=True):
        evaluation = run.evaluation
        rows.append(
            [
                run.name,
                label or "-",
                percent(evaluation.value if evaluation else None),
                interval(evaluation.ci95 if evaluation else None),
                f"{evaluation.benchmark} @{evaluation.k}, {sampling_text(evaluation.sampling)}" if evaluation else "-",
                str(run.final.get("step", "-")),
                duration(run.wall_seconds),
                run.status or "-",
            ]
        )
    tables = [make_table(RUN_COLUMNS, rows)]
    if pairs:
        rows = [_pair_row(pair, len(pairs)) for pair in pairs]
        tables.append(make_table(PAIR_COLUMNS, rows, title="pairs, b minus a, in points"))
    return tables


def _pair_row(pair: Pair, pairs: int) -> list[str]:
    result = pair.result
    needed = f" (need {pair.seeds_needed} a side)" if pair.seeds_needed else ""
    return [
        pair.b.label,
        pair.a.label,
        points(result.difference),
        interval(result.ci95, signed=True),
        f"{result.p_value:.3g}" + (f", Holm {pair.p_holm:.3g}" if pairs > 1 else ""),
        result.unit,
        f"{result.wins}/{result.ties}/{result.losses}",
        points(result.minimum_detectable),
        pair.verdict + needed,
    ]
