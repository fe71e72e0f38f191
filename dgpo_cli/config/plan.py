"""Everything that is wrong with a command line, found before anything starts; and the folder that the run will use."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from dgpo_cli.command_lines import command
from dgpo_cli.config.benchmarks import with_benchmark
from dgpo_cli.config.checks import validate
from dgpo_cli.config.choices import against_each_other
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.compose import complete, composed, first_job, hydra_ready, other_compositions
from dgpo_cli.config.finish import finish, finish_each
from dgpo_cli.config.hydra_errors import config_error
from dgpo_cli.config.overrides import Request, parse
from dgpo_cli.environment import is_follower
from dgpo_cli.errors import ConfigError, Problem, UsageError

RUN_FILES = ("config.yaml", "run.json")  # in each folder of a training run


@dataclass(frozen=True)
class PlannedJob:
    """One job: its overrides, its typed configurations (several for benchmarks of dgpo eval), their composition."""

    overrides: list[str]
    configs: list[Any]
    composition: DictConfig


@dataclass(frozen=True)
class Plan:
    """A request that Hydra accepts, its composition (a sweep's first job) and its jobs.

    listed: how many a sweep has, if its sweeper lists them before; another one's first job alone is planned.
    """

    request: Request
    composition: DictConfig
    jobs: list[PlannedJob]
    listed: int | None = None
    notes: tuple[str, ...] = ()  # no errors, but should be said

    @property
    def configs(self) -> list[Any]:
        """The typed configurations of all jobs."""
        return [config for job in self.jobs for config in job.configs]


def plan(request: Request, problems: list[Problem], check: bool = True) -> Plan:
    """Compose and check every job; raises one ConfigError with all problems, those of the overrides included."""
    problems = list(problems)
    try:
        request, composition = complete(request)
        jobs = _jobs(request, composition)
    except ConfigError as error:
        raise ConfigError("", problems=(*problems, *error.problems)) from error
    planned: list[PlannedJob] = []
    views: list[Any] = []  # of the configurations, one for each benchmark
    typed: list[dict[str, Any]] = []
    for number, job in enumerate(jobs):
        label = f"job {number} ({' '.join(_task(job))}): " if len(jobs) > 1 else ""
        variants = _benchmark_variants(job, request)
        configs: list[Any] = []
        nodes: list[DictConfig] = []
        for variant in variants[:1] if request.command == "train" else variants:
            found: list[Problem] = []
            try:
                node = composition if variant == request.overrides else composed(request, variant)
                nodes.append(node)
                others = other_compositions(request, job)
                made = _finished(request, node, _task(variant), others)
                configs += made
                seen = [view for config in made for view in _views(config)]
                for view, keys in zip(seen, variants if others else repeat(variant), strict=False):
                    views.append(view)
                    typed.append(_typed(keys))
                found = [p for config in made for p in validate(config, request.command)] if check else []
            except ConfigError as error:
                found = list(error.problems)
            for problem in found:
                if not _follows(problem, request) and not any(problem.message in other.message for other in problems):
                    problems.append(replace(problem, message=label + problem.message))
        planned.append(PlannedJob(job, configs, nodes[0] if nodes else composition))
    wrong, notes = against_each_other(request.command, views, typed) if check else ([], [])
    wrong += _without_a_sweep(request) if check else []
    notes = [*notes, *_of_runs(request, planned)]
    problems += [problem for problem in wrong if not _is_said(problem, problems)]
    if problems:
        raise ConfigError("", problems=tuple(problems))
    listed = len(jobs) if _lists_jobs(composition) else None
    return Plan(request, composition, planned, listed, tuple(notes))


def _of_runs(request: Request, planned: list[PlannedJob]) -> list[str]:
    """What is said of runs that are evaluated on several benchmarks, if none was typed."""
    several = [job.configs for job in planned if len(job.configs) > 1 and not request.benchmarks]
    names = dict.fromkeys(str(config.benchmark.name) for configs in several for config in configs)
    return [f"evaluating on each benchmark of the run: {', '.join(names)}"] if names else []


def job_configs(request: Request, overrides: list[str]) -> list[Any]:
    """The typed configurations of one more job of a sweep, whose own overrides these are.

    Raises:
        ConfigError: they cannot be composed.
    """
    others = [text for text in request.overrides if text.lstrip("+").startswith(("hydra.", "hydra/"))]
    job = [*others, *overrides]
    found: list[Any] = []
    with hydra_ready(request):
        variants = _benchmark_variants(job, request)
        for variant in variants[:1] if request.command == "train" else variants:
            node, further = composed(request, variant), other_compositions(request, job)
            found += _finished(request, node, _task(variant), further)
    return found


def _without_a_sweep(request: Request) -> list[Problem]:
    """Keys of `sweep.*` that say how jobs are run, and there is one."""
    typed = [] if request.multirun else [text for text in request.overrides if text.startswith("sweep.")]
    hint = f"dgpo {request.command} -m seed=0,1 runs two jobs"
    return [Problem(f"{text} changes nothing: without -m there is one job", hint) for text in typed]


def folder_name(job: PlannedJob, number: int, command: str) -> str:
    """The folder of a sweep's job below the sweep's."""
    node = job.composition.copy()
    with open_dict(node):
        node.hydra.job.num = number
    return _resolved(node, "hydra.sweep.subdir", command)


def _finished(request: Request, node: DictConfig, overrides: list[str], others: list[DictConfig]) -> list[Any]:
    if others:
        return [finish(request.command, node, overrides, request.base, others)]
    return finish_each(request.command, node, overrides, request.base)


def _views(config: Any) -> list[Any]:
    return config.for_each_benchmark() if isinstance(config, TrainConfig) else [config]


def _typed(overrides: list[str]) -> dict[str, Any]:
    parsed = [parse(text) for text in _task(overrides)]
    return {override.key_or_group: override.value() for override in parsed if not override.is_delete()}


def _is_said(problem: Problem, others: list[Problem]) -> bool:
    """Whether another problem speaks of the same key."""
    key = problem.message.partition("=")[0]
    return any(re.search(rf"(^|: ){re.escape(key)}\b", other.message) for other in others)


def _task(overrides: list[str]) -> list[str]:
    return [text for text in overrides if not parse(text).is_hydra_override()]


def _jobs(request: Request, composition: DictConfig) -> list[list[str]]:
    """The overrides of each job: one, all of Hydra's basic sweeper, or the first of another sweeper."""
    if not request.multirun:
        return [request.overrides]
    if not _lists_jobs(composition):
        return [first_job(request)]
    task = _task(request.overrides)
    others = [text for text in request.overrides if text not in task]
    params = [f"{name}={value}" for name, value in (composition.hydra.sweeper.get("params") or {}).items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    try:
        batches = BasicSweeper.split_arguments(parser.parse_overrides([*params, *task]), None)
    except HydraException as error:
        raise config_error(error, request.command) from error
    return [[*others, *job] for job in batches[0]]


def _lists_jobs(composition: DictConfig) -> bool:
    return str(composition.hydra.sweeper.get("_target_", "")).endswith(".BasicSweeper")


def _benchmark_variants(job: list[str], request: Request) -> list[list[str]]:
    return [with_benchmark(job, own) for own in request.benchmarks] or [job]


def _follows(problem: Problem, request: Request) -> bool:
    """True for a problem that an override left out as wrong may have caused."""
    return any(problem.message.startswith((f"{name}.", f"{name}:", f"{name}=")) for name in request.refused)


def claim_folder(planned: Plan, continued: Path | None = None) -> tuple[Path, Callable[[], None]]:
    """Make the run's or sweep's folder, and return it with a function that removes it again if it stayed empty.

    continued: that of a sweep which goes on.

    Raises UsageError if it cannot be written or holds a training run. Folders named by the time alone never collide.
    """
    if is_follower():  # the main process has the folder, and says later which it is
        scratch = Path(tempfile.mkdtemp(prefix="dgpo_"))
        return scratch, lambda: shutil.rmtree(scratch, ignore_errors=True)
    if continued is not None:
        return continued, lambda: None
    request, config = planned.request, planned.configs[0]
    place = "hydra.sweep.dir" if request.multirun else "hydra.run.dir"
    resume = getattr(config, "resume", None)
    typed = any(text.startswith(f"{place}=") for text in request.overrides)
    folder = Path(_resolved(planned.composition, place, request.command))
    named = bool(getattr(config, "name", None)) and not typed
    typed = typed or (named and config.overwrite)  # it is meant as it stands
    if resume:
        if request.multirun:
            raise UsageError("resume= continues one run, -m starts several", "leave out -m")
        if typed and folder.resolve() != Path(resume).resolve():
            raise UsageError(
                f"{place}={folder}: the run is continued in its own folder '{resume}'", f"leave out {place}"
            )
        folder = Path(resume)
    _refuse_unfinished(folder, place)
    if request.command == "train" and not resume and not config.overwrite and not named:
        _refuse_a_run(folder, request.multirun)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    candidate, number = folder, 1
    try:
        while True:
            try:
                candidate.mkdir(parents=True)
                break
            except FileExistsError:
                if (typed or resume) and candidate.is_dir():
                    break
                if not candidate.is_dir():
                    raise NotADirectoryError(f"'{candidate}' is a file") from None
                number += 1
                candidate = folder.with_name(f"{folder.name}_{number}")
        probe = candidate / ".dgpo_write_test"
        probe.touch()
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        hint = f"choose a folder that can be written: {place}=FOLDER"
        raise UsageError(f"cannot write the run's folder '{candidate}': {reason}", hint) from error
    return candidate, lambda: _remove_empty(candidate, existing)


def _resolved(composition: DictConfig, place: str, command: str) -> str:
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(composition)
    try:
        return str(OmegaConf.select(composition, place))
    except OmegaConfBaseException as error:
        raise config_error(error, command) from error
    finally:
        HydraConfig.instance().cfg = before


def _refuse_unfinished(folder: Path, place: str) -> None:
    """Hydra notes the folder in its own configuration, and cannot read `${` there without its end."""
    try:
        OmegaConf.create({"folder": str(folder)})
    except OmegaConfBaseException:
        message = f"{place}: expected the name of a folder, got '{folder}': '${{' has no end"
        raise UsageError(message, "another name, without '${'") from None


def _refuse_a_run(folder: Path, multirun: bool) -> None:
    if _holds_training(folder) and not multirun:
        hint = (
            f"{command('train', resume=folder)} continues it; hydra.run.dir=FOLDER takes another folder; "
            "overwrite=true deletes that run, its checkpoints and evaluations included"
        )
        raise UsageError(f"'{folder}' already holds a run", hint)
    if any((folder / name).exists() for name in RUN_FILES):
        place = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        held = "a run" if _holds_training(folder) else "the config.yaml of another command"
        raise UsageError(f"'{folder}' already holds {held}", f"{place}=FOLDER takes another folder")
    if multirun and any(folder.glob("*/job.yaml")):
        hint = (
            "hydra.sweep.dir=FOLDER takes another folder; overwrite=true deletes the runs in the folders of this "
            "sweep's jobs, their checkpoints and evaluations included"
        )
        raise UsageError(f"'{folder}' already holds a sweep", hint)


def _holds_training(folder: Path) -> bool:
    """Whether the folder is that of `dgpo train`; `dgpo rollout` leaves a config.yaml too, without a section optim."""
    config = folder / "config.yaml"
    content = config.read_bytes() if config.is_file() else b""
    is_anothers = bool(content) and b"\noptim:" not in content
    return (config.exists() and not is_anothers) or (folder / "run.json").exists()


def _remove_empty(folder: Path, stop: Path) -> None:
    """Remove the folder, and the parents that were made for it, as far as they are empty."""
    for path in (folder.absolute(), *folder.absolute().parents):
        if path == stop.absolute() or not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()
