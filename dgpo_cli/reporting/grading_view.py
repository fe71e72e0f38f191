"""A reward that was tried on stored completions, as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from dgpo_cli.reporting.tables import make_table

BAR = 40  # characters of the longest bar
LONGEST_EXAMPLE = 160


def grading_tables(record: dict[str, Any]) -> list[Table]:
    """Score and parts, the distribution of the score, what was said of right and wrong, times, two examples."""
    spreads = {"score": record["score"], **record["parts"]}
    columns = ("", "n", "mean", "std", "min", "10%", "median", "90%", "max")
    rows = [[name, *_numbers(spread)] for name, spread in spreads.items()]
    title = f"{' + '.join(record['reward'])} on {record['file']}"
    return [
        make_table(columns, rows, title=title),
        make_table(("score", "n", ""), _bars(record["distribution"])),
        make_table(("", ""), _facts(record)),
    ]


def _numbers(spread: dict[str, Any] | None) -> list[str]:
    if spread is None:
        return ["0"] + ["-"] * 7
    return [
        str(spread["n"]),
        *(f"{spread[name]:.4g}" for name in ("mean", "std", "min", "p10", "median", "p90", "max")),
    ]


def _bars(distribution: list[dict[str, Any]]) -> list[list[str]]:
    most = max((one["n"] for one in distribution), default=1)
    return [[_range(one), str(one["n"]), "#" * round(BAR * one["n"] / most)] for one in distribution]


def _range(one: dict[str, Any]) -> str:
    low, high = f"{one['from']:.4g}", f"{one['to']:.4g}"
    return low if one["from"] == one["to"] else f"{low} to {high}"


def _facts(record: dict[str, Any]) -> list[list[str]]:
    said, groups, seconds = record["correct"], record["groups"], record["seconds"]
    rows = [["completions", f"{record['n']} of {record['problems']} problems"]]
    if said["unsaid"] < record["n"]:
        rows.append(["right, wrong, neither said", f"{said['right']}, {said['wrong']}, {said['unsaid']}"])
    rows.append(["groups without spread", f"{groups['no_spread']} of {groups['n']}"])
    errors = ", ".join(f"{cause} {count}" for cause, count in record["errors"].items())
    rows.append(["errors", errors or "none"])
    rows.append(["seconds", f"{seconds['all']:.3g}, {seconds['a_completion']:.3g} a completion"])
    for name, calls in seconds["calls"].items():
        if calls is not None:
            rows.append([f"calls of {name}", f"{calls['n']}, median {calls['median']:.3g} s, max {calls['max']:.3g} s"])
    rows += [[name, _example(record[name])] for name in ("lowest", "highest") if record[name] is not None]
    return rows


def _example(example: dict[str, Any]) -> str:
    text = " ".join(example["completion"].split())
    shown = text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 3] + "..."
    return f"{example['score']:.4g}: {shown}"
