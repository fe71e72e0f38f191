"""The part of the program that Hydra's `main` owns: run folders, `-m`, launchers, sweepers, `--cfg`, `--info`.

Hydra owns no errors here: everything is composed and checked before it starts, and the job turns its own errors into an
exit code. `job` stands at module level, so that launchers can send it to other processes by name.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dgpo_cli import jobs
from dgpo_cli.command_lines import quoted
from dgpo_cli.config.benchmarks import joined as benchmarks_joined
from dgpo_cli.config.benchmarks import with_benchmark
from dgpo_cli.config.checks import validate
from dgpo_cli.config.commands import COMMANDS
from dgpo_cli.config.compose import BASE, composed, hydra_ready, other_compositions, own_overrides, register
from dgpo_cli.config.finish import finish
from dgpo_cli.config.keys import config_roots
from dgpo_cli.config.overrides import Request
from dgpo_cli.config.stored import container_of
from dgpo_cli.errors import ConfigError
from dgpo_cli.files import shown_path
from dgpo_cli.terminal import say

register([])  # a launcher's worker imports this module with `job` and resolves the job's folder


@dataclass
class State:
    """What passes between the program and its job in one process: Hydra's `main` hands nothing through."""

    exit_code: int = 0
    argv: list[str] = field(default_factory=list)
    sweep: jobs.Sweep = field(default_factory=jobs.Sweep)


STATE = State()


def run_hydra(request: Request, flags: list[str], folder: Path | None) -> int:
    """Hand over to Hydra's `main`, with the folder that was claimed for the run or sweep; the exit code."""
    place = "hydra.sweep.dir" if request.multirun else "hydra.run.dir"
    dropped = ("hydra.searchpath=", f"{place}=") if folder else ("hydra.searchpath=",)
    overrides = [text for text in request.overrides if not text.startswith(dropped)]
    overrides += own_overrides(request)
    if folder:
        overrides.append(f"{place}={quoted(str(folder))}")
    argv, sys.argv = sys.argv, ["dgpo", *flags, *overrides]
    STATE.exit_code, STATE.argv = 0, ["dgpo", request.command, *request.typed]
    try:
        hydra.main(config_path=str(config_roots()[0]), config_name=request.command, version_base="1.3")(job)()
    except SystemExit as end:  # Hydra's own way to end, after its own message
        return end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = argv
    return STATE.exit_code


def run_sweep(request: Request, flags: list[str], folder: Path, count: int | None = None) -> int:
    """As `run_hydra`, for `-m`: signals go to the running job, and a table of the jobs ends it.

    count: of the jobs, if it is known before.
    """
    codes = []
    STATE.sweep = jobs.Sweep(count)
    with jobs.passing_signals_on(STATE.sweep):
        code = jobs.guarded(lambda: codes.append(run_hydra(request, flags, folder)))
    reported = jobs.guarded(lambda: jobs.report_sweep(folder))
    return code or codes[0] or reported


def job(config: DictConfig) -> float | None:
    """Hydra's task function. In a sweep it returns the accuracy reached, for sweepers that optimise."""
    hydra_config = HydraConfig.get()
    # Hydra writes down plain text, in which `${x}` is no interpolation: nothing of it is resolved.
    runtime = OmegaConf.to_container(hydra_config.runtime, resolve=False)
    task = OmegaConf.to_container(hydra_config.overrides.task, resolve=False)
    assert isinstance(runtime, dict)
    assert isinstance(task, list)
    folder = Path(runtime["output_dir"])
    command = next(name for name, schema in COMMANDS.items() if OmegaConf.get_type(config) is schema)
    benchmarks = json.loads(hydra_config.job.env_set.get("DGPO_BENCHMARKS", "[]"))
    dirs = [Path(source["path"]) for source in runtime["config_sources"] if source["provider"] == "command-line"]
    request = Request(command, [str(text) for text in task], benchmarks, dirs)
    base = hydra_config.job.env_set.get(BASE)
    request.base = Path(base) if base else None
    if hydra_config.mode == RunMode.MULTIRUN:
        return _run_in_sweep(config, request, folder, int(hydra_config.job.num))
    sys.argv = STATE.argv  # what was typed, for the run's records
    STATE.exit_code = jobs.guarded(lambda: jobs.run_here(command, typed_configs(config, request), folder))
    return None


def typed_configs(config: DictConfig, request: Request) -> list[Any]:
    """The typed configurations of a job: one, or one a benchmark of `dgpo eval benchmark=[a,b]`."""
    if len(request.benchmarks) < 2:
        return [finish(request.command, config, request.overrides, request.base)]
    if request.command == "train":
        with hydra_ready(request):
            compositions = other_compositions(request, request.overrides)
            return [finish(request.command, config, request.overrides, request.base, compositions)]
    first = finish(request.command, config, request.overrides, request.base)
    with hydra_ready(request):
        others = [with_benchmark(request.overrides, own) for own in request.benchmarks[1:]]
        return [first, *(finish(request.command, composed(request, other), other, request.base) for other in others)]


def _run_in_sweep(config: DictConfig, request: Request, folder: Path, number: int) -> float | None:
    """Write the job's file, run it in a process of its own and note its exit code. A failed job stops no other."""
    content: dict[str, Any] = {"number": number, "command": request.command}
    files = [str(request.base)] if request.base else []
    content["overrides"] = files + benchmarks_joined(request.overrides, request.benchmarks)
    content["exit_code"] = None
    say(f"{STATE.sweep.place_of(number)}: {' '.join(content['overrides'])} -> {shown_path(folder)}")
    started = time.monotonic()

    def prepare_job() -> None:
        configs = typed_configs(config, request)
        problems = [problem for item in configs for problem in validate(item, request.command)]
        if problems:
            raise ConfigError("", problems=tuple(problems))
        for item in configs:
            _name_job(item, folder)
        content["configs"] = [container_of(item) for item in configs]
        jobs.write_job(folder, content)

    content["exit_code"] = jobs.guarded(prepare_job) or None
    try:
        if content["exit_code"] is None:
            content["exit_code"] = jobs.run_in_child(request.command, folder, STATE.sweep)
    finally:
        jobs.write_job(folder, content)
        STATE.sweep.seconds.append(time.monotonic() - started)
    return jobs.accuracy(folder) if content["exit_code"] == 0 else None


def _name_job(config: Any, folder: Path) -> None:
    """The jobs of a sweep share a group in W&B, and each has a name of its own."""
    if hasattr(config, "logger") and config.logger.group is None:
        config.logger.group = folder.parent.name
    if getattr(config, "name", None):
        config.name = f"{config.name}-{folder.name}"
