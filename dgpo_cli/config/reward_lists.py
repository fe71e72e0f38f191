"""Several rewards typed as a list, `reward=[robust,my.py:brief]`: the same as `reward.path=` with that list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from dgpo_cli.command_lines import in_quotes
from dgpo_cli.config import keys as catalogue
from dgpo_cli.errors import Problem


def listed(override: Override) -> list[Any] | None:
    """The rewards of `reward=[a,b]`; None of anything else."""
    if override.key_or_group != "reward" or override.is_sweep_override() or override.is_delete():
        return None
    value = override.value()
    return value if isinstance(value, list) else None


def overrides_of(names: list[Any], typed: list[str], config_dirs: list[Path]) -> tuple[list[str], list[Problem]]:
    """What stands for the list: the option `function` with a path of several rewards.

    A name is a grader, an option of the user's own that names a function, or `file.py:function`.
    """
    shown = f"reward={catalogue.show(names)}"
    if any(text.startswith("reward.path=") for text in typed):
        return [], [Problem(f"{shown} and reward.path=: both name the rewards", "leave out one of them")]
    files = catalogue.option_files("reward", config_dirs)
    paths, problems = [], []
    for name in map(str, names):
        values = catalogue.flat_yaml(files[name]) if name in files else {}
        path = values.get("path", "") if values.get("name") == "function" else values.get("name", name)
        if not path:
            problems.append(Problem(f"{shown}: {name} names no function", "reward=[robust,my_reward.py:score]"))
        elif ":" not in path and path not in files:
            close = catalogue.nearest(path, files)
            hint = f"did you mean {close}?" if close else f"options: {', '.join(files)}; or FILE.py:FUNCTION"
            problems.append(Problem(f"{shown}: there is no reward '{name}'", hint))
        paths.append(path)
    return ["reward=function", f"reward.path=[{','.join(map(in_quotes, paths))}]"], problems
