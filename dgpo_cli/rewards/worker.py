"""The program of a grading process. `workers` starts it by its path; it imports of the package only what it needs.

It answers each line (JSON) on its socket with one line: first whether it is ready, then one reply a request. It dies
with
its parent: the kernel kills it where it can, and a closed socket ends it otherwise. Memory and CPU time are limited
here.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import math
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

Handler = Callable[[dict[str, Any]], dict[str, Any]]

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
        handler = {"function": _function_handler, "mathematics": _mathematics_handler}[kind](argument)
    except BaseException as error:
        _send(channel, {"failed": _described(error)})
        return
    _send(channel, {"ready": True})
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
    package = str(Path(__file__).resolve().parents[2])
    sys.path.append(package)
    from dgpo_cli.terminal import CleanStream

    sys.path.remove(package)
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


def _described(error: BaseException) -> str:
    """ValueError: what it says (file.py line 3), the line being the innermost of the user's code."""
    said = traceback.format_exception_only(error)[-1].strip()
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename != __file__]
    frames = [frame for frame in frames if not frame.filename.startswith("<frozen")]
    return f"{said} ({Path(frames[-1].filename).name} line {frames[-1].lineno})" if frames else said


def _function_handler(argument: str) -> Handler:
    """`argument` is file.py:function. The file's folder can be imported from, as when it is run as a script."""
    file, _, name = argument.rpartition(":")
    path = Path(file).resolve()
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location("user_reward_function", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if not callable(getattr(module, name, None)):
        defined = [one for one in vars(module) if callable(vars(module)[one]) and not one.startswith("_")]
        raise AttributeError(f"{path.name} has no function {name}; it defines {', '.join(defined) or 'none'}")
    function = getattr(module, name)

    def handle(request: dict[str, Any]) -> dict[str, Any]:
        try:
            returned = function(request["prompt"], request["completion"], request["answer"])
            return _reward(returned)
        except BaseException as error:  # SystemExit too: nothing that a function raises is a score
            return {"raised": _described(error)}

    return handle


def _reward(returned: Any) -> dict[str, Any]:
    """{score, correct} of a float or (float, correct); {invalid} of anything else."""
    invalid = {"invalid": _shown(returned)}
    score, correct = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if isinstance(score, str | bytes | complex) or not hasattr(score, "__float__"):
        return invalid
    try:
        number, known = float(score), None if correct is None else bool(correct)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return invalid
    if not math.isfinite(number) or (known is not None and correct != known):
        return invalid
    return {"score": number + 0.0, "correct": known}  # -0.0 becomes 0.0


def _shown(returned: Any) -> str:
    """Its type and the beginning of its repr, where it has one: a hostile object or a huge integer has none."""
    try:
        return f"{type(returned).__name__} {returned!r:.200}"
    except Exception:
        return type(returned).__name__


def _mathematics_handler(argument: str) -> Handler:
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    import math_verify  # noqa: F401  (takes a second: here, not in the first request)

    from dgpo_cli.rewards.mathematics import handle

    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # the parsers below chatter
    return handle


if __name__ == "__main__":
    main()
