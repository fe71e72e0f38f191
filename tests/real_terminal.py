"""A command on a real terminal: what reaches it, byte for byte."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path


def typed(*argv: str, folder: Path, columns: int = 400) -> tuple[int, str]:
    """The exit code of `dgpo ARGV` in that folder, and all that its stdout and stderr wrote to one terminal."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "dgpo_cli", *argv],
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=kept | {"TERM": "xterm-256color", "OMP_NUM_THREADS": "1"},
    )
    os.close(slave)
    written = drained(master)
    return process.wait(60), written.decode(errors="surrogateescape").replace("\r\n", "\n")


def drained(master: int) -> bytes:
    """All that is written to a terminal until its other end is closed; closes this one."""
    written = b""
    while True:
        try:
            part = os.read(master, 1 << 16)
        except OSError:  # EIO: the other end is closed
            break
        if not part:
            break
        written += part
    os.close(master)
    return written
