"""A comparison as tables on a terminal, made for 80 columns: what all runs share stands in the title."""

from __future__ import annotations

from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import short_labels
from dgpo_cli.reporting.tables import confidence, duration, interval, p_text, percent, points, sampling_text
from dgpo_cli.reporting.word_table import WordTable

RUN_COLUMNS = ("run", "differs in", "accuracy [95%]", "after step", "measured by", "steps", "time", "status")
MAY_BE_SHARED = ("after step", "measured by", "steps", "status")
PAIR_COLUMNS = ("b", "is", "against a", "points [{}]", "p", "unit", "won/tied/lost", "detects")


def comparison_tables(runs: list[Run], pairs: list[Pair], *, alpha: float) -> list[WordTable]:
    tables = [_runs_table(runs)]
    if pairs:
        shared = shared_confidence(pairs)
        columns = [column.format(shared or "interval") for column in PAIR_COLUMNS]
        rows = [_pair_row(pair, len(pairs), alpha, own_confidence=shared is None) for pair in pairs]
        tables.append(WordTable(columns, rows, title="pairs: points are b minus a"))
    return tables


def shared_confidence(pairs: list[Pair]) -> str | None:
    """Of the intervals that decide the verdicts; None where Holm's correction holds pairs against different levels."""
    shown = {confidence(pair.decision.level) for pair in pairs}
    return shown.pop() if len(shown) == 1 else None


def _runs_table(runs: list[Run]) -> WordTable:
    rows = [_run_row(run, label) for run, label in zip(runs, short_labels(runs), strict=True)]
    shared = [
        column
        for column, name in enumerate(RUN_COLUMNS)
        if name in MAY_BE_SHARED and len(rows) > 1 and len({row[column] for row in rows}) == 1
    ]
    title = ", ".join(f"{RUN_COLUMNS[column]} {rows[0][column]}" for column in shared if rows[0][column] != "-")
    kept = [column for column in range(len(RUN_COLUMNS)) if column not in shared]
    columns = [RUN_COLUMNS[column] for column in kept]
    return WordTable(columns, [[row[column] for column in kept] for row in rows], title=title)


def _run_row(run: Run, label: str) -> list[str]:
    evaluation = run.evaluation
    return [
        run.name,
        label or "-",
        f"{percent(evaluation.value)} {interval(evaluation.ci95)}" if evaluation else "-",
        "-" if evaluation is None or evaluation.step is None else str(evaluation.step),
        f"{evaluation.benchmark} @{evaluation.k}, {sampling_text(evaluation.sampling)}" if evaluation else "-",
        "-" if run.last_step is None else str(run.last_step),
        duration(run.wall_seconds),
        run.status or "-",
    ]


def _pair_row(pair: Pair, pairs: int, alpha: float, *, own_confidence: bool) -> list[str]:
    result, decision = pair.result, pair.decision
    at = f"{confidence(decision.level)} " if own_confidence and decision.interval else ""
    holm = f", Holm {p_text(decision.p_holm, alpha)}" if pairs > 1 else ""
    needed = f" (need {pair.seeds_needed} a side)" if pair.seeds_needed else ""
    return [
        pair.b.label,
        pair.verdict + needed,
        pair.a.label,
        f"{points(result.difference)} {at}{interval(decision.interval, signed=True)}",
        p_text(result.p_value, decision.level) + holm,
        result.unit,
        f"{result.wins}/{result.ties}/{result.losses}",
        points(result.minimum_detectable).lstrip("+"),
    ]
