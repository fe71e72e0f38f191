"""A sweep from its plan to its verdict: which jobs there are, running them, the table at the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from dgpo_cli.command_lines import command as command_line
from dgpo_cli.command_lines import shell_word
from dgpo_cli.config.benchmarks import joined as benchmarks_joined
from dgpo_cli.config.checks import validate
from dgpo_cli.config.plan import Plan, PlannedJob, folder_name, job_configs
from dgpo_cli.config.sweep_groups import StopWhen, says_how
from dgpo_cli.errors import ConfigError, RunError, UsageError
from dgpo_cli.files import shown_path
from dgpo_cli.jobs import JOB_FILE, accuracy, guarded, read_job
from dgpo_cli.reporting.sweep_view import figure, final_lines, what_differs
from dgpo_cli.sweeps.children import LOG
from dgpo_cli.sweeps.growth import Growth
from dgpo_cli.sweeps.interruption import Interruption
from dgpo_cli.sweeps.scheduler import Scheduler
from dgpo_cli.sweeps.search import TARGET, Search, Settings, best_text, space_of
from dgpo_cli.sweeps.slots import slots_for
from dgpo_cli.sweeps.slurm_script import LAUNCHER as SLURM
from dgpo_cli.sweeps.slurm_script import slurm_script
from dgpo_cli.sweeps.sources import Source
from dgpo_cli.sweeps.sweep_record import DONE, FAILED, PRUNED, WAITING, Job, SweepRecord
from dgpo_cli.terminal import put, say, say_block
from dgpo_cli.training.lock import locked


def is_ours(planned: Plan) -> bool:
    """Whether dgpo runs the jobs itself: with Hydra's own launcher and sweeper, and nothing that hooks into them."""
    hydra = planned.composition.hydra
    names = [str(hydra[name].get("_target_", "")).rpartition(".")[2] for name in ("launcher", "sweeper")]
    plain = names[0] == "BasicLauncher" and names[1] in ("BasicSweeper", "Search")
    return plain and not hydra.get("callbacks") and not hydra.job.chdir


def say_script(planned: Plan) -> None:
    """What Slurm would be given, on stderr, if Slurm is to run the jobs."""
    hydra = planned.composition.hydra
    if hydra.launcher.get("_target_") == SLURM:
        say("sbatch would be given this script:")
        say_block(slurm_script(hydra.launcher, Path(hydra.sweep.dir).absolute(), len(planned.jobs)))


def prepare_launcher(planned: Plan) -> None:
    """Ray kills what a worker has started as soon as it ends; a job sees that by itself, saves and ends."""
    if planned.composition.hydra.launcher.get("_target_", "").endswith(".RayLauncher"):
        os.environ.setdefault("RAY_kill_child_processes_on_worker_exit", "false")


def refuse_what_is_ours(planned: Plan) -> None:
    """Raises UsageError for keys of `sweep.*` that another launcher or sweeper does not know."""
    for text in planned.request.overrides:
        if text.startswith("sweep.") and not text.startswith("sweep.compare="):
            hint = "its own keys: hydra.launcher.* and hydra.sweeper.*"
            raise UsageError(
                f"{text} changes nothing: another launcher or sweeper than Hydra's own runs the jobs", hint
            )


def run_sweep(planned: Plan, folder: Path, record: SweepRecord) -> int:
    """Run the planned jobs that `record` does not know as done; the exit code."""
    interruption = Interruption()
    begun = False

    def action() -> None:
        nonlocal begun
        with locked(folder):
            scheduler = _scheduler(planned, folder, record, interruption)
            begun = True  # what is refused before this has run nothing, and has no table
            say(f"{_count(record)}, {scheduler.slots.count} at once ({scheduler.slots.why})")
            scheduler.run()

    with interruption.listening():
        code = guarded(action)
    concluded = conclude(folder, planned, record.jobs) if begun else 0
    return code or concluded


def conclude(folder: Path, planned: Plan, jobs: Sequence[Job]) -> int:
    """The table of the jobs, and the verdicts if they are asked for; the exit code."""
    reported = guarded(lambda: report(folder, planned.request.command, jobs))
    if planned.composition.hydra.sweeper.get("_target_") == TARGET and (best := best_text(jobs)):
        say(best)
    wanted = planned.configs[0].sweep.compare and all(job.status in (DONE, FAILED, PRUNED) for job in jobs)
    return (guarded(lambda: _verdicts(folder)) if wanted else 0) or reported


def _verdicts(folder: Path) -> None:
    from dgpo_cli.sweeps.verdicts import say_verdicts  # statistics and plots, which no job needs

    say_verdicts(folder)


def _scheduler(planned: Plan, folder: Path, record: SweepRecord, interruption: Interruption) -> Scheduler:
    settings = planned.configs[0].sweep
    configs: dict[int, list[Any]] = {}
    environment: dict[int, dict[str, str]] = {}
    searches = planned.composition.hydra.sweeper.get("_target_") == TARGET
    for job in [] if searches else planned.jobs:
        overrides = own_overrides(planned, job.overrides)
        known = record.job_of(overrides)
        if known is None:
            number = max((one.number for one in record.jobs), default=-1) + 1
            known = Job(number, folder_name(job, number, record.command), overrides)
            record.jobs.append(known)
        configs[known.number], environment[known.number] = job.configs, _environment(job)
    # A job that has not begun may be asked for no more.
    record.jobs = [job for job in record.jobs if job.begun or job.number in configs]
    wanted = [config for job in planned.jobs for config in job.configs]
    slots = slots_for(settings, wanted * planned.composition.hydra.sweeper.n_trials if searches else wanted)
    steps = getattr(planned.configs[0], "steps", None)
    source: Source | None = None
    if searches:
        source = _search(planned, folder, record, configs)
    elif settings.stop_when is StopWhen.decided:
        source = Growth(record, configs, settings.max_seeds, slots.count)
    return Scheduler(record, folder, configs, slots, settings.retries, environment, steps, interruption, source=source)


def _search(planned: Plan, folder: Path, record: SweepRecord, configs: dict[int, list[Any]]) -> Search:
    request, sweeper = planned.request, planned.composition.hydra.sweeper
    settings = Settings(**{one.name: sweeper[one.name] for one in fields(Settings)})
    fixed, space = space_of([text for text in request.overrides if not says_how(text)])

    def compose(overrides: list[str]) -> list[Any]:
        config = job_configs(request, overrides)
        problems = [problem for one in config for problem in validate(one, request.command)]
        if problems:
            raise ConfigError("", problems=tuple(problems))
        return config

    return Search(record, folder, configs, settings, fixed, space, compose, say)


def _environment(job: PlannedJob) -> dict[str, str]:
    """hydra.job.env_set of a job, without what is dgpo's own there."""
    variables = OmegaConf.to_container(job.composition.hydra.job.env_set, resolve=True)
    assert isinstance(variables, dict)
    return {str(name): str(value) for name, value in variables.items() if not str(name).startswith("DGPO_")}


def own_overrides(planned: Plan, overrides: list[str]) -> list[str]:
    """What a job is typed as: without what is Hydra's, or says how the sweep is run."""
    request = planned.request
    kept = [text for text in overrides if not says_how(text)]
    files = [str(request.base)] if request.base else []
    return files + benchmarks_joined(kept, request.benchmarks)


def _count(record: SweepRecord) -> str:
    if not record.jobs:
        return "a search"
    done = sum(job.status == DONE for job in record.jobs)
    jobs = f"{len(record.jobs)} job{'s' * (len(record.jobs) != 1)}"
    return f"{jobs}, {done} of them done" if done else jobs


def jobs_of_files(folder: Path) -> list[Job]:
    """The jobs of a sweep that another launcher ran, by their files."""
    found = []
    for file in folder.glob(f"*/{JOB_FILE}"):
        content = read_job(file)
        code = content.get("exit_code")
        status = WAITING if code is None else FAILED if code else DONE
        score = accuracy(file.parent) if code == 0 else None
        found.append(Job(content["number"], file.parent.name, content["overrides"], True, status, code, accuracy=score))
    return sorted(found, key=lambda job: job.number)


def report(folder: Path, command: str, jobs: Sequence[Job]) -> None:
    """The table of a sweep's jobs on stderr and its folder on stdout.

    Raises:
        RunError: a job failed.
    """
    rows = [("job", "status", "exit", "accuracy", "overrides", "folder")]
    for job, differs in zip(jobs, what_differs([one.overrides for one in jobs]), strict=True):
        code = "-" if job.exit_code is None else str(job.exit_code)
        rows.append((str(job.number), job.status, code, figure(job.accuracy), differs, job.folder))
    for line in final_lines(rows):
        say(line)
    put(str(folder.absolute()))
    missing = [job for job in jobs if job.status not in (DONE, FAILED, PRUNED)]
    if missing:
        again = shell_word(f"resume={shown_path(folder)}")
        say(f"next: dgpo {command} -m {again} runs the {len(missing)} that are left")
    elif any((folder / job.folder / name).is_file() for job in jobs for name in ("config.yaml", "results.json")):
        say(f"next: {command_line('compare', runs=shown_path(folder))}")
    failed = [job for job in jobs if job.status == FAILED]
    if failed:
        numbers = ", ".join(str(job.number) for job in failed)
        hint = f"their errors stand above the table, and in {LOG} of their folders"
        raise RunError(f"{len(failed)} of {len(jobs)} jobs failed: {numbers}", hint)
