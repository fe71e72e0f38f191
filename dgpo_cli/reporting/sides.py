"""Which runs are the same thing with another seed, what tells the others apart, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dgpo_cli.config.gatings import gating_option
from dgpo_cli.config.keys import option_files
from dgpo_cli.reporting.run_files import Json, as_yaml
from dgpo_cli.reporting.runs import Run

GATING, CONTROL = "gating.name", "gating.control"
MODEL = "model"  # of an evaluation: the path of the weights, another one for each seed


@dataclass(frozen=True)
class Side:
    """One run, or several that differ only in their seed."""

    label: str
    runs: list[Run]


def differences(runs: list[Run]) -> list[Json]:
    """For each run the settings that are not the same in all runs, seed included; null where a run has no such key.

    A key that only some runs have, as those of a newer version, is no difference.
    """
    settings = [{**run.settings, **({"seed": run.seed} if run.seed is not None else {})} for run in runs]
    known = {key: [one[key] for one in settings if key in one] for one in settings for key in one}
    differing = sorted(key for key, values in known.items() if any(value != values[0] for value in values))
    return [{key: one.get(key) for key in differing} for one in settings]


def short_labels(runs: list[Run]) -> list[str]:
    """What tells each run from the others, in few words: `algo=dgpo seed=1`.

    A setting that follows from the option chosen (`algo.clip_high` from `algo=dapo`) is left out.
    """
    differing = differences(runs)
    shown = [key for key in differing[0] if not _follows(key, differing)] if runs else []
    shown = [key for key in shown if key != MODEL] or shown  # a path says less than the settings that it was trained by
    shown = sorted(shown, key=lambda key: key.removesuffix(".name"))
    return [_label({key: one[key] for key in shown}) for one in differing]


def _label(values: Json) -> str:
    """A gating without a control is called by its name alone."""
    said = {key: value for key, value in values.items() if key != CONTROL or value not in ("none", None)} or values
    return " ".join(f"{key.removesuffix('.name')}={as_yaml(value)}" for key, value in said.items())


def sides(runs: list[Run]) -> list[Side]:
    """The runs by what they are instances of: those that differ in their seed alone are one side.

    So are evaluations of such runs after the same step. An evaluation of any other model stands alone, and a seed that
    comes again begins a further side, which the runs after it may join.
    """
    groups: list[list[Run]] = []
    for run in runs:
        lacking = (one for one in groups if alike(one[0], run) and run.seed not in [other.seed for other in one])
        same = next(lacking, None)
        if same is None:
            groups.append([run])
        else:
            same.append(run)
    firsts = short_labels([group[0] for group in groups])
    labels = [
        group[0].name if len(group) == 1 else _without_seed(label) or "all"
        for group, label in zip(groups, firsts, strict=True)
    ]
    return [
        Side(label if labels.count(label) == 1 else group[0].name, group)
        for label, group in zip(labels, groups, strict=True)
    ]


def alike(a: Run, b: Run) -> bool:
    """Whether two runs differ in their seed alone. A key that one of them lacks (another version) is none."""
    if a.kind != b.kind or a.seed is None or b.seed is None:
        return False
    return all(b.settings[key] == value for key, value in a.settings.items() if key in b.settings and key != MODEL)


def _follows(key: str, differing: list[Json]) -> bool:
    """Whether the value of `key` is decided by the name of its group's option, which differs as well.

    That of a gating must be the option's own: a control, or a temperature, makes another method of it.
    """
    name = f"{key.partition('.')[0]}.name"
    if key == name or name not in differing[0]:
        return False
    if name == GATING and not all(_is_usual(key, one) for one in differing):
        return False
    decided: dict[str, Any] = {}
    return all(decided.setdefault(str(one[name]), one[key]) == one[key] for one in differing)


def _is_usual(key: str, settings: Json) -> bool:
    """Whether the run's gating option brings this value by itself; of one that is not known, all but a control."""
    name, own = str(settings[GATING]), key.partition(".")[2]
    if name not in option_files("gating"):
        return key != CONTROL
    usual = getattr(gating_option(name), own, None)
    return bool(getattr(usual, "name", usual) == settings[key])


def _without_seed(label: str) -> str:
    return " ".join(word for word in label.split(" ") if not word.startswith("seed="))
