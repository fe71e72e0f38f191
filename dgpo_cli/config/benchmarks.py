"""Several benchmarks of an evaluation or a run, `benchmark=[a,b]`: which overrides are each one's.

Whatever names the rows belongs to one benchmark: a file given once would print its rows under every name.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from dgpo_cli.command_lines import in_quotes
from dgpo_cli.config import keys as catalogue
from dgpo_cli.errors import Problem

TAKE_SEVERAL = ("train", "eval")
ONE_EACH = ("benchmark.path", "benchmark.completions")  # a list has one for each benchmark, in their order
OF_ONE = ("benchmark.name", "benchmark.hub", "benchmark.config", "benchmark.revision", "benchmark.rows")


def name_of_file(path: str) -> str:
    """What benchmark=file is called: like its file, of characters that a folder can have."""
    name = path.rstrip("/").rpartition("/")[2].rpartition(":")[2]
    stem = name.rpartition(".")[0] if Path(name).suffix in (".jsonl", ".json", ".csv", ".parquet") else name
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "file"


def names_in(override: Override, command: str) -> list[str]:
    """The names in `benchmark=[a,b]`, which Hydra's grammar would merge into one."""
    if command not in TAKE_SEVERAL or override.key_or_group != "benchmark" or override.is_sweep_override():
        return []
    value = override.value()
    return [str(name) for name in value] if isinstance(value, list) else []


def listed(override: Override, command: str) -> list[Any] | None:
    """The values of a key that takes one for each benchmark; None if it is no list."""
    if command not in TAKE_SEVERAL or override.key_or_group not in ONE_EACH or override.is_sweep_override():
        return None
    value = override.value()
    return value if isinstance(value, list) else None


def overrides_of_each(
    names: list[str], lists: dict[str, list[Any]], others: list[Override]
) -> tuple[list[list[str]], list[Problem]]:
    """The overrides of each benchmark, and what cannot be dealt out among them.

    names: of `benchmark=[...]`; empty if one benchmark is chosen otherwise. lists: keys that are given a list.
    """
    count = len(names) or 1
    problems = _twice(names, lists)
    for key, values in lists.items():
        wrong = [value for value in values if not isinstance(value, str | None)]
        if len(values) != count or wrong:
            of = f" for {count} benchmarks ({', '.join(names)})" if count > 1 else " for one benchmark"
            number = "one value" if len(values) == 1 else f"{len(values)} values"
            problems.append(Problem(f"{key}: {number}{of}: {catalogue.show(values)}", _each(key, names)))
    if count > 1:
        problems += [_shared(override, names) for override in others if override.key_or_group in (*ONE_EACH, *OF_ONE)]
    if problems or not (names or lists):
        return [], problems
    own = [[f"benchmark={name}"] for name in names] or [[]]
    for key, values in lists.items():
        for overrides, value in zip(own, values, strict=True):
            # The grammar has read the value once already; interpolations in it are still to be resolved.
            overrides.append(f"{key}={'null' if value is None else in_quotes(value)}")
    return own, []


def with_benchmark(overrides: list[str], own: list[str]) -> list[str]:
    """The overrides, with those of one benchmark in place of the lists."""
    keys = tuple(f"{text.partition('=')[0]}=" for text in own)
    replaced = [at for at, text in enumerate(overrides) if text.lstrip("+").startswith(keys)]
    if own[0].startswith("benchmark="):  # null in a list leaves what the option has
        own = [text for text in own if text not in [f"{key}=null" for key in ONE_EACH]]
    first = replaced[0] if replaced else len(overrides)
    if replaced and overrides[first].startswith("+"):  # a group that no default brings
        own = [f"+{own[0]}", *own[1:]]
    rest = [text for at, text in enumerate(overrides) if at > first and at not in replaced]
    return [*overrides[:first], *own, *rest]


def joined(overrides: list[str], benchmarks: list[list[str]]) -> list[str]:
    """The overrides of a job as they are typed: `with_benchmark` undone."""
    if not benchmarks:
        return overrides
    lists: dict[str, list[str]] = {}
    for own in benchmarks:
        for text in own:
            key, _, value = text.partition("=")
            lists.setdefault(key, []).append(value)
    return with_benchmark(overrides, [f"{key}=[{','.join(values)}]" for key, values in lists.items()])


def _twice(names: list[str], lists: dict[str, list[Any]]) -> list[Problem]:
    """Benchmarks of one name, which their rows and folders could not be told apart by. Files are called like files."""
    paths = lists.get("benchmark.path", [])
    called = [
        name_of_file(paths[at]) if name == "file" and at < len(paths) and isinstance(paths[at], str) else name
        for at, name in enumerate(names)
    ]
    own = "benchmark=file is called like its file: benchmark.path=[a.jsonl,b.jsonl]"
    return [
        Problem(
            f"benchmark={catalogue.show(names)}: {name} is named twice", own if "file" in names else f"benchmark={name}"
        )
        for name in dict.fromkeys(called)
        if called.count(name) > 1
    ]


def _shared(override: Override, names: list[str]) -> Problem:
    key = override.key_or_group
    shown = catalogue.show(override.value()) if not override.is_sweep_override() else "..."
    message = f"{key}={shown}: one value for {len(names)} benchmarks ({', '.join(names)})"
    return Problem(message, _each(key, names))


def _each(key: str, names: list[str]) -> str:
    if key in OF_ONE:
        return f"it belongs to one of them: dgpo eval benchmark={names[0]} {key}=..., and once more for each other"
    if len(names) < 2:
        several = "; for several: benchmark=[file,file] benchmark.path=[a.jsonl,b.jsonl]"
        return f"{key}=FILE{several if key == 'benchmark.path' else ''}"
    names = [("val" if name == "file" else "null") if "file" in names else name for name in names]
    files = ",".join(name if name == "null" else f"{name}.jsonl" for name in names)
    return f"one for each, in their order: {key}=[{files}]; null in the list leaves one as it is"
