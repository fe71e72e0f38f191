"""compare.html: one file with the verdicts, what differs, the curves and every problem; no script, no request.

The template escapes every value; only the drawings, whose text matplotlib escapes, go in as they are. A content
security policy forbids scripts and requests on top of that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.reporting.comparison import Pair
from dgpo_cli.reporting.comparison_tables import shared_confidence
from dgpo_cli.reporting.learning_curves import AXES, METRICS, Curves
from dgpo_cli.reporting.plots import VERDICTS, colour, curves_svg, differences_svg, drawable
from dgpo_cli.reporting.run_figures import cell_rows, figure_rows
from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import Side, differences
from dgpo_cli.reporting.tables import confidence, duration, interval, p_text, percent, points, sampling_text

PAGES = Path(__file__).parent / "pages"
SIGNS = {"better": "▲", "worse": "▼", "indistinguishable": "○", "not enough seeds": "×"}
FINAL = (*(metric.key for metric in METRICS), "hellinger/max", "kl/max")  # of the last step

MOST_TIES = 60  # problems of a pair; with more, the ties are counted and not listed


@dataclass(frozen=True)
class ProblemRow:
    """One problem of a pair: shares of right samples, as means over the seeds of each side."""

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
) -> str:
    """The page as text."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((PAGES / "compare.html.j2").read_text(encoding="utf-8"))
    drawn = [axis for axis in AXES if any(name == axis.name for name, _ in curves)]
    return template.render(
        shared=(PAGES / "page.css").read_text(encoding="utf-8"),
        alpha=alpha,
        notes=notes,
        sides=[_side(number, side) for number, side in enumerate(sides)],
        pairs=[_pair(pair, len(pairs), alpha) for pair in pairs],
        confidence=shared_confidence(list(pairs)),
        differences=differences_svg(pairs, pair_names(pairs)) if pairs else "",
        runs=[_run(run, sides) for run in runs],
        settings=_settings(sides),
        figures=figure_rows(figures),
        cells=cell_rows(figures),
        curves=[(axis.name, axis.title, curves_svg(curves, axis)) for axis in drawn],
        final=[key for key in FINAL if any(run.final.get(key) is not None for run in runs)],
    )


def pair_names(pairs: Sequence[Pair]) -> list[str]:
    """What each pair is called in a drawing."""
    return [f"{drawable(pair.b.label, 38)} against {drawable(pair.a.label, 38)}" for pair in pairs]


def _side(number: int, side: Side) -> dict[str, Any]:
    return {"label": side.label, "colour": colour(number), "runs": len(side.runs)}


def _pair(pair: Pair, pairs: int, alpha: float) -> dict[str, Any]:
    result, decision = pair.result, pair.decision
    rows = _problem_rows(pair)
    return {
        "a": pair.a.label,
        "b": pair.b.label,
        "verdict": pair.verdict,
        "sign": SIGNS[pair.verdict],
        "colour": VERDICTS[pair.verdict][1],
        "sentence": _sentence(pair),
        "difference": points(result.difference),
        "interval": interval(decision.interval, signed=True),
        "confidence": confidence(decision.level),
        "p_value": p_text(result.p_value, decision.level),
        "p_holm": p_text(decision.p_holm, alpha) if pairs > 1 else None,
        "unit": result.unit,
        "counts": f"{result.wins} / {result.ties} / {result.losses}",
        "detectable": points(result.minimum_detectable).lstrip("+"),
        "problems": [row for row in rows if row.sign != "tie"] if len(rows) > MOST_TIES else rows,
        "tally": [sum(row.sign == sign for row in rows) for sign in ("win", "tie", "loss")],
        "values": [(side.label, [(run.name, _score(run)) for run in side.runs]) for side in (pair.a, pair.b)],
    }


def _sentence(pair: Pair) -> tuple[str, str]:
    """The verdict as a person would say it: what stands before the name of a, and what after it."""
    gap = f"{points(pair.result.difference).lstrip('+-')} points"
    if pair.verdict in ("better", "worse"):
        return f"is {pair.verdict} than", f"by {gap}"
    if pair.seeds_needed is not None:
        return "differs from", f"by {gap}, but so few seeds cannot show anything: {pair.seeds_needed} a side are needed"
    detectable = pair.result.minimum_detectable
    missed = f"; a true one of less than about {100 * detectable:.1f} would often be missed" if detectable else ""
    return "cannot be told from", f"(a difference of {gap}{missed})"


def _score(run: Run) -> str:
    return percent(run.evaluation.value if run.evaluation else None)


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
                name=f"{index}" if name == str(index) else f"{index} {name}",
                right_a=f"{right_a}/{drawn_a}",
                right_b=f"{right_b}/{drawn_b}",
                difference=right_b / drawn_b - right_a / drawn_a,
                sign="win" if steps > 0 else "loss" if steps < 0 else "tie",
            )
        )
    return sorted(rows, key=lambda row: (("win", "loss", "tie").index(row.sign), -abs(row.difference)))


def _shares(side: Side) -> dict[tuple[int, str], tuple[int, int]]:
    """Right samples and samples of each problem, over all runs of a side that know it."""
    total: dict[tuple[int, str], tuple[int, int]] = {}
    for run in side.runs:
        for key, (right, drawn) in (run.evaluation.problems if run.evaluation else {}).items():
            before = total.get(key, (0, 0))
            total[key] = (before[0] + right, before[1] + drawn)
    return total


def _run(run: Run, sides: Sequence[Side]) -> dict[str, Any]:
    evaluation = run.evaluation
    number = next(number for number, side in enumerate(sides) if any(one.name == run.name for one in side.runs))
    return {
        "name": run.name,
        "side": sides[number].label,
        "colour": colour(number),
        "seed": "-" if run.seed is None else str(run.seed),
        "accuracy": _score(run),
        "ci95": interval(evaluation.ci95 if evaluation else None),
        "after": "-" if evaluation is None or evaluation.step is None else str(evaluation.step),
        "measured": f"{evaluation.benchmark} @{evaluation.k}, {sampling_text(evaluation.sampling)}"
        if evaluation
        else "-",
        "steps": "-" if run.last_step is None else str(run.last_step),
        "time": duration(run.wall_seconds),
        "status": run.status or "-",
        "final": {key: _figure(run.final.get(key)) for key in FINAL},
        "best": "; ".join(f"{name} {_figure(best['value'])} (step {best['step']})" for name, best in run.best.items()),
    }


def _figure(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.4g}"


def _settings(sides: Sequence[Side]) -> list[tuple[str, list[str]]]:
    """Each setting that is not the same everywhere, with its values side by side."""
    runs = [run for side in sides for run in side.runs]
    by_name = dict(zip((run.name for run in runs), differences(runs), strict=True))
    table = []
    for key in next(iter(by_name.values()), {}):
        values = [list(dict.fromkeys(_value(by_name[run.name][key]) for run in side.runs)) for side in sides]
        table.append((key, [", ".join(own) for own in values]))
    return table


def _value(value: Any) -> str:
    return "-" if value is None else str(value)
