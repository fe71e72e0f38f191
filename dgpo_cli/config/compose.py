"""Compose a command's configuration with Hydra: options of conf/ and recipes/, overrides, and the typed schema.

`compose` is the whole way from overrides to the dataclass. The program takes it in parts, since Hydra's own `main`
composes once more for the run. Hydra is imported inside the functions: importing this module stays cheap.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgpo_cli.command_lines import escaped, quoted
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.keys import config_roots
from dgpo_cli.errors import ConfigError
from dgpo_cli.files import write_atomically

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dgpo_cli.config.overrides import Request

__all__ = [
    "complete",
    "compose",
    "composed",
    "config_roots",
    "container_of",
    "hydra_ready",
    "load",
    "node_of",
    "own_overrides",
    "register",
    "save",
]

DATA_OF_MODELS = "dapo_math_17k"  # for a model option that brings no data of its own
LONGEST_JOB_FOLDER = 100  # characters; file systems allow 255


def compose(command: str, overrides: list[str]) -> Any:
    """The command's configuration as its dataclass (see `COMMANDS`); ConfigError lists what was mistyped."""
    from dgpo_cli.config.finish import finish
    from dgpo_cli.config.overrides import prepare

    request, problems = prepare(command, overrides)
    if problems:
        raise ConfigError("", problems=tuple(problems))
    with hydra_ready(request):
        request, config = complete(request)
        return finish(request.command, config, request.overrides)


def register(config_dirs: list[Path]) -> None:
    """Tell Hydra the schemas, the resolver of conf/, and each model option as an option of `reference`."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    for name, schema in COMMANDS.items():
        store.store(name=f"{name}_schema", node=schema)
    own = catalogue.option_files("reference", config_dirs)
    for name, file in catalogue.option_files("model", config_dirs).items():
        values = catalogue.flat_yaml(file)
        path = values.get("model.path", values.get("path"))
        if path and name not in own:
            revision = values.get("model.revision", values.get("revision"))
            store.store(group="reference", name=name, node={"name": "path", "path": path, "revision": revision})
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def job_folder(number: int, overrides: str) -> str:
    """The folder of a sweep's job: `0_algo-grpo_seed-0`, of letters, digits, dot, dash and underscore only."""
    name = overrides.replace("=", "-").replace(",", "_")
    name = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._-]", "-", name))
    if len(name) > LONGEST_JOB_FOLDER:
        name = f"{name[: LONGEST_JOB_FOLDER - 9]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"
    return f"{number}_{name}".rstrip("_")


def own_overrides(request: Request) -> list[str]:
    """What the program adds: where recipes/ stands, the job's name, and which overrides name the jobs of a sweep."""
    from dgpo_cli.config.overrides import parse

    theirs = [text for text in request.overrides if text.startswith("hydra.searchpath=")]
    paths = [str(path) for text in theirs for path in parse(text).value()]  # type: ignore[union-attr]
    paths.append(f"file://{config_roots()[1]}")
    added = [f"hydra.searchpath=[{','.join(quoted(path) for path in paths)}]"]
    if not any(text.startswith("hydra.job.name=") for text in request.overrides):
        added.append(f"hydra.job.name={request.command}")
    excluded = "hydra.job.config.override_dirname.exclude_keys"
    if request.multirun and not any(text.startswith(f"{excluded}=") for text in request.overrides):
        same = {override.key_or_group for override in map(parse, request.overrides) if not override.is_sweep_override()}
        added.append(f"{excluded}=[{','.join(map(quoted, sorted(same)))}]")
    if request.benchmarks:
        added.append(f"+hydra.job.env_set.DGPO_BENCHMARKS={quoted(json.dumps(request.benchmarks))}")
    return added


@contextmanager
def hydra_ready(request: Request) -> Iterator[None]:
    """Hydra's compose API over conf/ and the folders of --config-dir; also within a job that Hydra's `main` runs."""
    from hydra import initialize_config_dir
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    register(request.config_dirs)
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(config_roots()[0]), job_name=request.command, version_base="1.3"):
            search_path = GlobalHydra.instance().config_loader().get_search_path()
            for folder in request.config_dirs:
                search_path.prepend("command-line", f"file://{folder}", anchor=SearchPathQuery(provider="schema"))
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def composed(request: Request, job: list[str] | None = None) -> DictConfig:
    """Hydra's composition with its `hydra` node, for the request's overrides or those of one job of its sweep."""
    from hydra import compose as hydra_compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    overrides = request.overrides if job is None else job
    overrides = [text for text in overrides if not text.startswith("hydra.searchpath=")]
    try:
        return hydra_compose(request.command, [*overrides, *own_overrides(request)], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # ValueError: a group of one's own is null
        raise config_error(error, request.command) from error


def complete(request: Request) -> tuple[Request, DictConfig]:
    """The request as Hydra accepts it, composed: `+` before groups that no default brings, data where none are."""
    overrides = list(request.overrides)
    while True:
        trial = replace(request, overrides=overrides)
        try:
            config = composed(trial, first_job(trial) if request.multirun else None)
        except ConfigError as error:
            group = re.search(r"Could not override '(\w+)'.*\n?.*No match in the defaults list", str(error.__cause__))
            at = [i for i, text in enumerate(overrides) if group and text.startswith(f"{group[1]}=")]
            if not at:
                raise
            if _brings_no_data(trial):
                overrides.append(f"+data={DATA_OF_MODELS}")
            else:
                overrides[at[0]] = f"+{overrides[at[0]]}"
            continue
        if _lacks_data(config, request.command):
            overrides.append(f"+data={DATA_OF_MODELS}")
        else:
            return trial, config


def _lacks_data(config: DictConfig, command: str) -> bool:
    return "data" in catalogue.groups(command) and "data" not in config.hydra.runtime.choices


def _brings_no_data(request: Request) -> bool:
    """True when the model option alone leaves data open, and none is typed."""
    typed = [text for text in request.overrides if text.lstrip("+").partition("=")[0] in ("model", "data")]
    trial = replace(request, overrides=typed)
    return _lacks_data(composed(trial, first_job(trial)), request.command)


def first_job(request: Request) -> list[str]:
    """The overrides of a sweep's first job, as far as its sweeper's values are listed."""
    from dgpo_cli.config.overrides import parse

    first = []
    for text in request.overrides:
        override = parse(text)
        if override.is_sweep_override() and (override.is_choice_sweep() or override.is_range_sweep()):
            first.append(f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}")
        elif not override.is_sweep_override():
            first.append(text)
    return first


def config_error(error: Exception, command: str) -> ConfigError:
    """Hydra's complaint in a user's words. What was typed is checked before: what is left stands in files, mostly."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines() if line.strip()]
    text = "\n".join(lines)
    in_file = re.match(r"In '(.*)': \w+ raised while composing config:", text)
    place = f"{in_file[1]}.yaml: " if in_file else ""
    named = re.search(r"^full_key: (\S+)", text, re.MULTILINE)
    path = named[1] if named else ""
    key = catalogue.keys(command).get(path)
    if path and re.search(r"^Key '.*' (is )?not in", text, re.MULTILINE):
        close = catalogue.nearest_key(path, command)
        listing = (
            f"dgpo {command} --cfg hydra lists Hydra's keys" if path.startswith("hydra.") else f"dgpo {command} -h"
        )
        return ConfigError(f"{place}unknown key '{path}'", f"did you mean {close}?" if close else listing)
    if key is not None:
        given = re.search(r"^(?:Value|Invalid value) ('.*?')", text, re.MULTILINE)
        got = f", got {given[1]}" if given else ""
        return ConfigError(f"{place}{path}: expected {catalogue.describe_type(key.type)}{got}", f"dgpo help {path}")
    lines = lines[1:] if in_file and len(lines) > 1 else lines
    return ConfigError(place + lines[0], _hint(lines, command))


def _hint(lines: list[str], command: str) -> str:
    if "does not support sweep type" in lines[0]:
        return f"list the values: dgpo {command} -m seed=0,1,2; or choose a sweeper that can: hydra/sweeper=NAME"
    twice = re.match(r"Multiple values for (\w+)", lines[0])
    if twice:
        return f"let each option of your own bring it, in its defaults list: - /{twice[1]}: OPTION"
    start = next((i for i, line in enumerate(lines) if line.startswith("Available options")), None)
    end = next((i for i, line in enumerate(lines) if line.startswith("Config search path")), None)
    if start is not None:
        return f"options: {', '.join(lines[start + 1 : end])}"
    return f"dgpo {command} --info defaults-tree shows what brings what"


def save(config: Any, file: Path) -> None:
    """Write a typed configuration as the run's config.yaml: whole or not at all, for a run without it cannot go on."""
    from omegaconf import OmegaConf

    write_atomically(file, OmegaConf.to_yaml(node_of(config)))


def node_of(config: Any) -> DictConfig:
    """A typed configuration as OmegaConf's: what looks like an interpolation in it, such as a path, stays text."""
    from omegaconf import OmegaConf

    node = OmegaConf.structured(_escaped(config))
    assert OmegaConf.is_dict(node)
    return node  # type: ignore[no-any-return]


def container_of(config: Any) -> dict[str, Any]:
    """As `node_of`, as plain values that can be written to a file and merged into the schema again."""
    from omegaconf import OmegaConf

    plain = OmegaConf.to_container(node_of(config), resolve=False, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def _escaped(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = dataclasses.fields(value)
        return replace(value, **{field.name: _escaped(getattr(value, field.name)) for field in fields})
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escaped(value) if isinstance(value, str) else value


def load(command: str, file: Path) -> Any:
    """The typed configuration that `save` wrote; keys that it lacks take their defaults."""
    from omegaconf import OmegaConf

    return OmegaConf.to_object(load_node(command, file))


def load_node(command: str, file: Path) -> DictConfig:
    """As `load`, before it becomes the dataclass."""
    import yaml
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        stored = OmegaConf.load(file)
        merged = OmegaConf.merge(OmegaConf.structured(COMMANDS[command]), stored)
    except FileNotFoundError:
        raise ConfigError(f"{file}: there is no such file", "a run's folder holds config.yaml") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read: {str(error).splitlines()[0]}", "is this a run's folder?") from error
    except (OmegaConfBaseException, ValueError) as error:
        message = f"{file}: not a configuration of dgpo {command}: {str(error).splitlines()[0]}"
        raise ConfigError(message, "is this a run's folder?") from error
    assert isinstance(merged, DictConfig)
    return merged
