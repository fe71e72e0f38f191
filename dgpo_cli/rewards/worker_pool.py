"""Grading processes with hard deadlines: a request that takes too long costs its worker, never the run.

A worker (the program in `worker`) is a fresh interpreter that grades many requests. One that is late is killed and
replaced, one that dies is replaced, and so is each after `recycle_after` requests. A request is answered by a reply, or
by the reason why there is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgpo_cli.errors import RewardError
from dgpo_cli.progress import within

WORKER_PROGRAM = Path(__file__).with_name("worker.py")
START_SECONDS = 120.0  # a user's file may import torch on a busy machine
RECYCLE_AFTER = 2000  # requests; sympy's caches grow
LATEST = 10_000  # requests whose time is kept


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    channel: socket.socket
    deadline: float
    ready: bool = False
    task: int | None = None
    started: float = 0.0  # its task
    served: int = 0
    received: bytearray = field(default_factory=bytearray)


class WorkerPool:
    """Up to `size` processes of one kind, started when they are needed.

    kind, argument: what the program of `worker` is to do. timeout_seconds: of one request.
    memory_bytes, cpu_seconds: limits within a worker, 0 for none; the CPU limit is per request.
    """

    def __init__(
        self,
        kind: str,
        argument: str,
        *,
        size: int,
        timeout_seconds: float,
        memory_bytes: int = 0,
        cpu_seconds: int = 0,
        recycle_after: int = RECYCLE_AFTER,
    ) -> None:
        self._arguments = [kind, argument, str(memory_bytes), str(cpu_seconds)]
        self._size = size
        self._timeout_seconds = timeout_seconds
        self._recycle_after = recycle_after
        self._workers: list[_Worker] = []
        self._shares: Sequence[int] | None = None
        self.seconds: deque[float] = deque(maxlen=LATEST)  # that the latest requests took
        self._greeting: dict[str, Any] | None = None
        self.restarts = 0  # of workers that were late or died

    def greeting(self) -> dict[str, Any]:
        """What a worker said when it was ready. Starts one if none has been; raises RewardError if it cannot start."""
        while self._greeting is None:
            if not self._workers:
                self._start()
            for worker in self._wait():
                self._receive(worker, [])
            self._end_late_workers([])
        return self._greeting

    def run(self, requests: list[dict[str, Any]], shares: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """One reply a request, in order; {"error": "timeout"} or {"error": "died"} if there is none.

        shares: how many times `timeout_seconds` each request has; once if they are not given.
        Raises RewardError if a worker cannot start.
        """
        self._shares = shares
        replies: list[dict[str, Any]] = [{}] * len(requests)
        waiting = deque(range(len(requests)))
        try:
            while waiting or any(worker.task is not None for worker in self._workers):
                self._assign(requests, waiting)
                for worker in self._wait():
                    self._receive(worker, replies)
                self._end_late_workers(replies)
        finally:
            for worker in [worker for worker in self._workers if worker.task is not None]:
                self._kill(worker)
        return replies

    def close(self) -> None:
        """End every worker."""
        for worker in list(self._workers):
            self._kill(worker)

    def _assign(self, requests: list[dict[str, Any]], waiting: deque[int]) -> None:
        for worker in [worker for worker in self._workers if worker.served >= self._recycle_after]:
            if worker.task is None:
                self._kill(worker)
        for worker in list(self._workers):
            if not waiting or not worker.ready or worker.task is not None:
                continue
            task = waiting.popleft()
            worker.task = task
            seconds = self._timeout_seconds * (1 if self._shares is None else self._shares[task])
            worker.started = time.monotonic()
            worker.deadline = worker.started + seconds
            try:
                worker.channel.settimeout(seconds)
                with within(seconds):
                    worker.channel.sendall(json.dumps(requests[task]).encode() + b"\n")
            except OSError:  # it died while idle: no fault of this request
                self._kill(worker)
                waiting.appendleft(task)
        starting = sum(not worker.ready for worker in self._workers)
        while len(self._workers) < self._size and starting < len(waiting):
            self._start()
            starting += 1

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER_PROGRAM), str(theirs.fileno()), str(os.getpid()), *self._arguments],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONHASHSEED": "0"},  # sympy's order of terms follows the hashes
                start_new_session=True,  # Ctrl-C is the parent's; and a kill takes the worker's own children too
            )
        self._workers.append(_Worker(process, ours, time.monotonic() + START_SECONDS))

    def _wait(self) -> list[_Worker]:
        """The workers with something to read, by the next deadline at the latest."""
        busy = [worker for worker in self._workers if worker.task is not None or not worker.ready]
        if not busy:
            return []
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.channel, selectors.EVENT_READ, worker)
            seconds = max(0.0, min(worker.deadline for worker in busy) - time.monotonic())
            with within(seconds):
                return [key.data for key, _ in selector.select(seconds)]

    def _receive(self, worker: _Worker, replies: list[dict[str, Any]]) -> None:
        try:
            received = worker.channel.recv(1 << 16)
        except OSError:
            received = b""
        worker.received += received
        if received and not worker.received.endswith(b"\n"):
            return
        reply = json.loads(worker.received) if received else {"error": "died"}
        worker.received.clear()
        if not worker.ready:
            if "ready" not in reply:
                self._kill(worker)
                raise RewardError(f"a grading process cannot start: {reply.get('failed', 'it died')}")
            worker.ready, self._greeting = True, reply
            return
        if worker.task is not None:
            replies[worker.task] = reply
            worker.task = None
            self.seconds.append(time.monotonic() - worker.started)
            # After a MemoryError a process may be in any state.
            worker.served += self._recycle_after if reply.get("error") == "memory" else 1
        if not received:
            self._kill(worker)
            self.restarts += 1

    def _end_late_workers(self, replies: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        for worker in list(self._workers):
            if now < worker.deadline or (worker.ready and worker.task is None):
                continue
            self._kill(worker)
            if not worker.ready:
                raise RewardError(f"a grading process was not ready within {START_SECONDS:.0f} s")
            if worker.task is not None:
                replies[worker.task] = {"error": "timeout"}
                self.seconds.append(now - worker.started)
            self.restarts += 1

    def _kill(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.channel.close()
        worker.process.wait()
