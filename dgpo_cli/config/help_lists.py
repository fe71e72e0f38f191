"""Longer answers of `dgpo help`: an experiment file to copy, what an option sets, and every key. Standard library."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.errors import UsageError

EXAMPLE = """\
# An experiment file. Save it (dgpo help recipe > my.yaml), change it, and run it:
#   dgpo train my.yaml                        what is typed wins: dgpo train my.yaml optim.lr=2e-6
#   dgpo train -m my.yaml seed=0,1            two runs
#   dgpo train my.yaml dry_run=true           its plan, before anything is loaded
# GROUP: OPTION picks an option (dgpo train -h lists them, dgpo help algo=dapo shows what one sets); any key may stand
# in its section (dgpo help keys lists them all). The config.yaml of a run is such a file, too.
# Kept as FOLDER/recipe/my.yaml it is an option as well: dgpo train --config-dir FOLDER recipe=my
# Recipes that come with dgpo, for recipe: NAME (dgpo help recipe=NAME prints one):
{recipes}
model: tiny                     # or your own, a hub id or a folder:   model: {{path: Qwen/Qwen2.5-0.5B}}
algo: dgpo                      # grpo | dapo | dgpo
data: digit_chain               # or your own rows:
# data:
#   path: my.jsonl              # .jsonl .json .csv .parquet, or a hub id
#   prompt_key: question
#   answer_key: answer
# reward:
#   path: my_reward.py:score    # dgpo help reward.path
seed: 0
steps: 65
rollout:
  prompts_per_step: 16
  group_size: 8
  max_completion_tokens: 40
optim:
  lr: 5.0e-4
eval:
  every: 0                      # steps between evaluations; 0 is before and after
checkpoint:
  every: 20"""


def example() -> str:
    """A YAML file that runs as it is."""
    files = catalogue.option_files(catalogue.RECIPES)
    width = max(map(len, files)) + 2
    listed = [f"#   {name.ljust(width)}{catalogue.first_comment(file)}" for name, file in files.items()]
    return EXAMPLE.format(recipes="\n".join(listed))


def option_text(group: str, option: str, hanging: Callable[[str, str, int], str]) -> str:
    """What an option sets, a line a key with its meaning; a recipe as the file that it is.

    Raises:
        UsageError: no such group or option.
    """
    label, group = group, catalogue.RECIPES if group == "recipe" else group
    verb = next((verb for verb in COMMANDS if group in catalogue.groups(verb)), None)
    if verb is None:
        raise UsageError(f"there is no group '{label}'", "dgpo train -h lists the groups")
    files = catalogue.option_files(group)
    if group == "reference" and option not in files and option in catalogue.options(group):
        path = _values("model", catalogue.option_files("model")[option]).get("model.path")
        return f"reference={option}: the weights of model={option}, frozen\nsets\n  reference.path={path}"
    if option not in files:
        close = catalogue.nearest(option, catalogue.options(group))
        listed = ", ".join(catalogue.options(group))
        hint = f"did you mean {label}={close}? (options: {listed})" if close else f"options: {listed}"
        raise UsageError(f"{label}={option}: there is no such option", hint)
    if group == catalogue.RECIPES:
        return files[option].read_text(encoding="utf-8").rstrip("\n")
    brings, values = _brings(files[option]), _values(group, files[option])
    lines = [textwrap.fill(f"{group}={option}: {catalogue.first_comment(files[option])}", 116)]
    if brings:
        lines.append(f"brings, if nothing else is chosen: {' '.join(brings)}")
    lines.append("sets" if values else "sets nothing: every key has its default (dgpo help keys)")
    width = max([len(f"{path}={value}") for path, value in values.items()], default=0) + 2
    known = catalogue.keys(verb)
    lines += [
        hanging(f"{path}={value}", known[path].meaning if path in known else "", min(width, 48))
        for path, value in values.items()
    ]
    return "\n".join(lines)


def _values(group: str, file: Path) -> dict[str, str]:
    """What the file sets beside its name, by the whole path of each key."""
    is_global = "@package _global_" in file.read_text(encoding="utf-8")
    values = catalogue.flat_yaml(file)
    whole = {path if is_global else f"{group}.{path}": value.partition("  #")[0] for path, value in values.items()}
    return {path: value.replace(", ", ",") for path, value in whole.items() if path != f"{group}.name"}


def _brings(file: Path) -> list[str]:
    return [f"{group}={option}" for group, option in catalogue.defaults_list(file)]


def every_key(default: Callable[[catalogue.Key, str], str]) -> str:
    """All keys of all commands with type and default, each once; a default that differs is shown by command."""
    rows, width = [], 0
    for name in dict.fromkeys(name for verb in COMMANDS for name in catalogue.keys(verb)):
        verbs = [verb for verb in COMMANDS if name in catalogue.keys(verb)]
        key = catalogue.keys(verbs[0])[name]
        if key.is_section:
            continue
        by_value: dict[str, list[str]] = {}
        for verb in verbs:
            by_value.setdefault(default(catalogue.keys(verb)[name], verb), []).append(verb)
        shown = " | ".join(
            f"{value} ({', '.join(of)})" if len(by_value) > 1 else value for value, of in by_value.items()
        )
        rows.append((name, catalogue.describe_type(key.type), shown, " ".join(verbs)))
        width = max(width, len(name))
    lines = [f"{name.ljust(width)}  {type_}  [{shown}]  {verbs}" for name, type_, shown, verbs in rows]
    head = f"Every key: type, [default], the commands that take it. dgpo help KEY: meaning and unit. {len(rows)} keys"
    return "\n".join([head, "", *lines])
