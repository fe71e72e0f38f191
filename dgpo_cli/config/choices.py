"""Typed keys beside the other choices: keys that change nothing, files under a name that nobody gave them.

All of it is about the command line, and about all jobs of a sweep together; `checks` looks at one configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dgpo_cli.command_lines import override
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.idle import Idle, idle_keys
from dgpo_cli.errors import Problem

SOURCES = ("path", "hub", "completions")  # keys of a group that say where its rows or weights are
NAMED = ("benchmark", "data", "model")


def against_each_other(
    command: str, configs: list[Any], typed: list[dict[str, Any]]
) -> tuple[list[Problem], list[str]]:
    """Problems of a command's jobs, one configuration and its typed keys each; and notes that should be said."""
    if command == "compare":
        return [], []
    problems, notes = _idle(command, configs, typed)
    problems += _one_source_for_several(configs, typed)
    for config, keys in zip(configs, typed, strict=True):
        problem, note = _unnamed_benchmark(command, config, keys)
        problems += [problem] if problem is not None and problem not in problems else []
        notes += [note] if note is not None and note not in notes else []
    return problems, notes


def _idle(command: str, configs: list[Any], typed: list[dict[str, Any]]) -> tuple[list[Problem], list[str]]:
    """A key that is idle in every job is wrong; one that counts in another job is only said."""
    per_job = [idle_keys(command, config, keys) for config, keys in zip(configs, typed, strict=True)]
    first: dict[str, Idle] = {}
    for found in per_job:
        for idle in found:
            first.setdefault(idle.key, idle)
    problems, notes = [], []
    for key, idle in first.items():
        counts = sum(any(other.key == key for other in found) for found in per_job)
        if counts == len(configs):
            problems.append(Problem(idle.message, idle.hint))
        else:
            notes.append(f"{idle.message} (in {counts} of {len(configs)} jobs)")
    return problems, notes


def _one_source_for_several(configs: list[Any], typed: list[dict[str, Any]]) -> Iterator[Problem]:
    """A file that would be read under several names: each would print the rows of one."""
    for group in NAMED:
        for source in SOURCES:
            key = f"{group}.{source}"
            names: dict[str, list[str]] = {}
            for config, keys in zip(configs, typed, strict=True):
                name = getattr(getattr(config, group), "name", None)
                if keys.get(key) is not None and name is not None:
                    names.setdefault(str(keys[key]), []).append(name)
            for value, found in names.items():
                several = list(dict.fromkeys(found))
                if len(several) > 1:
                    message = f"{key}={value}: one value for {len(several)} of {group}= ({', '.join(several)})"
                    yield Problem(message, f"a command for each: {group}={several[0]} {override(key, value)}")


def _unnamed_benchmark(command: str, config: Any, typed: dict[str, Any]) -> tuple[Problem | None, str | None]:
    """Rows of a file whose benchmark nobody named are read, graded and shown as another's."""
    if command not in ("train", "eval") or "benchmark" in typed or "benchmark.name" in typed:
        return None, None
    benchmark = config.benchmark
    if command == "eval" and benchmark.completions:
        known = ", ".join(name for name in catalogue.options("benchmark") if name != "none")
        hint = (
            f"benchmark=NAME says how they are graded: {known}; rows that bring their golds may have a name of "
            "your own: benchmark=none benchmark.name=NAME reward=robust"
        )
        return Problem(f"benchmark.completions={benchmark.completions}: of which benchmark?", hint), None
    given = next((key for key in ("benchmark.path", "benchmark.hub") if typed.get(key) is not None), None)
    if given is None or benchmark.name is None:
        return None, None
    brought = f"model={config.model.name}" if command == "eval" else f"data={config.data.name}"
    said = f"{given}: its rows are read, graded ({benchmark.reward}) and shown as those of {benchmark.name}"
    return None, f"{said}, which {brought} brings; benchmark=NAME names another"
