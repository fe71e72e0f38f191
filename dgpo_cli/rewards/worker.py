"""The program of a grading process. `worker_pool` starts it by its path; it imports only what it needs of the package.

It writes one line of JSON when it is ready, then one for each line that it reads from its socket. It dies with its
parent: on Linux the kernel kills it, elsewhere the closed socket ends it. Memory and CPU time are limited here.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

Handler = Callable[[dict[str, Any]], dict[str, Any]]

PACKAGE_FOLDER = str(Path(__file__).resolve().parents[2])
PR_SET_PDEATHSIG = 1


def main() -> None:
    descriptor, parent, kind, argument, memory_bytes, cpu_seconds = sys.argv[1:]
    _die_with(int(parent))
    if int(memory_bytes):
        resource.setrlimit(resource.RLIMIT_AS, (int(memory_bytes), int(memory_bytes)))
    channel = socket.socket(fileno=int(descriptor))
    # What the graded code prints goes to stderr: stdout belongs to the program's data. It may print a completion.
    os.dup2(2, 1)
    sys.stdout = sys.stderr = _clean_stream()
    try:
        handler, facts = {"function": _function_handler, "mathematics": _mathematics_handler}[kind](argument)
    except BaseException as error:
        with _package():
            from dgpo_cli.rewards.user_function import described
        _send(channel, {"failed": described(error)})
        return
    _send(channel, {"ready": True, **facts})
    with channel.makefile("rb") as lines:
        for line in lines:
            if int(cpu_seconds):
                _limit_cpu(int(cpu_seconds))
            try:
                reply = handler(json.loads(line))
            except MemoryError:
                reply = {"error": "memory"}
            _send(channel, reply)


def _clean_stream() -> Any:
    """In front of stderr: what is printed acts on no terminal."""
    with _package():
        from dgpo_cli.terminal import CleanStream
    return CleanStream(sys.stderr)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above
        sys.exit(1)


def _limit_cpu(seconds: int) -> None:
    """The limit counts the whole life of a process, so it moves with each request."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime) + seconds, hard))


def _send(channel: socket.socket, reply: dict[str, Any]) -> None:
    channel.sendall(json.dumps(reply).encode() + b"\n")


def _function_handler(argument: str) -> tuple[Handler, dict[str, Any]]:
    """`argument` is file.py:function."""
    with _package():
        from dgpo_cli.rewards import user_function
    function = user_function.load(argument)
    return partial(user_function.call, function), {"parameters": user_function.parameters_of(function)}


def _mathematics_handler(argument: str) -> tuple[Handler, dict[str, Any]]:
    sys.path.append(PACKAGE_FOLDER)
    import math_verify  # noqa: F401  (takes a second: here, not in the first request)

    from dgpo_cli.rewards.mathematics import handle

    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # the parsers below chatter
    return handle, {}


@contextmanager
def _package() -> Iterator[None]:
    """`dgpo_cli` can be imported, and nothing beside it once this ends: the path is the user's file's own."""
    sys.path.append(PACKAGE_FOLDER)
    try:
        yield
    finally:
        sys.path.remove(PACKAGE_FOLDER)


if __name__ == "__main__":
    main()
