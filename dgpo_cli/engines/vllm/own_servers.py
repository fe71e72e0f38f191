"""Servers of vLLM that dgpo starts, watches and ends. Each is a process group, and ends with dgpo (dgpo_vllm.serve)."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.config.engine_groups import EngineConfig
from dgpo_cli.engines.http import HttpClient
from dgpo_cli.engines.vllm.facts import server_facts
from dgpo_cli.engines.vllm.interpreter import find_interpreter
from dgpo_cli.engines.vllm.launching import Launch, command, devices_of_servers, environment, free_port
from dgpo_cli.engines.vllm.plugin.dgpo_vllm.serve import SCRATCH, SCRATCH_PREFIX
from dgpo_cli.engines.vllm.served import Served, served_dtype
from dgpo_cli.errors import ConfigError, RunError, ServerError
from dgpo_cli.models.described import served_folder
from dgpo_cli.progress import within
from dgpo_cli.terminal import say, say_block

POLL = 0.25  # seconds
SAY_EVERY = 15.0  # seconds between lines while servers load
GRACE = 10.0  # seconds from SIGTERM to SIGKILL
NOT_ON_A_GPU = (
    "note: engine=vllm has not been run on a GPU yet (benchmarks/RESULTS.md): compare engine/logprob_gap_mean and "
    "engine/probe_gap with docs/engines.md"
)
ERROR = re.compile(r"\b[A-Za-z_.]*(Error|Exception): .*")
SHOWN = 250  # characters
LAST_WORDS_SECONDS = 3.0
LOG_LINES = 15  # shown of a server that does not come up


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[bytes]  # leads a process group of its id
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class OwnServers:
    """`Hosts` that live on this machine as long as the run does."""

    restartable = True

    def __init__(self, settings: EngineConfig, served: Served) -> None:
        """Raises ConfigError: no interpreter has vLLM, or there are too few GPUs."""
        self.settings = settings
        self.served = served
        self.python = find_interpreter(settings).path
        self.devices = devices_of_servers(
            settings,
            seen=torch.cuda.device_count(),
            trainers=served.trainers,
            visible=os.environ.get("CUDA_VISIBLE_DEVICES"),
        )
        self._scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
        self._launches: list[Launch] = []
        self._running: list[_Running] = []

    @property
    def urls(self) -> list[str]:
        return [one.url for one in self._running]

    def start(self, longest: int) -> Mapping[str, Any]:
        """Start all servers side by side, and wait for them.

        Raises:
            ConfigError: engine.max_model_len is shorter than what is asked for.
            RunError: one does not come up; the end of its log was shown.
        """
        length = self.settings.max_model_len or longest
        if length < longest:
            raise ConfigError(
                f"engine.max_model_len={length}: sequences need up to {longest} tokens here",
                f"engine.max_model_len={longest}, or null",
            )
        folder = served_folder(self.served.model, self._scratch, merge_adapter=not self.served.trained)
        dtype, trust = served_dtype(self.settings, self.served.computes_in), self.served.model.trust_remote_code
        self._launches = [
            Launch(self.python, folder, dtype, length, gpus, trust, self.served.threads) for gpus in self.devices
        ]
        if any(self.devices):
            say(NOT_ON_A_GPU)
        started = time.monotonic()
        self._running = []
        for launch in self._launches:
            self._running.append(self._launch(launch))
        self._wait(range(len(self._running)))
        say(f"vllm: {_count(len(self._running))} up after {time.monotonic() - started:.0f} s")
        told = server_facts(self.urls, longest, timeout_seconds=self.settings.timeout_seconds)
        return {**told, "dtype": dtype, "tensor_parallel": self.settings.tensor_parallel}

    def restart(self, dead: Sequence[int]) -> None:
        """End what is left of these servers and start them anew, with the weights of the model's folder."""
        for one in dead:
            _end([self._running[one]])
        for one in dead:
            self._running[one] = self._launch(self._launches[one])
        self._wait(dead)

    def last_words(self, numbers: Sequence[int]) -> str:
        """The line of its log that tells why the first of these servers that is dead has ended; empty if all live."""
        for one in (self._running[number] for number in numbers):
            if _is_up(one):
                continue
            with suppress(subprocess.TimeoutExpired):  # it closes its port a moment before it ends
                one.process.wait(LAST_WORDS_SECONDS)
            if one.process.poll() is not None:
                return telling_line(_lines(one.log))
        return ""

    def close(self) -> None:
        """End all of them, and remove their logs."""
        _end(self._running)
        self._running = []
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _launch(self, launch: Launch) -> _Running:
        port = free_port([one.port for one in self._running])
        log = self._scratch / f"{port}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command(self.settings, launch, port, os.getpid()),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=environment(self.settings, launch) | {SCRATCH: str(self._scratch)},
                start_new_session=True,
            )
        return _Running(process, port, log)

    def _wait(self, numbers: Sequence[int]) -> None:
        """Until these servers answer. Raises RunError: one ends before, or takes longer than engine.start_seconds."""
        seconds = self.settings.start_seconds
        started = said = time.monotonic()
        waiting = list(numbers)
        with within(seconds + 60.0):
            while waiting:
                waiting = [one for one in waiting if not _is_up(self._running[one])]
                for one in waiting:
                    self._refuse_dead(self._running[one], late=time.monotonic() > started + seconds)
                if waiting and time.monotonic() - said > SAY_EVERY:
                    said = time.monotonic()
                    say(
                        f"vllm: {len(waiting)} of {len(numbers)} servers are still loading after {said - started:.0f} s"
                    )
                if waiting:
                    time.sleep(POLL)

    def _refuse_dead(self, running: _Running, *, late: bool) -> None:
        code = running.process.poll()
        if code is None and not late:
            return
        lines = _lines(running.log)
        say_block("\n".join(f"vllm | {line}" for line in lines[-LOG_LINES:]))
        if code is None:
            raise RunError(
                f"a server of vLLM did not answer within {self.settings.start_seconds:g} s",
                "engine.start_seconds=SECONDS waits longer; its log stands above",
            )
        raise RunError(
            f"a server of vLLM ended before it was up: {telling_line(lines)}",
            f"its log stands above; {self.python} -m pip show vllm says which version that is",
        )


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _count(servers: int) -> str:
    return "1 server" if servers == 1 else f"{servers} servers"


def telling_line(lines: Sequence[str]) -> str:
    """The error that a log ends with, without what stands before it in its line; the last line if there is none.

    pydantic says on the next line what was wrong. The engine's own process says it before the server says that it
    has failed.
    """
    for number in range(len(lines) - 1, -1, -1):
        found = ERROR.search(lines[number])
        if found is not None and "root cause" not in lines[number]:
            said = lines[number + 1] if "ValidationError" in found[0] and number + 1 < len(lines) else found[0]
            return " ".join(said.split())[:SHOWN]
    return " ".join(lines[-1].split())[:SHOWN] if lines else "it said nothing"


def _is_up(running: _Running) -> bool:
    try:
        return HttpClient(running.url, retries=0, timeout_seconds=5.0).send("/health", first=True).is_good
    except ServerError:
        return False


def _end(servers: Sequence[_Running]) -> None:
    """End these servers, all side by side, with everything that they started; those that are dead already too."""
    for one in servers:
        _signal(one.process.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE
    for one in servers:
        with suppress(subprocess.TimeoutExpired):
            one.process.wait(max(0.0, deadline - time.monotonic()))
        _signal(one.process.pid, signal.SIGKILL)
        one.process.wait()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)
