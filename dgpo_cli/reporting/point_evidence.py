"""What stands behind the points of the learning curves: after a step, what each run of a side recorded, and where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgpo_cli.reporting.learning_curves import METRICS, evidence_steps
from dgpo_cli.reporting.plots import evidence_id
from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import Side
from dgpo_cli.reporting.tables import interval, percent


def point_evidence(sides: Sequence[Side]) -> list[dict[str, Any]]:
    """A block for each side and step that a point leads to."""
    steps = [_steps(side) for side in sides]
    return [
        {
            "id": evidence_id(number, step),
            "number": number,
            "step": step,
            "label": side.label,
            "others": [  # whose points may lie below this one
                (evidence_id(other, step), sides[other].label)
                for other, known in enumerate(steps)
                if other != number and step in known
            ],
            "benchmarks": list(dict.fromkeys(name for run in side.runs for name in run.held_out)),
            "rows": [_row(run, step) for run in side.runs],
        }
        for number, side in enumerate(sides)
        for step in steps[number]
    ]


def _steps(side: Side) -> list[int]:
    evaluated = {score.step for run in side.runs for scores in run.held_out.values() for score in scores}
    return sorted({*evaluated, *evidence_steps(side.runs)})


def _row(run: Run, step: int) -> dict[str, Any]:
    row = next((row for row in run.rows if row.get("step") == step), {})
    scores = {name: [one for one in scores if one.step == step] for name, scores in run.held_out.items()}
    return {
        "run": run.name,
        "held_out": {
            name: f"{percent(found[-1].value)} {interval(found[-1].ci95)}" for name, found in scores.items() if found
        },
        "metrics": [_number(row.get(metric.key)) for metric in METRICS],
        "files": _files(Path(run.name), step, recorded=bool(row)),
    }


def _files(folder: Path, step: int, *, recorded: bool) -> str:
    """Where it is recorded, below the run's folder."""
    names = ["metrics.jsonl"] if recorded else []
    names += [
        name for name in (f"evals/step_{step:06d}", f"rollouts/step_{step:06d}.jsonl") if (folder / name).exists()
    ]
    return ", ".join(names)


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"
