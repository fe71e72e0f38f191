"""A shell as a person uses it, on a terminal of its own: which words a command gets after Tab and Enter."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import shutil
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from real_terminal import drained

START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
START_UP = {
    "bash": "source ./script",
    "zsh": "autoload -Uz compinit && compinit -u -D; source ./script",
    "fish": "source ./script",
}
# `dgpo` itself for completion; for anything else it writes down the words that it got.
STAND_IN = """\
#!/bin/sh
if [ "$1" = _complete ]; then
  "{python}" -m dgpo_cli "$@"
  touch "{folder}/asked"
else
  printf '%s\\n' "$@" > "{folder}/words.partial"
  mv "{folder}/words.partial" "{folder}/words"
fi
"""


def require(shell: str) -> None:
    """Skip the test if the shell is not installed; in continuous integration it has to be there."""
    if shutil.which(shell) is None:
        missing = f"{shell} is not installed: bash tests/install_shells.sh"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)


def words_after_tab(shell: str, line: str, script: str, folder: Path) -> list[str]:
    """The words that `dgpo` gets if `line` is typed in `folder`, then Tab, then Enter. `script`: its completion."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    (binaries / "dgpo").write_text(STAND_IN.format(python=sys.executable, folder=folder))
    (binaries / "dgpo").chmod(0o755)
    (folder / "script").write_text(script)
    for name in ("asked", "words", "set_up"):
        (folder / name).unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "TERM": "xterm", "HOME": str(folder)}
    master, slave = pty.openpty()
    process = subprocess.Popen(
        START[shell],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # fish wants to control its terminal
    )
    os.close(slave)
    output: list[bytes] = []
    reader = threading.Thread(target=lambda: output.append(drained(master)))
    reader.start()
    try:
        os.write(master, f"{START_UP[shell]}; touch set_up\n".encode())
        _wait(lambda: (folder / "set_up").exists())
        os.write(master, f"{line}\t".encode())
        _wait(lambda: (folder / "asked").exists())
        time.sleep(1)  # the shell has its answer; now it changes the line
        os.write(master, b"\n")
        _wait(lambda: (folder / "words").exists())
        return (folder / "words").read_text().splitlines()
    finally:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            os.write(master, b"")
        reader.join(10)


def _wait(until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not until():
        assert time.monotonic() < deadline, "the shell gave no sign in 60 s"
        time.sleep(0.05)
