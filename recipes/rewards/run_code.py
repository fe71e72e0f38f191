"""Code that is run: the share of a row's tests that the Python of a completion passes.

    dgpo rollout grade=recipes/rewards/programs.jsonl reward.path=recipes/rewards/run_code.py:score

The column `tests` is a list of statements, such as `assert add(1, 2) == 3`. Each completion runs in a process of its
own, in an empty folder, without input and without environment variables, and with limits of the operating system:
CPU time, wall time, memory, the size of files it writes, no core dumps, and (unless it runs as root) no processes of
its own.

Network: on Linux, where the kernel lets an ordinary user have a namespace of its own, the process has no network at
all. Elsewhere, an audit hook of Python refuses sockets.

This is NO sandbox against malice. The code runs as your user and can read and delete your files; the hook can be got
around, and so can the tests. It holds up against loops, leaks, crashes and clumsiness. Against code that means harm run
the whole of dgpo in a container or a virtual machine that you can throw away.
"""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile

WALL_SECONDS = 6.0
CPU_SECONDS = 4
MEMORY_BYTES = 512 << 20
FILE_BYTES = 1 << 20
BLOCK = re.compile(r"```(?:python|py)?\s*\n(.*?)```", re.DOTALL)
NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000  # CLONE_NEWUSER, CLONE_NEWNET of Linux


def score(completion: str, tests: list[str]) -> dict[str, float | bool]:
    blocks = BLOCK.findall(completion)
    passed = run(blocks[-1], tests) if blocks else None
    share = (passed or 0) / len(tests)
    return {"score": share, "correct": share == 1.0, "has_code": bool(blocks), "finished": passed is not None}


def run(code: str, tests: list[str]) -> int | None:
    """How many of the tests pass; None if the program did not get to its end within its limits."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", os.path.abspath(__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        try:
            said, _ = process.communicate(json.dumps({"code": code, "tests": tests}).encode(), timeout=WALL_SECONDS)
        except subprocess.TimeoutExpired:
            said = b""
        finally:
            _end(process)
    return int(said) if said.strip().isdigit() else None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process with those that it started, unless they have left its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def main() -> None:
    """Inside the process: read the task, take the limits, run, say how many tests passed."""
    task = json.load(sys.stdin)
    result = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(nowhere, stream)  # what the code prints goes nowhere
    _limit()
    names: dict[str, object] = {"__name__": "__main__"}
    exec(compile(task["code"], "completion.py", "exec"), names)
    passed = 0
    for test in task["tests"]:
        try:
            exec(compile(test, "test.py", "exec"), names)
            passed += 1
        except Exception:
            pass
    os.write(result, str(passed).encode())


def _limit() -> None:
    _without_network()
    limits = {
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_AS: MEMORY_BYTES,
        resource.RLIMIT_FSIZE: FILE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for what, most in limits.items():
        resource.setrlimit(what, (most, most))


def _without_network() -> None:
    """A network namespace of its own, with nothing in it; a hook that refuses sockets in any case."""
    if sys.platform == "linux":
        ctypes.CDLL(None).unshare(NEW_USER | NEW_NETWORK)

    def refuse(event: str, _: tuple[object, ...]) -> None:
        if event.startswith("socket."):
            raise PermissionError(f"{event}: this process has no network")

    sys.addaudithook(refuse)


if __name__ == "__main__":
    main()
