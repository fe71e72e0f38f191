"""compare.html: one file with the verdicts, the curves, what differs and every problem; no script, no request.

The template escapes every value; only the drawings, whose text matplotlib escapes, go in as they are. A content
security policy forbids scripts and requests on top of that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dgpo_cli
from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.comparison_runs import run_table, score_of_run
from dgpo_cli.reporting.comparison_tables import shared_confidence
from dgpo_cli.reporting.learning_curves import METRICS, Curves
from dgpo_cli.reporting.plots import (
    DASHES,
    VERDICTS,
    colour,
    curves_svg,
    differences_svg,
    drawable,
    drawn_axes,
    line_width,
    pair_id,
)
from dgpo_cli.reporting.point_evidence import point_evidence
from dgpo_cli.reporting.problem_answers import Answers, answers_of, longest_text
from dgpo_cli.reporting.problem_answers import shown as answers_shown
from dgpo_cli.reporting.run_figures import cell_rows, figure_rows
from dgpo_cli.reporting.run_files import Json, as_yaml
from dgpo_cli.reporting.runs import Key, Run
from dgpo_cli.reporting.sides import Side, differences
from dgpo_cli.reporting.tables import confidence, interval, p_text, points
from dgpo_cli.reporting.verdict_sentences import NONE_SEEN, sentences
from dgpo_cli.terminal import visible

PAGES = Path(__file__).parent / "pages"
SIGNS = {"better": "▲", "worse": "▼", "indistinguishable": "○", "not enough seeds": "×"}
MOST_NAMED, LONGEST_HEADING = 4, 120
MOST_TIES = 60  # problems of a pair; with more, the ties are counted and not listed


@dataclass(frozen=True)
class ProblemRow:
    """One problem of a pair: shares of right samples, as means over the seeds of each side."""

    key: Key
    name: str
    right_a: str
    right_b: str
    difference: float
    sign: str  # win | tie | loss, of b


def comparison_page(
    runs: Sequence[Run],
    sides: Sequence[Side],
    pairs: Sequence[Pair],
    curves: Curves,
    figures: Sequence[Json],
    notes: Sequence[str],
    *,
    alpha: float,
    made: str,
) -> str:
    """The page as text. made: when, as `2026-11-23 09:10 UTC`."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"visible": visible, "breakable": _breakable}
    template = environment.from_string((PAGES / "compare.html.j2").read_text(encoding="utf-8"))
    rows = [_problem_rows(pair) for pair in pairs]
    return template.render(
        shared=(PAGES / "page.css").read_text(encoding="utf-8"),
        heading=_heading(sides, runs),
        facts=_facts(runs, made),
        alpha=alpha,
        notes=notes,
        sides=[_side(number, side, len(sides)) for number, side in enumerate(sides)],
        sentences=[(one, SIGNS[one.verdict], VERDICTS[one.verdict][1]) for one in sentences(pairs, alpha)],
        pairs=[
            _pair(place, pair, own, pairs, alpha) for place, (pair, own) in enumerate(zip(pairs, rows, strict=True))
        ],
        problems=_with_answers(pairs, rows),
        confidence=shared_confidence(list(pairs)),
        differences=differences_svg(pairs, pair_names(pairs)) if pairs else "",
        settings=_settings(sides),
        figures=figure_rows(figures),
        cells=cell_rows(figures),
        curves=[(axis.name, axis.title, curves_svg(curves, axis)) for axis in drawn_axes(curves)],
        colours={side.label: colour(number) for number, side in enumerate(sides)},
        evidence=point_evidence(sides) if curves else [],
        metrics=[metric.title for metric in METRICS],
        **run_table(runs, sides),
    )


def _breakable(text: str) -> Any:
    """A name that may end its line after / and =, as HTML."""
    from markupsafe import Markup, escape

    return Markup(re.sub("([/=]+)", r"\1<wbr>", str(escape(visible(text)))))


def pair_names(pairs: Sequence[Pair]) -> list[str]:
    """What each pair is called in a drawing."""
    return [f"{drawable(pair.b.label, 48)}\nagainst {drawable(pair.a.label, 48)}" for pair in pairs]


def _heading(sides: Sequence[Side], runs: Sequence[Run]) -> str:
    """What is compared, in one line."""
    benchmarks = list(dict.fromkeys(run.evaluation.benchmark for run in runs if run.evaluation))
    on = f" on {', '.join(benchmarks)}" if 0 < len(benchmarks) <= MOST_NAMED else ""
    names = [side.label for side in sides]
    if len(names) <= MOST_NAMED and sum(map(len, names)) <= LONGEST_HEADING:
        return (" against " if len(names) == 2 else ", ").join(names) + on
    return f"{len(names)} sides, {len(runs)} runs{on}"


def _facts(runs: Sequence[Run], made: str) -> str:
    """When, by which version, and when and by which commits the runs were made."""
    days = sorted({run.started[:10] for run in runs if run.started})
    commits = list(dict.fromkeys(run.commit[:12] for run in runs if run.commit))
    facts = [f"compared {made} by dgpo {dgpo_cli.__version__}"]
    if days:
        facts.append(f"runs begun {' to '.join(dict.fromkeys((days[0], days[-1])))}")
    if commits:
        more = f" and {len(commits) - MOST_NAMED} more" if len(commits) > MOST_NAMED else ""
        facts.append(f"commit{'s' * (len(commits) > 1)} {', '.join(commits[:MOST_NAMED])}{more}")
    return " · ".join(facts)


def _side(number: int, side: Side, sides: int) -> dict[str, Any]:
    width = line_width(number, sides)
    style = ("solid", "dashed", "dotted")[min(number % len(DASHES), 2)]
    return {
        "label": side.label,
        "colour": colour(number),
        "runs": len(side.runs),
        "width": f"{max(2.0, width):.1f}",
        "style": style,
    }


def _pair(place: int, pair: Pair, rows: list[ProblemRow], pairs: Sequence[Pair], alpha: float) -> dict[str, Any]:
    result, decision = pair.result, pair.decision
    return {
        "id": pair_id(place),
        "a": pair.a.label,
        "b": pair.b.label,
        "verdict": pair.verdict,
        "sign": SIGNS[pair.verdict],
        "difference": points(result.difference) if result.difference else NONE_SEEN,
        "interval": interval(decision.interval, signed=True),
        "confidence": confidence(decision.level),
        "p_value": p_text(result.p_value, decision.level),
        "p_holm": p_text(decision.p_holm, alpha) if len(pairs) > 1 else None,
        "unit": result.unit,
        "counts": f"{result.wins} / {result.ties} / {result.losses}",
        "detectable": points(result.minimum_detectable).lstrip("+"),
        "tally": [sum(row.sign == sign for row in rows) for sign in ("win", "tie", "loss")],
        "values": [(side.label, [(run.name, score_of_run(run)) for run in side.runs]) for side in (pair.a, pair.b)],
    }


def _problem_rows(pair: Pair) -> list[ProblemRow]:
    """Problems that b won, then those that it lost, the greatest first; the ties last."""
    of_a, of_b = _shares(pair.a), _shares(pair.b)
    rows = []
    for key in of_a:
        if key not in of_b:
            continue
        (right_a, drawn_a), (right_b, drawn_b) = of_a[key], of_b[key]
        steps = right_b * drawn_a - right_a * drawn_b  # integers, so that ties are exact
        index, name = key
        rows.append(
            ProblemRow(
                key=key,
                name=f"{index}" if name == str(index) else f"{index} {name}",
                right_a=f"{right_a}/{drawn_a}",
                right_b=f"{right_b}/{drawn_b}",
                difference=right_b / drawn_b - right_a / drawn_a,
                sign="win" if steps > 0 else "loss" if steps < 0 else "tie",
            )
        )
    return sorted(rows, key=lambda row: (("win", "loss", "tie").index(row.sign), -abs(row.difference)))


def _with_answers(pairs: Sequence[Pair], rows: Sequence[list[ProblemRow]]) -> list[list[dict[str, Any]]]:
    """Of each pair the rows that are shown, each with both sides' answers if it was won or lost."""
    decided = [[row for row in own if row.sign != "tie"] for own in rows]
    wanted = {row.key for own in decided for row in own}
    of_side: dict[tuple[str, ...], dict[Key, Answers]] = {}
    for pair in pairs:
        for side in (pair.a, pair.b):
            names = tuple(run.name for run in side.runs)
            if names not in of_side:
                of_side[names] = answers_of(side, wanted)
    longest = longest_text(sum(map(len, decided)))
    shown = []
    for pair, own, kept in zip(pairs, rows, decided, strict=True):
        a, b = (of_side[tuple(run.name for run in side.runs)] for side in (pair.a, pair.b))
        shown.append(
            [
                {
                    "row": row,
                    "bar": f"{50 * abs(row.difference):.1f}",
                    "points": points(row.difference) if row.sign != "tie" else "tie",
                    "answers": None
                    if row.sign == "tie"
                    else answers_shown(a.get(row.key), b.get(row.key), b_won=row.sign == "win", longest=longest),
                }
                for row in (kept if len(own) > MOST_TIES else own)
            ]
        )
    return shown


def _shares(side: Side) -> dict[Key, tuple[int, int]]:
    """Right samples and samples of each problem, over all runs of a side that know it."""
    total: dict[Key, tuple[int, int]] = {}
    for run in side.runs:
        for key, (right, drawn) in (run.evaluation.problems if run.evaluation else {}).items():
            before = total.get(key, (0, 0))
            total[key] = (before[0] + right, before[1] + drawn)
    return total


def _settings(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """Each setting that is not the same everywhere, with its values side by side, as YAML writes them."""
    runs = [run for side in sides for run in side.runs]
    by_name = dict(zip((run.name for run in runs), differences(runs), strict=True))
    table = []
    for key in next(iter(by_name.values()), {}):
        values = [
            list(
                dict.fromkeys(
                    as_yaml(by_name[run.name][key]) if key == "seed" or key in run.settings else "-"
                    for run in side.runs
                )
            )
            for side in sides
        ]
        table.append((key, [", ".join(own) for own in values]))
    return table
