"""Words to type after a command: the groups of conf/ with their options, and all keys with type and meaning.

The standard library alone is used, so that help and completion answer at once. Options are read from file names; values
of the few options that help shows are read by `flat_yaml`, which knows the plain YAML of conf/ and no more.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

from dgpo_cli.config.commands import COMMANDS

RECIPES = "recipes"  # the group that `recipe=` is mapped onto: Hydra finds the files of recipes/ under this name


@dataclass(frozen=True)
class Key:
    """One configuration key of a command."""

    path: str
    type: Any  # the dataclass field's type, evaluated
    default: Any
    meaning: str
    unit: str

    @property
    def is_section(self) -> bool:
        return dataclasses.is_dataclass(self.type)


def config_roots() -> tuple[Path, Path]:
    """The folder conf/ and the parent of recipes/: inside the installed package, else at the top of the checkout."""
    package = Path(__file__).resolve().parent.parent
    root = package if (package / "conf").is_dir() else package.parent
    return root / "conf", root


@cache
def keys(command: str) -> dict[str, Key]:
    """Every key of a command by its dotted path, sections (`optim`) included."""
    return {key.path: key for key in _walk(COMMANDS[command], "")}


def _walk(schema: Any, prefix: str) -> Iterable[Key]:
    hints = typing.get_type_hints(schema)
    defaults = schema()
    for field in dataclasses.fields(schema):
        key = Key(
            path=prefix + field.name,
            type=hints[field.name],
            default=getattr(defaults, field.name),
            meaning=field.metadata.get("meaning", ""),
            unit=field.metadata.get("unit", ""),
        )
        yield key
        if key.is_section:
            yield from _walk(key.type, f"{key.path}.")


def groups(command: str) -> list[str]:
    """The groups that a command takes, in the order of its schema; `recipes` last, if the command takes one."""
    conf, _ = config_roots()
    found = [path for path, key in keys(command).items() if key.is_section and (conf / path).is_dir()]
    return [*found, RECIPES] if command == "train" else found


def option_files(group: str, config_dirs: Iterable[Path] = ()) -> dict[str, Path]:
    """The option files of a group by name; those of conf/ and recipes/ win over those of --config-dir, as in Hydra."""
    conf, root = config_roots()
    found: dict[str, Path] = {}
    for folder in (conf, *config_dirs, root):
        if folder == root and group != RECIPES:
            continue  # beside recipes/ stand folders of code, which are no groups
        _add_files(folder / group, found)
    if group == RECIPES:
        found |= {name: file for name, file in recipe_files(config_dirs).items() if name not in found}
    return found


def recipe_files(config_dirs: Iterable[Path]) -> dict[str, Path]:
    """Recipes in a folder recipe/ of --config-dir, named as they are typed. Hydra knows those in recipes/ by itself."""
    found: dict[str, Path] = {}
    for folder in config_dirs:
        _add_files(folder / "recipe", found)
    return found


def _add_files(folder: Path, found: dict[str, Path]) -> None:
    for file in sorted(folder.rglob("*.yaml")):
        found.setdefault(file.relative_to(folder).with_suffix("").as_posix(), file)


def options(group: str, config_dirs: Iterable[Path] = ()) -> list[str]:
    """The options behind `GROUP=`. A reference may also be named by a model option."""
    config_dirs = list(config_dirs)
    found = list(option_files(group, config_dirs))
    if group == "reference":
        found += [name for name in option_files("model", config_dirs) if name not in found]
    return found


def nearest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that a mistyped word most likely means, or None."""
    matches = difflib.get_close_matches(word, list(candidates), cutoff=0.65)
    turned = [match for match in matches if sorted(match) == sorted(word)]  # dpao is dapo, though dgpo is as near
    return next(iter([*turned, *matches]), None)


def accepts_null(type_: Any) -> bool:
    """True when the type is written `... | None`."""
    return types.NoneType in typing.get_args(type_)


def plain_type(type_: Any) -> Any:
    """The type without `| None`."""
    rest = [part for part in typing.get_args(type_) if part is not types.NoneType]
    return rest[0] if accepts_null(type_) and len(rest) == 1 else type_


def describe_type(type_: Any) -> str:
    """A field's type in a user's words: `a whole number`, `one of token | sequence`, `a list of numbers or null`."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    words[Any] = "text, a list of texts or null"
    plurals = {int: "whole numbers", float: "numbers", str: "texts"}
    plain = plain_type(type_)
    if typing.get_origin(plain) is list:
        text = f"a list of {plurals.get(typing.get_args(plain)[0], 'values')}"
    elif isinstance(plain, type) and issubclass(plain, Enum):
        text = "one of " + " | ".join(member.name for member in plain)
    elif dataclasses.is_dataclass(plain):
        text = "a section with keys of its own"
    else:
        text = words.get(plain, str(plain))
    return f"{text} or null" if accepts_null(type_) else text


def show(value: Any) -> str:
    """A value as it would be typed on the command line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, list):
        return "[" + ",".join(show(item) for item in value) + "]"
    return str(value)


def flat_yaml(file: Path) -> dict[str, str]:
    """The scalar values of a plain YAML file by dotted path. Lists, anchors and multi-line values are left out."""
    values: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.strip()
        name, colon, value = text.partition(":")
        if not text or text.startswith(("#", "-")) or not colon:
            continue
        indent = len(line) - len(line.lstrip())
        while parents and parents[-1][0] >= indent:
            parents.pop()
        path = ".".join([*(parent for _, parent in parents), name])
        value = value.strip().strip("'\"")
        if value:
            values[path] = value
        else:
            parents.append((indent, name))
    return values


def first_comment(file: Path) -> str:
    """The first comment line of an option file, its explanation."""
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not line.startswith("# @package"):
            return line.lstrip("# ").strip()
    return ""


def defaults_list(file: Path) -> list[tuple[str, str]]:
    """(group, option) of each entry of an option file's defaults list."""
    lines = (line.strip() for line in file.read_text(encoding="utf-8").splitlines())
    pairs = (line[1:].partition(":") for line in lines if line.startswith("- ") and ":" in line)
    return [(group.strip().lstrip("/"), option.strip()) for group, _, option in pairs]
