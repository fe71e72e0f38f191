"""The part of the program that Hydra's `main` owns: run folders, `-m`, launchers, sweepers, `--cfg`, `--info`.

Hydra owns no errors here: everything is composed and checked before it starts, and the job turns its own errors into an
exit code. `job` stands at module level, so that launchers can send it to other processes by name. A single job takes
one_job.py, if it has no callbacks of its own.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from dgpo_cli.config.finish import finish, finish_each
from dgpo_cli.config.keys import config_roots
from dgpo_cli.config.overrides import Request
from dgpo_cli.config.plan import Plan
from dgpo_cli.config.sweep_groups import says_how
from dgpo_cli.errors import ConfigError
from dgpo_cli.files import shown_path
from dgpo_cli.terminal import say

if TYPE_CHECKING:  # one job needs none of it
    from dgpo_cli.sweeps.interruption import Interruption
    from dgpo_cli.sweeps.sweep_record import SweepRecord

CONTINUED = "DGPO_CONTINUED"  # how a job of another launcher learns that its sweep goes on
register([])  # a launcher's worker imports this module with `job` and resolves the job's folder


@dataclass
class State:
    """What passes between the program and its job in one process: Hydra's `main` hands nothing through."""

    exit_code: int = 0
    argv: list[str] = field(default_factory=list)
    interruption: Interruption | None = None  # of a sweep in this process


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


def run_sweep(planned: Plan, flags: list[str], folder: Path, record: SweepRecord | None, overrides: list[str]) -> int:
    """Run a sweep that was asked for by `overrides`, or go on with that of `record`; the exit code.

    The jobs of Hydra's own launcher and sweeper are run here. Those of others are theirs; a table ends them too.
    """
    from dgpo_cli.sweeps import sweep_run
    from dgpo_cli.sweeps.interruption import Interruption
    from dgpo_cli.sweeps.sweep_record import SweepRecord

    request, continues = planned.request, record is not None
    if record is None:
        dirs = [str(one) for one in request.config_dirs]
        record = SweepRecord(request.command, overrides, str(request.base) if request.base else None, dirs)
    if sweep_run.is_ours(planned):
        return sweep_run.run_sweep(planned, folder, record)
    sweep_run.refuse_what_is_ours(planned)
    sweep_run.prepare_launcher(planned)
    record.save(folder)
    if continues:
        overrides = [*request.overrides, f"+hydra.job.env_set.{CONTINUED}=1"]
        request = replace(request, overrides=overrides)
    codes = []
    STATE.interruption = Interruption(raises=True)
    with STATE.interruption.listening():
        code = jobs.guarded(lambda: codes.append(run_hydra(request, flags, folder)))
    return code or codes[0] or sweep_run.conclude(folder, planned, sweep_run.jobs_of_files(folder))


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
    """The typed configurations of a job: one, or one a benchmark of `dgpo eval benchmark=[a,b]` or of a run."""
    if len(request.benchmarks) < 2:
        return finish_each(request.command, config, request.overrides, request.base)
    if request.command == "train":
        with hydra_ready(request):
            compositions = other_compositions(request, request.overrides)
            return [finish(request.command, config, request.overrides, request.base, compositions)]
    first = finish(request.command, config, request.overrides, request.base)
    with hydra_ready(request):
        others = [with_benchmark(request.overrides, own) for own in request.benchmarks[1:]]
        return [first, *(finish(request.command, composed(request, other), other, request.base) for other in others)]


def _run_in_sweep(config: DictConfig, request: Request, folder: Path, number: int) -> float | None:
    """The job in a process of its own, its exit code noted in its file. A failed job stops no other.

    If the sweep is continued, a job that is done stays as it is, and one that was cut off goes on in its folder.
    """
    from dgpo_cli.sweeps import job_files

    files = [str(request.base)] if request.base else []
    kept = [text for text in request.overrides if not says_how(text)]
    overrides = files + benchmarks_joined(kept, request.benchmarks)
    before = job_files.folder_of(folder.parent, overrides) if CONTINUED in os.environ else None
    if before is not None and job_files.has_ended_well(request.command, before):
        say(f"job {number + 1} is done: {shown_path(before)}")
        return jobs.accuracy(before)
    folder = before or folder
    say(f"job {number + 1}: {' '.join(overrides)} -> {shown_path(folder)}")

    def prepare_job() -> None:
        configs = job_files.next_configs(request.command, folder) if before else None
        if configs is None:
            configs = typed_configs(config, request)
            problems = [problem for item in configs for problem in validate(item, request.command)]
            if problems:
                raise ConfigError("", problems=tuple(problems))
            configs = job_files.first_configs(configs, folder)
        job_files.write(folder, number, request.command, overrides, configs)

    code = jobs.guarded(prepare_job)
    if code:
        jobs.write_job(folder, {"number": number, "command": request.command, "overrides": overrides})
    else:
        code = _wait_for(request.command, folder)
    job_files.note_exit(folder, code)
    return jobs.accuracy(folder) if code == 0 else None


def _wait_for(command: str, folder: Path) -> int:
    """Run the job whose file lies in `folder`; its exit code. A signal to the sweep ends it after the job."""
    from dgpo_cli.sweeps import job_files
    from dgpo_cli.sweeps.children import exit_code, last_words, log_size, start_job
    from dgpo_cli.sweeps.interruption import Interruption

    interruption, since = STATE.interruption or Interruption(), log_size(folder)
    with interruption.start(lambda: start_job(command, folder, {})) as child:
        code = exit_code(child.wait())
    interruption.children.remove(child)
    if code:
        for line in last_words(folder, since):
            say(line)
    if interruption.signal_number is not None:
        job_files.note_exit(folder, code)
        raise jobs.Stopped(interruption.signal_number)
    return code
