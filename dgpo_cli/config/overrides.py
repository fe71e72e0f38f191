"""The words typed after the command, before Hydra composes them: checked, and rewritten from `dgpo`'s shorter forms.

Rewritten: `recipe=`; a path without its option (`model.path=` alone means `model=path`); text that Hydra's grammar
cannot read; `benchmark=[a,b]`. Checked, all problems at once: syntax, groups, options, keys and types. Everything else,
such as which option brings which, is left to Hydra.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dgpo_cli.command_lines import override as shown
from dgpo_cli.command_lines import quoted, shell_word, value_text
from dgpo_cli.config import benchmarks, paths, reward_lists
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.experiment import whole
from dgpo_cli.config.path_keys import is_path
from dgpo_cli.config.suggestions import is_other_method, nearest_group, unknown_key_hint
from dgpo_cli.errors import Problem

# A path given alone selects the option that reads it.
OPTION_OF_PATH = {"model": "path", "reference": "path", "data": "file", "reward": "function"}
SWEEPABLE = ("train", "eval")  # commands that take -m
LITERAL_KEYS = ("prompt",)  # text that is never read as Hydra's grammar: commas and brackets in it mean themselves


@dataclass
class Request:
    """One command with its overrides as Hydra gets them."""

    command: str
    overrides: list[str]
    benchmarks: list[list[str]] = field(default_factory=list)  # overrides of each of `benchmark=[a,b]`; empty for one
    config_dirs: list[Path] = field(default_factory=list)
    multirun: bool = False
    typed: list[str] = field(default_factory=list)  # as it was typed, flags included
    refused: set[str] = field(default_factory=set)  # sections of overrides that are left out as wrong
    base: Path | None = None  # a whole configuration in place of conf/ (see experiment.py)


@functools.lru_cache(1024)  # each is asked for many times, and the parser takes a millisecond
def parse(text: str) -> Override:
    """One override, to be read only; raises HydraException if the grammar does not know it."""
    return OverridesParser.create().parse_overrides([text])[0]


def values_of(override: Override) -> list[Any]:
    """The value, or every value of a sweep over listed ones; none for a sweep over a range that is not counted out."""
    if not override.is_sweep_override():
        return [override.value()]
    if override.is_choice_sweep() or override.is_range_sweep():
        return [value.text if isinstance(value, QuotedString) else value for value in override.sweep_iterator()]
    return []


def prepare(
    command: str,
    texts: list[str],
    config_dirs: Iterable[Path] = (),
    multirun: bool = False,
    *,
    base: Path | None = None,
    origins: Mapping[str, str] | None = None,
) -> tuple[Request, list[Problem]]:
    """The request that Hydra gets, without the overrides that are wrong, and one problem for each of those.

    base: a whole configuration that they change. origins: the file that an override comes from, if it was not typed.
    """
    request = Request(command, [], config_dirs=list(config_dirs), multirun=multirun, base=base)
    problems: list[Problem] = []
    accepted: list[Override] = []
    names: list[str] = []
    lists: dict[str, list[Any]] = {}
    for text in texts:
        own: list[Problem] = []
        taken = _taken(text, request, names, lists, own, texts)
        file = (origins or {}).get(text)
        problems += [replace(problem, message=f"{file}: {problem.message}") for problem in own] if file else own
        accepted += taken
    request.overrides = [str(override.input_line) for override in accepted]
    request.benchmarks, found = benchmarks.overrides_of_each(names, lists, accepted)
    problems += found
    if request.benchmarks:
        request.overrides = benchmarks.with_benchmark(request.overrides, request.benchmarks[0])
    elif names and found:
        request.refused.add("benchmark")
    request.overrides += _implied(accepted, request)
    return request, problems


def _taken(
    text: str,
    request: Request,
    names: list[str],
    lists: dict[str, list[Any]],
    problems: list[Problem],
    texts: list[str],
) -> list[Override]:
    """The overrides that go on to Hydra in place of `text`. Names and lists of several benchmarks are set aside."""
    override = _parsed(_renamed(text), request, problems)
    if override is None:
        request.refused.add(re.split(r"[.=]", text.lstrip("+~"))[0])
        return []
    several, values = benchmarks.names_in(override, request.command), benchmarks.listed(override, request.command)
    rewards = reward_lists.listed(override)
    taken = []
    if rewards is not None and "reward" in catalogue.groups(request.command):
        own, found = reward_lists.overrides_of(rewards, texts, request.config_dirs)
        taken = [] if found else list(map(parse, own))
    elif several:
        names[:], found = several, [p for name in several for p in _option_problems("benchmark", name, request)]
        taken = [parse(f"benchmark={several[0]}")]
    elif values is not None:
        lists[override.key_or_group], found = values, []
    else:
        chosen, found = _chosen(override, request)
        taken = [] if chosen is None else [chosen]
    problems += found
    if found:
        request.refused.add(override.key_or_group.partition(".")[0])
        return []
    return taken


def _renamed(text: str) -> str:
    """`recipe=` under the name of its folder."""
    return re.sub(r"^(\+{0,2}|~)recipe(?==|$)", rf"\1{catalogue.RECIPES}", text)


def _parsed(text: str, request: Request, problems: list[Problem]) -> Override | None:
    """The override, its value quoted if it is plain text that the grammar cannot read."""
    command = request.command
    prefixed, equals, value = text.partition("=")
    name = prefixed.lstrip("+")
    key = catalogue.keys(command).get(name)
    is_text = key is not None and catalogue.plain_type(key.type) is str
    is_quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
    if name in LITERAL_KEYS and is_text and not is_quoted:
        return parse(f"{name}={quoted(value)}")
    if equals and is_path(name) and (key is not None or name.startswith("hydra.")):
        text = f"{prefixed}={paths.for_hydra(name, value, command, multirun=request.multirun)}"
    try:
        return parse(text)
    except HydraException:
        if is_text and equals:
            return parse(f"{prefixed}={quoted(value)}")
    if not equals:
        problems.append(Problem(f"cannot read '{text}': expected KEY=VALUE", _hint_without_equals(text, command)))
    else:
        hint = f"quote text with special characters: {prefixed}='\"...\"'; a list is {prefixed}=[a,b]"
        problems.append(Problem(f"cannot read '{text}': the value is not valid in Hydra's grammar", hint))
    return None


def _hint_without_equals(text: str, command: str) -> str:
    if (Path(text) / "config.yaml").is_file():
        run = shell_word(f"{text.rstrip('/')}/config.yaml")
        path = "runs" if command == "compare" else "model.path"
        again = f"; dgpo train {run} starts another one like it" if command == "train" else ""
        return f"a run's folder: {shown('resume' if command == 'train' else path, text)}{again}"
    for group in catalogue.groups(command):
        if text in catalogue.options(group):
            return f"did you mean {group}={text}?"
    close = catalogue.nearest(text, [*catalogue.keys(command), *catalogue.groups(command)])
    return f"did you mean {close}=...?" if close else f"dgpo {command} -h lists the groups, dgpo help keys every key"


def _chosen(override: Override, request: Request) -> tuple[Override | None, list[Problem]]:
    """The override, with `none` for a group that is set to null or taken out, and what is wrong with it.

    No override if the default is to choose nothing, and that was typed: Hydra has no word for it.
    """
    name, known = override.key_or_group, catalogue.keys(request.command)
    if override.is_hydra_override() or (name not in known and name != catalogue.RECIPES):
        return override, _override_problems(override, request)
    if override.package is not None:
        return override, [Problem(f"{override.input_line}: '{name}' has one place here", f"{name}=...")]
    if name not in catalogue.groups(request.command):
        if override.is_delete():
            hint = "without it on the command line it has its default"
            return override, [Problem(f"~{name}: a key cannot be taken out", hint)]
        return override, _override_problems(override, request)
    values = [None] if override.is_delete() else values_of(override)
    options = catalogue.options(name, request.config_dirs)
    chosen = ["none" if value is None else value for value in values]
    if "none" in options:
        if chosen != values:
            override = parse(f"{name}={','.join(map(str, chosen))}")
    elif "none" in chosen:
        is_default = name == catalogue.RECIPES or (name == "strategy" and request.command == "train")
        if is_default and set(chosen) == {"none"}:
            return None, []
        return override, [_needs_an_option(name, override, request)]
    return override, _override_problems(override, request)


def _needs_an_option(group: str, override: Override, request: Request) -> Problem:
    hint = f"leave it out for the default; options: {', '.join(catalogue.options(group, request.config_dirs))}"
    if group == "gating":
        hint = "gating=uniform gives every token the same credit"
    return Problem(f"{override.input_line}: expected an option, dgpo {request.command} needs one", hint)


def _override_problems(override: Override, request: Request) -> list[Problem]:
    if override.is_sweep_override() and not request.multirun:
        text = str(override.input_line)
        hint = f"each in a run of its own: dgpo {request.command} -m {shell_word(text)}; a list is written [a,b]"
        if request.command not in SWEEPABLE:
            hint = f"run dgpo {request.command} once for each; a list is written [a,b]"
        return [Problem(f"'{text}' names several values", hint)]
    if override.is_hydra_override() or override.package is not None or override.is_delete():
        return []
    name = override.key_or_group
    if name == catalogue.RECIPES and request.command != "train":
        return [
            Problem(
                f"dgpo {request.command} takes no recipe", "a recipe is a whole training run: dgpo train recipe=NAME"
            )
        ]
    if name in catalogue.groups(request.command):
        return [p for value in values_of(override) for p in _option_problems(name, value, request)]
    if any((folder / name).is_dir() for folder in request.config_dirs):
        return []  # a group of the user's own
    problems = _key_problems(name, values_of(override), request.command)
    if name == "gatings" and not problems:
        named = [value for values in values_of(override) for value in values or []]
        problems = [p for value in named for p in _option_problems("gating", value, request)]
    return problems


def _option_problems(group: str, value: Any, request: Request) -> list[Problem]:
    label = "recipe" if group == catalogue.RECIPES else group
    known = catalogue.options(group, request.config_dirs)
    if value is None or (isinstance(value, str) and value in known):
        return []
    if isinstance(value, list) and group == "logger" and "none" not in value:
        return [problem for item in value for problem in _option_problems(group, str(item), request)]
    if isinstance(value, list):
        runs = ",".join(str(item) for item in value if item is not None)
        hint = f"each in a run of its own: dgpo {request.command} -m {shell_word(f'{label}={runs}')}"
        hint = hint if len(value) > 1 and request.command in SWEEPABLE else f"options: {', '.join(known)}"
        return [Problem(f"{label} takes one option, got {catalogue.show(value)}", hint)]
    if isinstance(value, dict):
        return [Problem(f"{label} takes the name of an option", f"set its keys one by one: {label}.KEY=VALUE")]
    listed = ", ".join(known) or "none here"
    close = catalogue.nearest(str(value), known)
    if is_other_method(group, str(value)):
        hint = f"options: {listed}"
    elif close:
        hint = f"did you mean {label}={close}? (options: {listed})"
    elif f"{group}.path" in catalogue.keys(request.command) and _looks_like_a_path(str(value)):
        hint = f"a file, folder or hub id is given as {shown(f'{group}.path', value)} (options: {listed})"
    else:
        hint = f"options: {listed}"
    return [Problem(f"{label}={value}: there is no such option", hint)]


def _looks_like_a_path(value: str) -> bool:
    return bool(re.search(r"/|\.\w", value)) or Path(value).exists()


def _key_problems(name: str, values: list[Any], command: str) -> list[Problem]:
    key = catalogue.keys(command).get(name)
    if key is None:
        return [_unknown_key(name, values, command)]
    problems = []
    for value in values:
        if key.is_section and isinstance(value, dict):
            problems += [p for leaf in value for p in _key_problems(f"{name}.{leaf}", [value[leaf]], command)]
        elif key.is_section or not _fits(name, value, command):
            problems.append(_wrong_type(key, value, command))
    return problems


def _unknown_key(name: str, values: list[Any], command: str) -> Problem:
    others = [other for other in COMMANDS if other != command and name in catalogue.keys(other)]
    if others:
        return Problem(f"dgpo {command} has no key '{name}'", f"it belongs to dgpo {', dgpo '.join(others)}")
    close = unknown_key_hint(name, command, values)
    group = nearest_group(name, ["recipe", *catalogue.groups(command)]) if "." not in name else None
    if group and (not close or "." in close):
        return Problem(f"unknown key '{name}'", f"did you mean {group}=...? (dgpo {command} -h)")
    return Problem(f"unknown key '{name}'", close or "dgpo help keys lists every key")


@functools.cache
def _tried(command: str) -> DictConfig:
    """A configuration to try values on, one key at a time: what a key takes does not depend on others."""
    tried: DictConfig = OmegaConf.structured(COMMANDS[command])
    return tried


def _fits(name: str, value: Any, command: str) -> bool:
    try:
        OmegaConf.update(_tried(command), name, value, merge=True)
    except OmegaConfBaseException:
        return False
    return True


def _wrong_type(key: catalogue.Key, value: Any, command: str) -> Problem:
    given = repr(value) if isinstance(value, str) else catalogue.show(value)
    if key.is_section:
        first = next(name for name in catalogue.keys(command) if name.startswith(f"{key.path}."))
        return Problem(f"{key.path} is a section, got {given}", f"set one of its keys, such as {first}=...")
    message = f"{key.path}: expected {catalogue.describe_type(key.type)}, got {given}"
    members = getattr(catalogue.plain_type(key.type), "__members__", {})
    close = catalogue.nearest(str(value), members)
    return Problem(message, f"did you mean {key.path}={close}?" if close else f"dgpo help {key.path}")


def _implied(overrides: list[Override], request: Request) -> list[str]:
    """The options that a path given alone selects. A run that is continued has its options already."""
    typed = {override.key_or_group: override for override in overrides}
    if "resume" in typed and typed["resume"].value() is not None:
        return []
    implied = []
    logger = typed.get("logger")
    if logger is not None and "logger.name" not in typed and isinstance(logger.value(), list):
        implied.append(f"logger.name={value_text('+'.join(map(str, values_of(logger)[0])))}")
    base = whole(request.command, request.base) if request.base else {}
    for group, option in OPTION_OF_PATH.items():
        path = typed.get(f"{group}.path")
        if path is None or group in typed or _recipe_chooses(group, typed, request):
            continue
        if base.get(group, {}).get("name") == option:
            continue  # it has its other keys already
        if values_of(path) != [None]:
            implied.append(f"{group}={option}")
    return implied


def _recipe_chooses(group: str, typed: dict[str, Override], request: Request) -> bool:
    recipe = typed.get(catalogue.RECIPES)
    if recipe is None:
        return False
    files = catalogue.option_files(catalogue.RECIPES, request.config_dirs)
    texts = [files[str(name)].read_text(encoding="utf-8") for name in values_of(recipe) if str(name) in files]
    return any(re.search(rf"^\s*-\s*(override\s+)?/?{group}\s*:", text, re.MULTILINE) for text in texts)
