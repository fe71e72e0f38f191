"""Learning curves of a comparison: which metrics against what, as a mean and a band over the seeds of each side.

Equal steps say what an update is worth, equal samples what a completion is worth (dynamic sampling draws more of them a
step), equal time what an hour of this machine is worth. The maths is in `core.curves`, the drawing in `plots`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from dgpo_cli.core.curves import Band, interval_band, seed_band
from dgpo_cli.reporting.run_files import Json, as_yaml
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
class Point:
    """A place on a curve that has evidence: what the side's runs recorded after that step."""

    step: int
    x: float
    y: float


@dataclass(frozen=True)
class Curve:
    """One side's curve; `number` is the side's place, which decides its colour everywhere.

    A side whose seeds share no stretch of an axis has a curve for each of them, with their names.
    """

    label: str
    number: int
    band: Band
    points: tuple[Point, ...] = ()
    run: str | None = None


Curves = dict[tuple[str, str], list[Curve]]  # (axis name, metric key) -> sides that have it

HELD_OUT = "eval/"  # before a benchmark's name, in the key of its curve
REWARD = Metric("reward/mean", "reward", "mean of the samples")
ON_SCALE = f"{REWARD.key} "  # before a scale's name, where sides have several
METRICS = (
    REWARD,
    Metric("accuracy", "accuracy", "% of the samples", 100.0),
    Metric("entropy/mean", "entropy", "nats"),
    Metric("completion/length_mean", "length", "tokens"),
    Metric("credit/ess", "credit/ess", "1 = uniform credit"),
)
SCALES = ("algo.reward_wrong", "algo.reward_right", "reward.name", "reward.path", "reward.weights")
MOST_POINTS = 24  # of a curve, with evidence


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
    """The metrics that have a curve: held-out accuracy by benchmark, then columns of metrics.jsonl."""
    keys = list(dict.fromkeys(key for _, key in curves))
    held_out = [held_out_metric(key.removeprefix(HELD_OUT)) for key in keys if key.startswith(HELD_OUT)]
    rewards = [
        replace(REWARD, key=key, title=f"reward, {key.removeprefix(ON_SCALE)}")
        for key in keys
        if key.startswith(ON_SCALE)
    ]
    return [*held_out, *rewards, *(metric for metric in METRICS if metric.key in keys)]


def learning_curves(sides: Sequence[Side]) -> Curves:
    """Held-out accuracy by benchmark and every metric against every axis, without those that no side has."""
    curves: Curves = {}
    names = dict.fromkeys(name for side in sides for run in side.runs for name in run.held_out)
    scales = [_scale(side) for side in sides]
    for axis in AXES:
        found: dict[str, list[Curve]] = {}
        for number, side in enumerate(sides):
            at = [_standing(run, axis) for run in side.runs]
            for name in names:
                found.setdefault(held_out_metric(name).key, []).extend(_held_out(side, number, at, name))
            for metric in METRICS:
                apart = metric is REWARD and len(set(scales)) > 1
                key = f"{ON_SCALE}{scales[number]}" if apart else metric.key
                found.setdefault(key, []).extend(_of_metric(side, number, at, axis, metric))
        curves |= {(axis.name, key): own for key, own in found.items() if own}
    return curves


def _scale(side: Side) -> str:
    """What the rewards of a side are: those on another scale are not drawn on one axis."""
    wrong, right, name, path, weights = (side.runs[0].settings.get(key) for key in SCALES)
    if path is not None:
        return f"by {as_yaml(path)}" + ("" if weights is None else f" x {as_yaml(weights)}")
    return f"{wrong} to {right}" if right is not None else str(name)


def _standing(run: Run, axis: Axis) -> dict[int, float]:
    """Where the axis stands after each step of a run; before the first one it stands at 0."""
    return {0: 0.0, **{row["step"]: x for row, x in zip(run.rows, axis.values(run.rows), strict=True) if "step" in row}}


def _held_out(side: Side, number: int, at: Sequence[dict[int, float]], name: str) -> list[Curve]:
    """Of a side whose runs were evaluated after the same steps, those steps; each stands at the runs' mean x."""
    scores = [{score.step: score for score in run.held_out.get(name, [])} for run in side.runs]
    steps = [
        step
        for step in sorted(set.intersection(*map(set, scores)))
        if all(math.isfinite(own.get(step, math.nan)) for own in at)
    ]
    if not steps or (steps == [0] and any(len(own) > 1 for own in scores)):
        return []  # of an axis that is not known beyond the beginning
    x, y = (
        [[own[step] for own in at] for step in steps],
        [[100 * own[step].value for own in scores] for step in steps],
    )
    own = [None if (one := scores[0][step].ci95) is None else (100 * one[0], 100 * one[1]) for step in steps]
    band = interval_band(x, y, own, bounds=(0.0, 100.0))
    points = (Point(step, float(a), float(b)) for step, a, b in zip(steps, band.x, band.mean, strict=True))
    return [Curve(side.label, number, band, tuple(points))]


def _of_metric(side: Side, number: int, at: Sequence[dict[int, float]], axis: Axis, metric: Metric) -> list[Curve]:
    series = [_series(run.rows, axis, metric) for run in side.runs]
    band = seed_band(series)
    if band is not None:
        return [Curve(side.label, number, band, _points(side.runs, at, band))]
    alone = [(run, own, seed_band([one])) for run, own, one in zip(side.runs, at, series, strict=True)]
    return [
        Curve(side.label, number, band, _points([run], [own], band), run.name)
        for run, own, band in alone
        if band is not None
    ]


def _points(runs: Sequence[Run], at: Sequence[dict[int, float]], band: Band) -> tuple[Point, ...]:
    """Some of the steps that all runs have, the last among them, on the curve."""
    places = ((step, sum(own[step] for own in at) / len(at)) for step in evidence_steps(runs))
    return tuple(
        Point(step, x, float(np.interp(x, band.x, band.mean))) for step, x in places if band.x[0] <= x <= band.x[-1]
    )


def evidence_steps(runs: Sequence[Run]) -> list[int]:
    """At most `MOST_POINTS` of the steps that all of these runs have finished, evenly spread, the last among them."""
    steps = sorted(set.intersection(*({row["step"] for row in run.rows if "step" in row} for run in runs)))
    count = min(MOST_POINTS, len(steps))
    return [steps[(place + 1) * len(steps) // count - 1] for place in range(count)]


def _series(rows: Sequence[Json], axis: Axis, metric: Metric) -> tuple[list[float], list[float]]:
    return axis.values(rows), [_number(row.get(metric.key)) * metric.scale for row in rows]


def _number(value: object) -> float:
    """NaN for what is absent, which the curve then leaves out."""
    return float(value) if isinstance(value, int | float) else math.nan
