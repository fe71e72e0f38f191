"""Starts vLLM's API server, and ends it with all its processes when whoever owns it is gone: kill -9 of that too.

    python -m dgpo_vllm.serve OWNER_PID ARGUMENTS_OF_THE_API_SERVER...

Two look at the owner: a watcher that is forked before anything is loaded, and a thread of the server, in case somebody
kills the watcher. The watcher also ends the server's workers if the server itself is killed. All of them are one
process group, which the caller has made, so that nothing is missed.

An owner that is killed leaves its scratch folder behind, with the logs in it. DGPO_VLLM_SCRATCH names that folder, and
it goes with the owner. A server that ends alone leaves it: the owner still reads the log.

Not PR_SET_PDEATHSIG: it fires as soon as the *thread* ends that started the server.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

API_SERVER = "vllm.entrypoints.openai.api_server"
LOOK_EVERY = 0.5  # seconds
GRACE = 3.0  # seconds from SIGTERM to SIGKILL
SCRATCH, SCRATCH_PREFIX = "DGPO_VLLM_SCRATCH", "dgpo-vllm-"


def birth(pid: int) -> str | None:
    """When a process was started, as the kernel counts; "" where that cannot be asked. None: there is no such process.

    A process id is used again, and then by one of another birth. A zombie is gone.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        return "" if _answers(pid) else None
    return None if fields[0] in ("Z", "X") else fields[19]


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def watch(owner: int, born: str | None, server: int) -> None:
    """Wait until the owner or the server is gone; then end the process group that this process belongs to."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # sent to the whole group: what is left of it has to be ended all the same
    while os.getppid() == server and birth(owner) == born:
        time.sleep(LOOK_EVERY)
    if os.getppid() == server:  # it may still end in order
        os.kill(server, signal.SIGTERM)
        until = time.monotonic() + GRACE
        while os.getppid() == server and time.monotonic() < until:
            time.sleep(0.05)
    if birth(owner) != born:
        _clear()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _clear() -> None:
    """Remove the owner's scratch folder. Any other folder is left alone, whatever the environment names."""
    folder = Path(os.environ.get(SCRATCH, ""))
    if folder.name.startswith(SCRATCH_PREFIX):
        shutil.rmtree(folder, ignore_errors=True)


def _look_after(owner: int, born: str | None) -> None:
    while birth(owner) == born:
        time.sleep(4 * LOOK_EVERY)
    time.sleep(2 * GRACE)  # the watcher ends it in order
    _clear()
    os.killpg(os.getpgrp(), signal.SIGKILL)


def main(owner: int, arguments: list[str]) -> None:
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    born, server = birth(owner), os.getpid()
    if born is None:
        sys.exit(f"dgpo: there is no process {owner} that this server belongs to")
    if os.fork() == 0:
        watch(owner, born, server)
    threading.Thread(target=_look_after, args=(owner, born), daemon=True).start()
    sys.argv = [API_SERVER, *arguments]
    runpy.run_module(API_SERVER, run_name="__main__")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
