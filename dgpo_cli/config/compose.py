"""Compose a command's configuration with Hydra: options of conf/ and recipes/, overrides, and the typed schema.

`compose` is the whole way from overrides to the dataclass. The program takes it in parts, since Hydra's own `main`
composes once more for the run. Hydra is imported inside the functions: importing this module stays cheap.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgpo_cli.command_lines import quoted
from dgpo_cli.config import keys as catalogue
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.hydra_errors import config_error
from dgpo_cli.config.keys import config_roots
from dgpo_cli.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dgpo_cli.config.overrides import Request

DATA_OF_MODELS = "dapo_math_17k"  # for a model option that brings no data of its own
BASE = "DGPO_BASE"  # how a job learns of a whole configuration that it changes
LONGEST_JOB_FOLDER = 100  # characters; file systems allow 255


def compose(command: str, overrides: list[str]) -> Any:
    """The command's configuration as its dataclass (see `COMMANDS`); ConfigError lists every mistake."""
    from dgpo_cli.config.finish import finish
    from dgpo_cli.config.overrides import prepare

    request, problems = prepare(command, overrides)
    if problems:
        raise ConfigError("", problems=tuple(problems))
    with hydra_ready(request):
        request, config = complete(request)
        others = other_compositions(request, request.overrides)
        return finish(request.command, config, request.overrides, others=others)


def register(config_dirs: list[Path], commands: Iterable[str] = COMMANDS) -> None:
    """Tell Hydra the commands' schemas, the resolver of conf/, and each model option as an option of `reference`."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    for name in commands:
        if f"{name}_schema.yaml" not in store.repo:  # they never change, and each takes a while
            store.store(name=f"{name}_schema", node=COMMANDS[name])
    own = catalogue.option_files("reference", config_dirs)
    for name, file in catalogue.option_files("model", config_dirs).items():
        values = catalogue.flat_yaml(file)
        path = values.get("model.path", values.get("path"))
        if path and name not in own:
            revision = values.get("model.revision", values.get("revision"))
            store.store(group="reference", name=name, node={"name": "path", "path": path, "revision": revision})
    store.repo.pop(catalogue.RECIPES, None)  # of another call, with other folders
    known = catalogue.option_files(catalogue.RECIPES, config_dirs)
    for name, file in catalogue.recipe_files(config_dirs).items():
        if known[name] != file:
            continue  # one in recipes/ has its name
        folder, _, option = f"{catalogue.RECIPES}/{name}".rpartition("/")
        store.store(group=folder, name=option, node=OmegaConf.load(file), package="_global_")
    OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)
    OmegaConf.register_new_resolver("run_folder", run_folder, replace=True)


def run_folder(name: str | None, otherwise: str) -> str:
    """The folder of a named run, of letters, digits, dot, dash and underscore only; else the time of its start."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", str(name or "")).strip("-.")
    return plain[:LONGEST_JOB_FOLDER] or otherwise


def job_folder(number: int, overrides: str) -> str:
    """The folder of a sweep's job: `0_algo-grpo_seed-0`, of letters, digits, dot, dash and underscore only."""
    name = overrides.replace("=", "-").replace(",", "_")
    name = re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._-]", "-", name))
    if len(name) > LONGEST_JOB_FOLDER:
        name = f"{name[: LONGEST_JOB_FOLDER - 9]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"
    return f"{number}_{name}".rstrip("_")


def own_overrides(request: Request) -> list[str]:
    """The program's own additions: the place of recipes/, the job's name, and which overrides name a sweep's jobs."""
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
    if request.base is not None:
        added.append(f"+hydra.job.env_set.{BASE}={quoted(str(request.base))}")
    return added


@contextmanager
def hydra_ready(request: Request) -> Iterator[None]:
    """Hydra's compose API over conf/ and the folders of --config-dir; also within a job that Hydra's `main` runs."""
    from hydra import initialize_config_dir
    from hydra.core.config_search_path import SearchPathQuery
    from hydra.core.global_hydra import GlobalHydra

    register(request.config_dirs, [request.command])
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


def other_compositions(request: Request, job: list[str]) -> list[DictConfig]:
    """Those of a training job's further benchmarks (`benchmark=[a,b]`), which are one run's; none for one."""
    from dgpo_cli.config.benchmarks import with_benchmark

    own = request.benchmarks[1:] if request.command == "train" else []
    return [composed(request, with_benchmark(job, overrides)) for overrides in own]


def complete(request: Request) -> tuple[Request, DictConfig]:
    """The request as Hydra accepts it, composed: `+` before groups that no default brings, data if there are none."""
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
