"""Runs a server, and ends it with all its processes when whoever started it is gone, whatever ended that: kill -9 too.

A program of its own, with the standard library alone: `python guard.py PARENT_PID COMMAND...`. The server gets a
process group of its own, so that a Ctrl-C at the terminal reaches dgpo and not the server.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from types import FrameType

LOOK_EVERY = 0.5  # seconds
GRACE = 5.0  # seconds from SIGTERM to SIGKILL


def main(parent: int, command: list[str]) -> int:
    """The exit code of the command."""
    child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL)
    asked = False

    def end(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while not asked and os.getppid() == parent and child.poll() is None:
        time.sleep(LOOK_EVERY)
    _end_group(child)
    return child.wait()


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End the server and the workers that it started; those of a server that is dead already too."""
    _signal(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(child.pid, signal.SIGKILL)


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
