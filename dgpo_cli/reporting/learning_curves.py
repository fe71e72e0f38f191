"""Learning curves of a comparison: which metrics against what, as a mean and a band over the seeds of each side.

Equal steps say what an update is worth, equal samples what a completion is worth (dynamic sampling draws more of them a
step), equal time what an hour of this machine is worth. The maths is in `core.curves`, the drawing in `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dgpo_cli.core.curves import Band, seed_band
from dgpo_cli.reporting.run_files import Json
from dgpo_cli.reporting.runs import Run
from dgpo_cli.reporting.sides import Side


@dataclass(frozen=True)
class Metric:
    """A column of metrics.jsonl that is drawn."""

    key: str
    title: str
    unit: str
    scale: float = 1.0


@dataclass(frozen=True)
class Axis:
    """What runs are made equal in. `values` gives one x a row, rising."""

    name: str
    title: str
    values: Callable[[Sequence[Json]], list[float]]


@dataclass(frozen=True)
class Curve:
    """One side's curve; `number` is the side's place, which decides its colour everywhere."""

    label: str
    number: int
    band: Band


Curves = dict[tuple[str, str], list[Curve]]  # (axis name, metric key) -> sides that have it

HELD_OUT = "eval/"  # before a benchmark's name, in the key of its curve
METRICS = (
    Metric("reward/mean", "reward", "mean of the samples"),
    Metric("accuracy", "accuracy", "% of the samples", 100.0),
    Metric("entropy/mean", "entropy", "nats"),
    Metric("completion/length_mean", "length", "tokens"),
    Metric("credit/ess", "credit/ess", "1 = uniform credit"),
)


def _total(key: str, scale: float = 1.0) -> Callable[[Sequence[Json]], list[float]]:
    return lambda rows: list(accumulate(_number(row.get(key)) * scale for row in rows))


AXES = (
    Axis("steps", "equal steps", lambda rows: [_number(row.get("step")) for row in rows]),
    Axis("samples", "equal samples (completions generated)", _total("samples/generated")),
    Axis("time", "equal time (minutes in steps)", _total("seconds/step", 1 / 60)),
)


def held_out_metric(benchmark: str) -> Metric:
    return Metric(f"{HELD_OUT}{benchmark}", f"{benchmark}, held out", "avg@k, %", 100.0)


def drawn_metrics(curves: Curves) -> list[Metric]:
    """The metrics that have a curve: columns of metrics.jsonl, then held-out accuracy by benchmark."""
    keys = list(dict.fromkeys(key for _, key in curves))
    held_out = [held_out_metric(key.removeprefix(HELD_OUT)) for key in keys if key.startswith(HELD_OUT)]
    return [*(metric for metric in METRICS if metric.key in keys), *held_out]


def learning_curves(sides: Sequence[Side]) -> Curves:
    """Every metric against every axis, without those that no side has.

    Of evaluations: each benchmark's, if there are several or if they are more than one before and one after.
    """
    curves: Curves = {}
    known = [run.held_out for side in sides for run in side.runs]
    names = dict.fromkeys(name for held_out in known for name in held_out)
    if len(names) < 2 and not any(len(points) > 2 for held_out in known for points in held_out.values()):
        names = {}
    for axis in AXES:
        for name in names:
            found = []
            for number, side in enumerate(sides):
                band = seed_band([_evaluations(run, axis, name) for run in side.runs])
                if band is not None:
                    found.append(Curve(side.label, number, band))
            if found:
                curves[axis.name, held_out_metric(name).key] = found
        for metric in METRICS:
            found = []
            for number, side in enumerate(sides):
                band = seed_band([_series(run.rows, axis, metric) for run in side.runs])
                if band is not None:
                    found.append(Curve(side.label, number, band))
            if found:
                curves[axis.name, metric.key] = found
    return curves


def _series(rows: Sequence[Json], axis: Axis, metric: Metric) -> tuple[list[float], list[float]]:
    return axis.values(rows), [_number(row.get(metric.key)) * metric.scale for row in rows]


def _evaluations(run: Run, axis: Axis, benchmark: str) -> tuple[list[float], list[float]]:
    """Accuracy in percent against where the axis stands after the step that was evaluated."""
    at = {0: 0.0, **{row.get("step"): x for row, x in zip(run.rows, axis.values(run.rows), strict=True)}}
    points = run.held_out.get(benchmark, [])
    return [at.get(step, math.nan) for step, _ in points], [100 * value for _, value in points]


def _number(value: object) -> float:
    """NaN for what is absent, which the curve then leaves out."""
    return float(value) if isinstance(value, int | float) else math.nan
