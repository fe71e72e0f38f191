"""What a reader of a comparison should know of the evaluations that it rests on, as one line each."""

from __future__ import annotations

from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import Side, alike, sides


def notes_on_evaluations(evaluated: list[Run]) -> list[str]:
    """Of the runs with an evaluation: where in training it stands, after how much work, and what tells them apart."""
    groups = sides(evaluated)
    about_runs = _early(evaluated) + _steps(evaluated) + _unanswered(evaluated)
    return about_runs + _alone(evaluated, groups) + _by_order(groups) + _samples(groups)


def _early(evaluated: list[Run]) -> list[str]:
    """Runs that ended before their last evaluation was due, or lost it: the accuracy is of earlier weights."""
    names: dict[str, list[str]] = {}
    for run in evaluated:
        step, last = run.evaluation.step if run.evaluation else None, run.last_step
        if step is not None and last is not None and step < last:
            names.setdefault(f"step {step} of {last}", []).append(run.name)
    return [f"{', '.join(found)}: the accuracy is that of {where}" for where, found in names.items()]


def _steps(evaluated: list[Run]) -> list[str]:
    steps = sorted({run.evaluation.step for run in evaluated if run.evaluation and run.evaluation.step is not None})
    return [f"the final evaluations stand at different steps: {', '.join(map(str, steps))}"] if len(steps) > 1 else []


def _unanswered(evaluated: list[Run]) -> list[str]:
    """Failures of a server that stand as wrong answers in the numbers of one side."""
    counts = {run.name: run.evaluation.unanswered for run in evaluated if run.evaluation}
    return [
        f"{name}: {count} samples have no answer from the server and count as wrong; its command, once more, asks them"
        for name, count in counts.items()
        if count
    ]


def _alone(evaluated: list[Run], groups: list[Side]) -> list[str]:
    if len(evaluated) == 1:
        return [f"{evaluated[0].name} alone has a final evaluation: there is nothing to compare it with"]
    if len(groups) == 1:
        return ["the runs differ in their seed alone: there is nothing to compare"]
    return []


def _by_order(groups: list[Side]) -> list[str]:
    """Seeds that came again: the configuration does not say which runs belong together."""
    again = [a for a in groups if any(alike(a.runs[0], b.runs[0]) for b in groups if b is not a)]
    if not any(len(side.runs) > 1 for side in again):
        return []
    listed = ", ".join(side.label for side in again)
    return [f"the same seeds came again with one configuration: runs are on the sides {listed} as they were given"]


def _samples(groups: list[Side]) -> list[str]:
    """Sides that drew different numbers of completions (dynamic sampling does) are compared after unequal work."""
    drawn = {}
    for side in groups:
        totals = [_drawn(run) for run in side.runs if run.rows]
        if totals:
            drawn[side.label] = sum(totals) / len(totals)
    if not drawn or max(drawn.values()) <= 1.05 * min(drawn.values()):
        return []
    listed = ", ".join(f"{label} {mean:,.0f}" for label, mean in drawn.items())
    return [f"the final evaluations come after different numbers of samples: {listed}"]


def _drawn(run: Run) -> float:
    """Completions that the run had drawn when it was evaluated."""
    end = run.evaluation.step if run.evaluation else None
    return sum(row.get("samples/generated") or 0 for row in run.rows if end is None or row.get("step", 0) <= end)
