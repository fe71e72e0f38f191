"""One job of a sweep in a process of its own: its file, its log, its last words."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dgpo_cli.environment import SWEEP
from dgpo_cli.jobs import JOB_FILE

LOG = "job.log"  # what a job says, over all its attempts
LAST_LINES = 5
TAIL = 65536  # bytes


def start_job(command: str, folder: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the job whose file lies in `folder`; both of its streams go to the log there.

    It gets a session of its own, so that a Ctrl-C at the terminal reaches it once, through `Interruption`. It looks
    out for this process, and saves and ends once that is gone.
    """
    line = [sys.executable, "-m", "dgpo_cli", "_job", command, str(folder / JOB_FILE), str(folder)]
    env = {**os.environ, **environment, SWEEP: str(os.getpid())}
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True)


def exit_code(returned: int) -> int:
    """As a shell has it: 128 + N for a process that signal N ended."""
    return returned if returned >= 0 else 128 - returned


def last_words(folder: Path, since: int = 0) -> list[str]:
    """The errors and hints in a job's log, from byte `since` on; without any its last lines."""
    log = folder / LOG
    if not log.is_file():
        return []
    with log.open("rb") as stream:
        stream.seek(max(since, log.stat().st_size - TAIL))
        lines = [line for line in stream.read().decode("utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if line.startswith(("error: ", "hint: "))]
    return said or lines[-LAST_LINES:]


def log_size(folder: Path) -> int:
    """Bytes in a job's log: where its next attempt begins."""
    return (folder / LOG).stat().st_size if (folder / LOG).is_file() else 0
