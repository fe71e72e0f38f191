"""Servers that dgpo starts: what ends them, and what is said of those that do not come up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from shared_vllm import start_process, vllm_python

from dgpo_cli.bundled import bundled_path
from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.engines.vllm.launching import PLUGIN, free_port
from dgpo_cli.engines.vllm.own_servers import OwnServers, _Running, telling_line
from dgpo_cli.engines.vllm.served import Served
from dgpo_cli.errors import ConfigError, RunError

# A server's process that has forked its watcher, without vLLM in it.
WATCHED = """
import os, sys, time
from dgpo_vllm.serve import birth, watch
owner, server = int(sys.argv[1]), os.getpid()
born = birth(owner)
if os.fork() == 0:
    print("watched", flush=True)
    watch(owner, born, server)
time.sleep(600)
"""
MOST_SECONDS = 60.0  # of any wait here, on a busy machine


def members(group: int) -> list[int]:
    """The processes of a group that still run."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def wait_for(what: str, is_so: Any) -> None:
    deadline = time.monotonic() + MOST_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture
def owner() -> Iterator[subprocess.Popen[bytes]]:
    """A process that a server belongs to, as it does to a trainer."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def loading(owner: subprocess.Popen[bytes], tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server that has begun to load, with the process that watches over it."""
    with (tmp_path / "log").open("wb") as out, start_process(free_port(), out, owner.pid) as server:
        wait_for("it has a watcher", lambda: len(members(server.pid)) > 1)
        yield server
        for pid in members(server.pid):
            os.kill(pid, signal.SIGKILL)


def test_a_server_ends_with_its_owner_even_if_that_is_killed(
    owner: subprocess.Popen[bytes], loading: subprocess.Popen[bytes]
) -> None:
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_for("the server and its watcher are gone", lambda: not members(loading.pid))


@pytest.mark.parametrize("name", ["dgpo-vllm-x", "somebody-elses"])
def test_the_scratch_folder_of_a_killed_owner_goes_and_no_other_does(
    name: str, owner: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    scratch = tmp_path / name
    scratch.mkdir()
    (scratch / "1.log").write_text("loading")
    words = [sys.executable, "-c", WATCHED, str(owner.pid)]
    variables = {**os.environ, "PYTHONPATH": str(PLUGIN), "DGPO_VLLM_SCRATCH": str(scratch)}
    with subprocess.Popen(words, env=variables, start_new_session=True, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        wait_for("the server and its watcher are gone", lambda: not members(server.pid))
    assert scratch.exists() is (name == "somebody-elses")


def test_a_server_that_ends_alone_leaves_its_log(owner: subprocess.Popen[bytes], tmp_path: Path) -> None:
    scratch = tmp_path / "dgpo-vllm-x"
    scratch.mkdir()
    words = [sys.executable, "-c", WATCHED, str(owner.pid)]
    variables = {**os.environ, "PYTHONPATH": str(PLUGIN), "DGPO_VLLM_SCRATCH": str(scratch)}
    with subprocess.Popen(words, env=variables, start_new_session=True, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        server.stdout.readline()
        server.send_signal(signal.SIGKILL)
        server.wait()
        wait_for("its watcher is gone", lambda: not members(server.pid))
    assert scratch.exists()


def test_nothing_outlives_a_server_that_is_killed(loading: subprocess.Popen[bytes]) -> None:
    loading.send_signal(signal.SIGKILL)
    wait_for("its watcher is gone", lambda: not members(loading.pid))


def test_a_server_whose_watcher_is_killed_ends_with_its_owner_all_the_same(
    owner: subprocess.Popen[bytes], loading: subprocess.Popen[bytes]
) -> None:
    [watcher] = [pid for pid in members(loading.pid) if pid != loading.pid]
    os.kill(watcher, signal.SIGKILL)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    wait_for("the server is gone", lambda: not members(loading.pid))


def servers(model: Path, **settings: Any) -> OwnServers:
    asked = EngineConfig(name="vllm", python=vllm_python(), **settings)
    return OwnServers(asked, Served(ModelConfig(path=str(model)), Dtype.float32, trained=False, trainers=0))


def test_servers_that_take_too_long_are_ended_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(servers(bundled_path("tiny"), start_seconds=1.0, replicas=2)) as own:
        with pytest.raises(RunError, match="a server of vLLM did not answer within 1 s") as raised:
            own.start(64)
        groups = [one.process.pid for one in own._running]
        assert len(groups) == 2
    assert "engine.start_seconds" in raised.value.problems[0].hint
    wait_for("both are gone", lambda: not [pid for group in groups for pid in members(group)])
    own.close()  # twice is harmless


def test_a_length_that_is_too_short_is_refused_before_anything_starts() -> None:
    with closing(servers(bundled_path("tiny"), max_model_len=32)) as own:
        with pytest.raises(ConfigError, match=r"engine\.max_model_len=32: sequences need up to 64 tokens"):
            own.start(64)
        assert own.urls == []


@pytest.mark.slow
def test_a_model_that_vllm_does_not_know_is_one_line(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in bundled_path("tiny").iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["NobodysModel"], "model_type": "none"}))
    with closing(servers(model, start_seconds=300.0)) as own:
        with pytest.raises(RunError, match=r"a server of vLLM ended before it was up: .*(NobodysModel|model type)"):
            own.start(64)
        [group] = [one.process.pid for one in own._running]
    wait_for("it is gone", lambda: not members(group))


def test_a_server_that_died_is_told_of_by_its_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("INFO up\nRuntimeError: unsupported head_dim 16\nINFO shutting down\n")
    with closing(servers(bundled_path("tiny"))) as own, subprocess.Popen(["true"], start_new_session=True) as process:
        own._running = [_Running(process, free_port(), log)]
        assert own.last_words([0]) == "RuntimeError: unsupported head_dim 16"
        assert own.last_words([]) == ""


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (["Traceback", "ValueError: no such model", ""], "ValueError: no such model"),
        (["pydantic_core.ValidationError: 1 error for M", "  Value error, not known"], "Value error, not known"),
        (
            [
                "(EngineCore pid=7) ERROR 01 [core.py] RuntimeError: out of memory",
                "RuntimeError: failed. See root cause",
            ],
            "RuntimeError: out of memory",
        ),
        (
            [
                "RuntimeError: unsupported head_dim 16",
                "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause.",
            ],
            "RuntimeError: unsupported head_dim 16",
        ),
        (["api_server.py: error: unrecognized arguments: --x"], "api_server.py: error: unrecognized arguments: --x"),
        ([], "it said nothing"),
    ],
)
def test_the_line_of_a_log_that_tells_why(log: list[str], line: str) -> None:
    assert telling_line(log) == line
