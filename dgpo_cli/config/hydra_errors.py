"""Hydra's and OmegaConf's complaints in a user's words: which key or option, what was expected, what to type."""

from __future__ import annotations

import re

from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.suggestions import unknown_key_hint
from dgpo_cli.errors import ConfigError

EXTRAS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}  # of launchers
PACKAGE_HINT = "the first line of a recipe is: # @package _global_"


def config_error(error: Exception, command: str) -> ConfigError:
    """Hydra's complaint in a user's words. Typed keys are checked before, so this is mostly about files."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
    text = "\n".join(lines)
    in_file = re.match(r"In '(.*)': \w+ raised while composing config:", text)
    place = f"{in_file[1]}.yaml: " if in_file else ""
    named = re.search(r"^full_key: (\S+)", text, re.MULTILINE)
    path = named[1] if named else ""
    key = catalogue.keys(command).get(path)
    if path and re.search(r"^Key '.*' (is )?not in", text, re.MULTILINE):
        close = unknown_key_hint(path, command)
        if path == catalogue.RECIPES:
            return ConfigError(f"{place}its keys are not those of the whole configuration", PACKAGE_HINT)
        listing = "dgpo help keys"
        if path.startswith("hydra."):
            listing = f"dgpo {command} --cfg hydra lists Hydra's keys; +{path}=VALUE adds one where a plug-in takes any"
        return ConfigError(f"{place}unknown key '{path}'", close or listing)
    if key is not None:
        given = re.search(r"^(?:Value|Invalid value) ('.*?')", text, re.MULTILINE)
        got = f", got {given[1]}" if given else ""
        return ConfigError(f"{place}{path}: expected {catalogue.describe_type(key.type)}{got}", f"dgpo help {path}")
    lines = lines[1:] if in_file and len(lines) > 1 else lines
    if f"@{catalogue.RECIPES}." in text:
        return ConfigError(place + lines[0], PACKAGE_HINT)
    return ConfigError(place + lines[0], _hint(lines, command))


def _hint(lines: list[str], command: str) -> str:
    if "does not support sweep type" in lines[0]:
        return f"list the values: dgpo {command} -m seed=0,1,2; or choose a sweeper that can: hydra/sweeper=NAME"
    launcher = re.search(r"Could not find 'hydra/launcher/(\w+)'", lines[0])
    if launcher and launcher[1] in EXTRAS:
        return f"pip install 'dgpo[{EXTRAS[launcher[1]]}]' brings it"
    twice = re.match(r"Multiple values for (\w+)", lines[0])
    if twice:
        return f"let each option of your own bring it, in its defaults list: - /{twice[1]}: OPTION"
    start = next((i for i, line in enumerate(lines) if line.startswith("Available options")), None)
    end = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), None)
    if start is not None:
        return f"options: {', '.join(lines[start + 1 : end])}"
    return f"dgpo {command} --info defaults-tree shows what brings what"
