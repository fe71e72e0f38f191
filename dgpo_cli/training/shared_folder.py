"""Whether all processes of a run see its folder: a sharded model is saved by all of them, and read by all.

Without it the first checkpoint would be the first to fail, hours after the start.
"""

from __future__ import annotations

import secrets
import socket
import time
from pathlib import Path

from dgpo_cli.disk import writing
from dgpo_cli.errors import ConfigError
from dgpo_cli.processes import Processes
from dgpo_cli.progress import within

SEEN_SECONDS = 20.0  # that a name may take to other machines: network file systems remember what was not there
LOOK_SECONDS = 0.1


def require_shared(folder: Path, processes: Processes, *, seconds: float = SEEN_SECONDS) -> None:
    """The main process leaves a file in `folder` for a moment, and the others look for it.

    Raises:
        ConfigError: one of them does not see it within `seconds`; in all of them.
        RunError: it cannot be written.
    """
    if processes.alone:
        return
    made: list[Path] = []
    name = processes.from_main(f".shared_{secrets.token_hex(8)}")
    try:
        processes.agreed(lambda: made.extend(_left(folder, name)) if processes.main else None)
        blind = _ranks_without(folder / name, processes, seconds)
    finally:
        for path in reversed(made):
            path.rmdir() if path.is_dir() else path.unlink(missing_ok=True)
    if blind:
        listed = ", ".join(f"{rank} on {host}" for rank, host in blind[:3]) + (", ..." if blind[3:] else "")
        raise ConfigError(
            f"rank {listed} does not see the run's folder {folder} as rank 0 does, and all of them save there",
            "hydra.run.dir=FOLDER on a file system that all machines share; strategy=ddp saves by rank 0 alone",
        )


def _left(folder: Path, name: str) -> list[Path]:
    """The file, and folders that were made for it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    with writing(folder, 0):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return [*reversed(missing), folder / name]


def _ranks_without(path: Path, processes: Processes, seconds: float) -> list[tuple[int, str]]:
    """(rank, host) of the processes that do not see it."""
    deadline = time.monotonic() + seconds
    with within(seconds):
        while not (seen := path.is_file()) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
    told = processes.gathered((seen, socket.gethostname()))
    return [(rank, host) for rank, (seen, host) in enumerate(told) if not seen]
