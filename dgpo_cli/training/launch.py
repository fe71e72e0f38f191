"""Starting the worker processes of a run on this machine, and watching them until the last has ended.

The workers load the configuration that was composed here and never compose again. Rank 0 has the terminal; what the
others print goes to logs/ in the run's folder. Where one dies the others are ended, and it is named.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.environment import STORE
from dgpo_cli.errors import RunError
from dgpo_cli.processes import LostProcess

POLL_SECONDS = 0.1
LAST_WORDS_SECONDS = 15.0  # for the others to notice by themselves that one is gone


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


def launch(config: TrainConfig, folder: Path, size: int) -> None:
    """Run `dgpo train` of this configuration in `size` processes.

    Raises:
        RunError: a process died; it is named, with what it said last.
        SystemExit: rank 0 ended with an error that it has printed itself.
    """
    with tempfile.TemporaryDirectory(prefix="dgpo_") as scratch, _logs(folder, size, config) as logs:
        job = Path(scratch) / "job.yaml"
        job.write_text(_job_text(config), encoding="utf-8")
        workers = [_start(rank, size, job, folder, Path(scratch), config, log) for rank, log in enumerate(logs)]
        with _passing_on(config.checkpoint.signals, workers):
            first = _wait(workers)
    if first is not None:
        _explain(first, folder)


def _job_text(config: TrainConfig) -> str:
    import yaml
    from omegaconf import OmegaConf

    stored = OmegaConf.to_container(OmegaConf.structured(config), resolve=True, enum_to_str=True)
    return str(yaml.safe_dump({"overrides": sys.argv[2:], "configs": [stored]}, sort_keys=False))


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
    command = [sys.executable, "-m", "dgpo_cli", "_job", "train", str(job), str(folder)]
    options: dict[str, Any] = {} if log is None else {"stdout": log, "stderr": log}
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, start_new_session=True, **options)
    return Worker(rank, process, None if log is None else Path(log.name))


@contextmanager
def _passing_on(names: list[str], workers: list[Worker]) -> Iterator[None]:
    """Signals go to every worker, once each: they have a session of their own, which no Ctrl-C reaches."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        for worker in workers:
            if worker.process.poll() is None:
                worker.process.send_signal(number)

    before = {signal.Signals[name]: signal.signal(signal.Signals[name], pass_on) for name in names}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(workers: list[Worker]) -> Worker | None:
    """Wait for all; the first that failed by itself, and not because another one did, or None."""
    failed: list[Worker] = []
    deadline: float | None = None
    while any(worker.process.poll() is None for worker in workers):
        _note_failures(workers, failed)
        if failed and deadline is None:
            deadline = time.monotonic() + LAST_WORDS_SECONDS
        if deadline is not None and time.monotonic() > deadline:
            for worker in workers:
                worker.process.kill()
            for worker in workers:
                worker.process.wait()
            break
        time.sleep(POLL_SECONDS)
    if deadline is None:
        _note_failures(workers, failed)
    causes = [worker for worker in failed if worker.process.returncode != LostProcess.exit_code]
    return next(iter(causes or failed), None)


def _note_failures(workers: list[Worker], failed: list[Worker]) -> None:
    """Those killed come before those that failed: they cannot have been told."""
    fresh = [worker for worker in workers if worker.process.poll() not in (None, 0) and worker not in failed]
    failed += sorted(fresh, key=lambda worker: worker.process.returncode)


def _explain(worker: Worker, folder: Path) -> None:
    code = worker.process.returncode
    if worker.rank == 0 and code > 0 and code != LostProcess.exit_code:
        raise SystemExit(code)  # it has said why
    if code in (130, 143):
        raise SystemExit(code)
    resume = f"dgpo train {shlex.quote(f'resume={folder}')} continues from the last checkpoint"
    if code < 0:
        name = signal.Signals(-code).name
        raise RunError(
            f"rank {worker.rank} (process {worker.process.pid}) was killed by signal {-code} ({name}), and the others "
            "were ended",
            f"if nobody did so, the machine was out of memory; {resume}",
        )
    said = worker.last_error()
    raise RunError(f"rank {worker.rank} failed" + (f": {said}" if said else ""), f"{worker.log} has it all; {resume}")
