"""Starting the worker processes of a run on this machine, and watching them until the last has ended.

The workers load the configuration that was composed here and never compose again. Rank 0 has the terminal; what the
others print goes to logs/ in the run's folder. Where one dies the others are ended, and it is named. What all of them
say is said once, by rank 0, with its exit code; a signal that was passed on ends the run with 128 + its number.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any

import psutil

from dgpo_cli.command_lines import command
from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.stored import container_of
from dgpo_cli.environment import STORE
from dgpo_cli.errors import Interrupted, RunError, UsageError
from dgpo_cli.processes import LostProcess

POLL_SECONDS = 0.1
# For the others to notice by themselves that one has failed, and to end: rank 0 gives W&B 22 s (training/tracker.py).
LAST_WORDS_SECONDS = 40.0


@dataclass
class Worker:
    """One process of the run."""

    rank: int
    process: subprocess.Popen[bytes]
    log: Path | None  # None: it has the terminal

    def last_error(self) -> str:
        """The last error line that it printed, or its last line of all."""
        if self.log is None:
            return ""
        lines = [line for line in self.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error:")]
        return (errors or lines or [""])[-1].removeprefix("error:").strip()


@dataclass
class Crew:
    """All workers of a run, in the order of their ranks, and what came of them."""

    workers: list[Worker] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)  # that were passed on, in the order in which they came
    failed: list[Worker] = field(default_factory=list)  # in the order in which they were seen to have ended

    def pass_on(self, number: int, _frame: FrameType | None = None) -> None:
        """Signals go to every worker, once each: they have a session of their own, which no Ctrl-C reaches."""
        self.signals.append(number)
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    def add(self, worker: Worker) -> None:
        self.workers.append(worker)
        if self.signals and worker.process.poll() is None:  # came while it started
            worker.process.send_signal(self.signals[-1])

    def note_failures(self) -> None:
        """Those killed come before those that failed: they cannot have been told."""
        fresh = [worker for worker in self.workers if worker.process.poll() not in (None, 0)]
        self.failed += sorted(
            (worker for worker in fresh if worker not in self.failed), key=lambda worker: worker.process.returncode
        )

    @property
    def saved(self) -> set[int]:
        """Exit codes of those that a signal ended in the way it should."""
        return {128 + number for number in self.signals}

    def wait(self) -> None:
        """Wait for all. Where one has failed the others are given a while to end by themselves.

        Those that a signal ended leave rank 0 all the time it takes: it alone reads the checkpoints and closes W&B.
        """
        deadline: float | None = None
        while any(worker.process.poll() is None for worker in self.workers):
            self.note_failures()
            if deadline is None and any(worker.process.returncode not in self.saved for worker in self.failed):
                deadline = time.monotonic() + LAST_WORDS_SECONDS
            if deadline is not None and (time.monotonic() > deadline or self._all_stopped()):
                for worker in self.workers:
                    worker.process.kill()
                for worker in self.workers:
                    worker.process.wait()
                return
            time.sleep(POLL_SECONDS)
        self.note_failures()

    def _all_stopped(self) -> bool:
        """Whether no process that is left can end by itself: SIGSTOP has stopped them."""
        left = [worker.process.pid for worker in self.workers if worker.process.poll() is None]
        try:
            return bool(left) and all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in left)
        except psutil.NoSuchProcess:  # it has just ended
            return False

    @property
    def cause(self) -> Worker | None:
        """Why the run failed: one that was killed, else rank 0, which says what all say, else the first that failed.

        None: it did not, or a signal that was passed on is all that happened.
        """
        known = {*self.saved, *(-number for number in self.signals), LostProcess.exit_code}
        causes = [worker for worker in self.failed if worker.process.returncode not in known]
        if not causes and not self.signals:
            causes = self.failed
        killed = [worker for worker in causes if worker.process.returncode < 0]
        main = [worker for worker in causes if worker.rank == 0]
        return next(iter(killed + main + causes), None)


def launch(config: TrainConfig, folder: Path, size: int) -> None:
    """Run `dgpo train` of this configuration in `size` processes.

    Raises:
        RunError: a process died; it is named, with what it said last.
        Interrupted: a signal came before the processes could have said so.
        SystemExit: rank 0 ended with an error that it has printed itself.
    """
    crew = Crew()
    with tempfile.TemporaryDirectory(prefix="dgpo_") as scratch, _logs(folder, size, config) as logs:
        before = [0 if log is None else log.tell() for log in logs]
        job = Path(scratch) / "job.yaml"
        job.write_text(_job_text(config), encoding="utf-8")
        with _passing_on(config.checkpoint.signals, crew):
            for rank, log in enumerate(logs):
                if not crew.signals:
                    crew.add(_start(rank, size, job, folder, Path(scratch), config, log))
            crew.wait()
        cause = crew.cause
        if cause is not None and cause.rank == 0 and cause.process.returncode == UsageError.exit_code:
            for log, length in zip(logs, before, strict=True):  # the run was refused: it leaves nothing
                if log is not None:
                    log.truncate(length)
    if cause is not None:
        _explain(cause, folder)
    elif crew.signals:
        _interrupt(crew, folder)


def _job_text(config: TrainConfig) -> str:
    import yaml

    return str(yaml.safe_dump({"overrides": sys.argv[2:], "configs": [container_of(config)]}, sort_keys=False))


@contextmanager
def _logs(folder: Path, size: int, config: TrainConfig) -> Iterator[list[IO[bytes] | None]]:
    """A file for each rank but the first, which has the terminal."""
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    mode = "wb" if config.overwrite else "ab"
    files: list[IO[bytes] | None] = [None, *((logs / f"rank_{rank:03d}.txt").open(mode) for rank in range(1, size))]
    try:
        yield files
    finally:
        for file in files:
            if file is not None:
                file.close()
                if not os.path.getsize(file.name):
                    os.unlink(file.name)
        with suppress(OSError):
            logs.rmdir()  # where nobody had anything to say


def _start(
    rank: int, size: int, job: Path, folder: Path, scratch: Path, config: TrainConfig, log: IO[bytes] | None
) -> Worker:
    environment = os.environ | {
        "RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_RANK": str(rank),
        STORE: str(scratch / "store"),
    }
    if Path("/sys/class/net/lo").exists():  # all of them are here, whatever the machine's name resolves to
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if not (config.strategy.threads or config.model.threads):
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // size)))
    line = [sys.executable, "-m", "dgpo_cli", "_job", "train", str(job), str(folder)]
    options: dict[str, Any] = {} if log is None else {"stdout": log, "stderr": log}
    process = subprocess.Popen(line, stdin=subprocess.DEVNULL, env=environment, start_new_session=True, **options)
    return Worker(rank, process, None if log is None else Path(log.name))


@contextmanager
def _passing_on(names: list[str], crew: Crew) -> Iterator[None]:
    before = {signal.Signals[name]: signal.signal(signal.Signals[name], crew.pass_on) for name in names}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(crew: Crew, folder: Path) -> None:
    """End as the signal asked for, unless the run was done before it came."""
    code = crew.workers[0].process.returncode if crew.workers else None
    if code == 0:
        return
    if code in crew.saved:
        raise SystemExit(code)  # it has said so
    began = (folder / "config.yaml").is_file()
    raise Interrupted(
        f"interrupted by {signal.Signals(crew.signals[0]).name} before all processes were at work",
        _resume_hint(folder) if began else "",
        exit_code=128 + crew.signals[0],
    )


def _resume_hint(folder: Path) -> str:
    return f"{command('train', resume=folder)} continues from the last checkpoint"


def _explain(worker: Worker, folder: Path) -> None:
    code = worker.process.returncode
    if worker.rank == 0 and code > 0 and code != LostProcess.exit_code:
        raise SystemExit(code)  # it has said why
    hints = [_resume_hint(folder)] if (folder / "config.yaml").is_file() else []
    if code < 0:
        name = signal.Signals(-code).name
        raise RunError(
            f"rank {worker.rank} (process {worker.process.pid}) was killed by signal {-code} ({name}), and the others "
            "were ended",
            "; ".join(["if nobody did so, the machine was out of memory", *hints]),
        )
    said = worker.last_error()
    log = [f"{worker.log} has it all"] if worker.log is not None else []
    raise RunError(f"rank {worker.rank} failed" + (f": {said}" if said else ""), "; ".join(log + hints))
