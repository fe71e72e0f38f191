"""A stored band, where a figure should lie by a publication or a measurement, and runs held against it.

A band is a small YAML file. Those that come with the program lie in recipes/bands and are called by their names; they
end in .yml, since Hydra would take any .yaml there for a recipe. Shares are of 1, as in results.json.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from dgpo_cli.config.keys import config_roots
from dgpo_cli.core.expected_range import placed, prediction_range
from dgpo_cli.core.intervals import mean_interval
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.reporting.run_files import Json, read_yaml
from dgpo_cli.reporting.runs import Evaluation, Run
from dgpo_cli.reporting.sides import Side, sides
from dgpo_cli.reporting.tables import interval, percent

STATUS = ("published", "measured")
ENDING = ".yml"


@dataclass(frozen=True)
class Band:
    """The file's keys. Bounds are `low` and `high`, or follow from `mean`, `sd` and `seeds` for one further seed."""

    name: str  # of the file
    what: str  # the protocol in one line
    status: str  # published | measured
    source: str
    found_in: str  # the file and the key in which a run of ours has the figure
    benchmarks: tuple[str, ...]  # of several the mean
    low: float
    high: float
    k: int | None = None
    temperature: float | None = None
    mean: float | None = None
    sd: float | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Judged:
    """One side beside a band."""

    band: Band
    side: Side
    value: float
    ci95: tuple[float, float] | None  # over problems of one run, over runs of several
    verdict: str  # inside | below | above | undecided

    @property
    def sentence(self) -> str:
        band, runs = self.band, len(self.side.runs)
        said = {"inside": "inside", "undecided": "undecided beside"}.get(self.verdict, self.verdict)
        return (
            f"band {band.name}: {self.side.label}: {' + '.join(band.benchmarks)} {percent(self.value)} "
            f"{interval(self.ci95)} of {runs} run{'s' if runs > 1 else ''} is {said} "
            f"{100 * band.low:.1f} to {100 * band.high:.1f} ({band.status}: {band.source})"
        )

    def as_record(self) -> Json:
        return {
            "band": self.band.name,
            "status": self.band.status,
            "source": self.band.source,
            "low": self.band.low,
            "high": self.band.high,
            "side": self.side.label,
            "runs": [run.name for run in self.side.runs],
            "value": self.value,
            "ci95": None if self.ci95 is None else list(self.ci95),
            "verdict": self.verdict,
        }


def stored_bands() -> dict[str, Path]:
    """Those that come with the program, by name."""
    return {file.stem: file for file in sorted((config_roots()[1] / "recipes" / "bands").glob(f"*{ENDING}"))}


def read_band(path: str) -> Band:
    """The band in a file, or the stored one of that name.

    Raises:
        DataError: there is no such file, or it does not hold what a band needs.
    """
    file = stored_bands().get(path, Path(path))
    if not file.is_file():
        raise DataError(f"band: there is no file {path}", f"stored ones: {', '.join(stored_bands())}")
    content = read_yaml(file)
    try:
        return _band(file.stem, content)
    except (TypeError, ValueError) as error:
        raise DataError(f"band: {path}: {error}", "docs/comparing.md shows a whole file") from error


def _band(name: str, content: Json) -> Band:
    """Raises ValueError or TypeError with what is wrong."""
    known = {field.name for field in fields(Band)} - {"name"}
    if unknown := sorted(content.keys() - known):
        raise ValueError(f"unknown key {unknown[0]}")
    needed = [field.name for field in fields(Band) if field.default is MISSING]
    given = {"name": name, "low": None, "high": None, **content}
    if missing := [key for key in needed if key not in given]:
        raise ValueError(f"{missing[0]} is missing")
    if given["status"] not in STATUS:
        raise ValueError(f"status: expected published or measured, found {given['status']}")
    benchmarks = given["benchmarks"]
    if not isinstance(benchmarks, list) or not benchmarks or not all(isinstance(one, str) for one in benchmarks):
        raise ValueError("benchmarks: expected a list of names")
    given["benchmarks"] = tuple(benchmarks)
    for key in ("mean", "sd", "low", "high", "temperature", "seeds", "k"):
        _number(key, given.get(key), whole=key in ("seeds", "k"))
    if given["low"] is None and given["high"] is None:
        mean, sd, seeds = (given.get(key) for key in ("mean", "sd", "seeds"))
        if mean is None or sd is None or seeds is None or seeds < 2 or sd < 0:
            raise ValueError("expected low and high, or mean, sd and seeds (at least 2)")
        low, high = prediction_range(mean, sd, seeds)
        given["low"], given["high"] = max(0.0, low), min(1.0, high)
    if given["low"] is None or given["high"] is None or given["low"] > given["high"]:
        raise ValueError("expected low below high")
    return Band(**given)


def _number(key: str, value: Any, *, whole: bool) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not math.isfinite(value):
        raise ValueError(f"{key}: expected {'a whole number' if whole else 'a number'}, found {value}")
    if key in ("mean", "low", "high") and not 0 <= value <= 1:
        raise ValueError(f"{key}: expected a share of 1, found {value}")


def judge(band: Band, runs: list[Run], *, force: bool) -> list[Judged]:
    """Every side that was evaluated on the band's benchmarks, beside the band.

    Raises:
        ConfigError: no run has these benchmarks, or they were sampled at another temperature (unless `force`).
    """
    by_subject: dict[str, dict[str, Evaluation]] = {}
    for run in runs:
        if run.evaluation is not None:
            by_subject.setdefault(run.subject, {})[run.evaluation.benchmark] = run.evaluation
    first = [
        run
        for run in runs
        if run.evaluation is not None
        and run.evaluation.benchmark == band.benchmarks[0]
        and by_subject[run.subject].keys() >= set(band.benchmarks)
    ]
    if not first:
        named = " and ".join(band.benchmarks)
        raise ConfigError(f"band: none of the runs was evaluated on {named}", f"dgpo eval benchmark={named}")
    found = []
    for side in sides(first):
        evaluations = [[by_subject[run.subject][name] for name in band.benchmarks] for run in side.runs]
        if not force:
            _same_temperature(band, side, evaluations)
        value, ci95 = _figure(evaluations)
        found.append(Judged(band, side, value, ci95, placed(ci95, band.low, band.high)))
    return found


def _same_temperature(band: Band, side: Side, evaluations: list[list[Evaluation]]) -> None:
    for drawn in (one.sampling.get("temperature") for own in evaluations for one in own):
        if None not in (band.temperature, drawn) and drawn != band.temperature:
            message = f"band: temperature differs: {band.temperature:g} in {band.name}, {drawn:g} in {side.label}"
            raise ConfigError(message, "force=true compares them all the same")


def _figure(evaluations: list[list[Evaluation]]) -> tuple[float, tuple[float, float] | None]:
    """The mean over runs, of each run's mean over its benchmarks, with a 95% interval."""
    means = [sum(one.value for one in own) / len(own) for own in evaluations]
    if len(means) > 1:
        of_runs = mean_interval([[mean] for mean in means])
        return of_runs.mean, of_runs.ci95
    own = evaluations[0]
    if len(own) == 1:
        return means[0], own[0].ci95
    halves = [(one.ci95[1] - one.ci95[0]) / 2 for one in own if one.ci95 is not None]
    if len(halves) < len(own):
        return means[0], None
    half = math.sqrt(sum(one**2 for one in halves)) / len(own)
    return means[0], (means[0] - half, means[0] + half)
