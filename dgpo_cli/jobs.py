"""Running one job of a command, here or in a process of its own, with its errors turned into lines and an exit code.

Training jobs of a sweep run in processes of their own: device memory and process groups would leak from job to job
otherwise. Such a process is given the composed configuration in the job's folder and never composes again.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from dgpo_cli.command_lines import command as command_line
from dgpo_cli.environment import end_with_parent, is_follower, place
from dgpo_cli.errors import DgpoError, Problem, RunError
from dgpo_cli.files import shown_path
from dgpo_cli.terminal import phase, put, say, say_block

JOB_FILE = "job.yaml"  # in a sweep job's folder: the command, what was typed, the configurations, the exit code
# Those that checkpoint.signals may name: a job that does not listen to one ends by it, as the sweep would have.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU)
BUG_HINT = "this is a bug in dgpo; HYDRA_FULL_ERROR=1 shows where it happened"


class Stopped(BaseException):
    """A signal ended a sweep between two jobs. Not an Exception, so that no launcher takes it for a failed job."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.exit_code = 128 + number


def report(problems: tuple[Problem, ...]) -> None:
    """One `error:` line a problem and its `hint:` line, on stderr."""
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    error, hint = ("\033[1;31merror:\033[0m", "\033[36mhint:\033[0m") if colour else ("error:", "hint:")
    here = place()
    if here is not None and here.rank and not here.own_worker:
        error = f"rank {here.rank}: {error}"  # a launcher mixes what its processes print
    for problem in problems:
        say(_one_line(problem.message), label=error)
        if problem.hint:
            say(_one_line(problem.hint), label=hint)


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines() if line.strip())


def guarded(action: Callable[[], None]) -> int:
    """The exit code of an action, its errors reported."""
    try:
        action()
        sys.stdout.flush()
    except DgpoError as error:
        _trace()
        report(error.problems)
        return error.exit_code
    except Stopped as stop:
        return stop.exit_code
    except KeyboardInterrupt:
        _trace()
        report((Problem("interrupted"),))
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `dgpo compare ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        _trace()
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        report((Problem(f"internal error: {text}", BUG_HINT),))
        return 1
    return 0


def _trace() -> None:
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        say_block(traceback.format_exc())


def run_here(command: str, configs: list[Any], folder: Path) -> None:
    """Call the command's module: `run(config, folder)`, and `run(configs, folder)` for eval."""
    with nullcontext() if is_follower() else phase("starting torch and transformers"):
        module = importlib.import_module(f"dgpo_cli.commands.{_module(command, configs[0])}")
    module.run(configs if command == "eval" else configs[0], folder)


def _module(command: str, config: Any) -> str:
    """The file in commands/ that runs a command with these settings."""
    if command == "rollout" and config.grade is not None:
        return "grading"
    if command == "eval" and config.study.name != "none":
        return str(config.study.name)
    return "swap_test" if command == "eval" and config.swap.path else command


def run_without_folder(command: str, configs: list[Any]) -> None:
    """`run_here` for what leaves nothing behind: its folder, of worker processes' logs, is dropped afterwards."""
    with tempfile.TemporaryDirectory(prefix="dgpo_") as folder:
        run_here(command, configs, Path(folder))


@dataclass
class Sweep:
    """The sweep that this process runs: which child is running, and the signal that ends it all."""

    jobs: int | None = None  # how many there are; None for a sweeper that decides as it goes
    seconds: list[float] = field(default_factory=list)  # of the jobs that have ended
    child: subprocess.Popen[bytes] | None = None
    signal_number: int | None = None

    def place_of(self, number: int) -> str:
        """`job 2 of 6, 1:40 left`: by the time that the jobs before took."""
        if self.jobs is None:
            return f"job {number + 1}"
        if not self.seconds:
            return f"job {number + 1} of {self.jobs}"
        minutes, rest = divmod(round(sum(self.seconds) / len(self.seconds) * (self.jobs - number)), 60)
        return f"job {number + 1} of {self.jobs}, {minutes}:{rest:02d} left"

    def on_signal(self, number: int, _frame: FrameType | None) -> None:
        self.signal_number = number
        if self.child is None:
            raise Stopped(number)
        if self.child.poll() is None:
            self.child.send_signal(number)


@contextmanager
def passing_signals_on(sweep: Sweep) -> Iterator[None]:
    """Signals go to the running job, which saves its state; the sweep ends when the job has ended."""
    heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]  # nohup's SIGHUP
    before = {number: signal.signal(number, sweep.on_signal) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_in_child(command: str, folder: Path, sweep: Sweep) -> int:
    """Run the job whose file lies in `folder` in a process of its own; its exit code.

    It gets a session of its own, so that a Ctrl-C at the terminal reaches it once, through `Sweep.on_signal`. What it
    prints on stdout is in its files too, and does not belong on the sweep's stdout.
    """
    line = [sys.executable, "-m", "dgpo_cli", "_job", command, str(folder / JOB_FILE), str(folder)]
    with subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True) as child:
        sweep.child = child
        try:
            code = child.wait()
        finally:
            sweep.child = None
    if sweep.signal_number is not None:
        raise Stopped(sweep.signal_number)
    return code if code >= 0 else 128 - code


def write_job(folder: Path, content: dict[str, Any]) -> None:
    """Write the job file whole or not at all."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{JOB_FILE}.partial"
    partial.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    partial.replace(folder / JOB_FILE)


def read_job(file: Path) -> dict[str, Any]:
    import yaml

    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def run_job_file(command: str, file: str, folder: str) -> None:
    """What a sweep's child or a run's worker does: the configurations of the job file, never composed again."""
    end_with_parent()
    from omegaconf import OmegaConf

    from dgpo_cli.config.commands import COMMANDS

    schema = OmegaConf.structured(COMMANDS[command])
    content = read_job(Path(file))
    sys.argv = ["dgpo", command, *content["overrides"]]  # what stands for the job in its records
    configs = [OmegaConf.to_object(OmegaConf.merge(schema, stored)) for stored in content["configs"]]
    run_here(command, configs, Path(folder))


def report_sweep(folder: Path) -> None:
    """The table of a sweep's jobs on stderr and its folder on stdout; raises RunError when a job failed."""
    jobs = [(file.parent, read_job(file)) for file in folder.glob(f"*/{JOB_FILE}")]
    jobs.sort(key=lambda job: job[1]["number"])
    rows = [("job", "exit", "overrides", "folder")]
    for job_folder, job in jobs:
        code = "-" if job.get("exit_code") is None else str(job["exit_code"])
        rows.append((str(job["number"]), code, " ".join(job["overrides"]), job_folder.name))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        say("  ".join([*cells, row[3]]))
    put(str(folder.absolute()))
    if any((job_folder / "config.yaml").is_file() or (job_folder / "results.json").is_file() for job_folder, _ in jobs):
        say(f"next: {command_line('compare', runs=shown_path(folder))}")
    failed = [job["number"] for _, job in jobs if job.get("exit_code") not in (0, None)]
    if failed:
        numbers = ", ".join(map(str, failed))
        raise RunError(f"{len(failed)} of {len(jobs)} jobs failed: {numbers}", "their errors stand above the table")


def accuracy(folder: Path) -> float | None:
    """What a finished job reached: avg@k (or the mean reward) of its evaluation; None of none.

    In training that of the last one on the first benchmark, whose row is the first of eval.jsonl.
    """
    import json

    for name in ("results.json", "eval.jsonl"):
        if (folder / name).is_file():
            text = (folder / name).read_text(encoding="utf-8")
            rows = [json.loads(line) for line in ([text] if name == "results.json" else text.strip().splitlines())]
            last = next(row for row in reversed(rows) if row.get("benchmark") == rows[0].get("benchmark"))
            average, reward = last["avg_at_k"], last.get("reward")
            if average is None:
                return None if reward is None else float(reward["mean"])
            return float(average["value"])
    return None
