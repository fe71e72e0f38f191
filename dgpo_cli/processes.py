"""The processes of a run: joining them, and what they tell each other. One alone is the same with nobody to ask.

Everything here goes over gloo between CPUs: numbers, records, flags. Weights and gradients go their own way
(sharding.py, training/optimizer.py), over NCCL on GPUs.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import FileStore, PrefixStore, TCPStore

from dgpo_cli.allocation import is_out_of_memory, reason
from dgpo_cli.environment import STORE, Place
from dgpo_cli.errors import ConfigError, DgpoError, RunError

T = TypeVar("T")
# What gloo and NCCL say when a process at the other end is gone.
LOST = ("gloo", "nccl", "connection", "socket", "peer")


class LostProcess(RunError):
    """Another process of the run is gone: its own message says why."""

    exit_code = 76


def _nothing() -> None:
    pass


@dataclass
class Processes:
    """The processes of a run, seen from one of them. `beat` is called whenever they have got further together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = None  # gloo
    beat: Callable[[], None] = field(default=_nothing)

    @property
    def main(self) -> bool:
        """Whether this one owns the folder, the terminal and every decision that is not the same everywhere."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def from_main(self, value: T) -> T:
        """What the main process holds."""
        if self.alone:
            return value
        box = [value]
        with self._together():
            dist.broadcast_object_list(box, src=0, group=self.group)
        return box[0]

    def gathered(self, value: T) -> list[T]:
        """What each process holds, by rank."""
        if self.alone:
            return [value]
        boxes: list[Any] = [None] * self.size
        with self._together():
            dist.all_gather_object(boxes, value, group=self.group)
        return boxes

    def total(self, values: Tensor) -> Tensor:
        """The sum over the processes of a tensor on the CPU, in place."""
        if not self.alone:
            with self._together():
                dist.all_reduce(values, group=self.group)
        return values

    def highest(self, *values: int) -> list[int]:
        """The largest of each number over the processes."""
        if self.alone:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.int64)
        with self._together():
            dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.group)
        return [int(number) for number in numbers]

    def agreed(self, action: Callable[[], T]) -> T:
        """Run `action` everywhere; where it failed in one process, all raise that error and none goes on alone."""
        error: DgpoError | None = None
        result: Any = None
        try:
            result = action()
        except DgpoError as failed:
            error = failed
        first = next((problems for problems in self.gathered(error and error.problems) if problems), None)
        if error is not None:
            raise error
        if first is not None:
            raise RunError("", problems=first)
        return result  # type: ignore[no-any-return]

    def all_or_none(
        self, action: Callable[[Callable[[], None]], T], *, apart: bool, rounds: int, after_each: Callable[[], None]
    ) -> T:
        """Run `action`; memory that one process lacks is lacking in all, who can then do it again together.

        apart: no process waits for another within `action`. Otherwise it is only run: who fails cannot tell the others.
        after_each: what `action` is given to call after each of its rounds, in which the processes may talk to each
        other; who fails calls it for the rounds that are left.

        Raises:
            torch.OutOfMemoryError: everywhere, where an allocation failed in one process.
        """
        if self.alone or not apart:
            return action(after_each)
        short, result, left = "", None, rounds

        def one_less() -> None:
            nonlocal left
            left -= 1
            after_each()

        try:
            result = action(one_less)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            short = f"{reason(error)} (rank {self.rank})"
        # Outside of the handler, whose traceback holds the tensors of the failed try.
        for _ in range(left):
            after_each()
        found = next((text for text in self.gathered(short) if text), None)
        if found is not None:
            raise torch.OutOfMemoryError(found)
        return result  # type: ignore[return-value]

    @contextmanager
    def _together(self) -> Iterator[None]:
        with watching_for_loss():
            yield
        self.beat()


SOLO = Processes()


@contextmanager
def watching_for_loss() -> Iterator[None]:
    """Turn what a broken connection raises into LostProcess."""
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        if "timed out" in text or "timeout" in text:
            raise RunError(
                "another process of this run did not come to the same point in time "
                f"({' '.join(str(error).split())[:160]})",
                "strategy.stall_seconds waits longer; resume= continues",
            ) from error
        if isinstance(error, dist.DistError) or any(word in text for word in LOST):
            raise LostProcess(
                f"another process of this run is gone ({' '.join(str(error).split())[:160]})",
                "its own message says why; resume= continues",
            ) from error
        raise


def gpu_of(local_rank: int) -> int:
    """The GPU of a process: where a scheduler shows each only its own, that is the first one it sees."""
    return local_rank % torch.cuda.device_count()


def join(here: Place, *, device: str, connect_seconds: float, stall_seconds: float) -> Processes:
    """Meet the other processes of the run and try one collective with them.

    stall_seconds: what the watchdog waits for; a collective gives up only after twice as long.

    Raises:
        RunError: not all came within `connect_seconds`; those that are missing are named.
        ConfigError: the launcher does not say where to meet.
    """
    store = _store(here, connect_seconds)
    _wait_for_all(store, here, connect_seconds)
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(gpu_of(here.local_rank))
    store, patience = PrefixStore("run", store), timedelta(seconds=2 * stall_seconds)
    dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.size, timeout=patience)
    processes = Processes(here.rank, here.size, here.local_rank, dist.new_group(backend="gloo", timeout=patience))
    try:
        dist.monitored_barrier(processes.group, timedelta(seconds=connect_seconds), wait_all_ranks=True)
    except RuntimeError as error:
        raise RunError(
            f"the processes of the run met, but could not talk to each other within {connect_seconds:g} s: "
            f"{' '.join(str(error).split())[:200]}",
            "check the network between the machines (GLOO_SOCKET_IFNAME names the interface)",
        ) from error
    return processes


def leave() -> None:
    """End what `join` began."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _store(here: Place, seconds: float) -> Any:
    if STORE in os.environ:
        return FileStore(os.environ[STORE], here.size)
    address, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if not address or not port:
        raise ConfigError(
            f"this is process {here.rank} of {here.size}, and MASTER_ADDR and MASTER_PORT do not say where they meet",
            "torchrun sets them; with srun: export MASTER_PORT=29500 "
            "MASTER_ADDR=$(scontrol show hostnames $SLURM_JOB_NODELIST | head -n1)",
        )
    agent_owns_it = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    try:
        return TCPStore(
            address,
            int(port),
            here.size,
            is_master=here.rank == 0 and not agent_owns_it,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except (RuntimeError, ValueError) as error:
        raise RunError(
            f"process {here.rank} of {here.size} on {socket.gethostname()} did not reach {address}:{port} within "
            f"{seconds:g} s",
            "check MASTER_ADDR, MASTER_PORT and that process 0 runs",
        ) from error


def _wait_for_all(store: Any, here: Place, seconds: float) -> None:
    """Every process says that it is there, and waits for the others; who is missing at the deadline is named."""
    store.set(f"here/{here.rank}", socket.gethostname())
    deadline = time.monotonic() + seconds
    missing = list(range(here.size))
    while True:
        missing = [rank for rank in missing if not store.check([f"here/{rank}"])]
        if not missing:
            return
        if time.monotonic() > deadline:
            names = ", ".join(map(str, missing))
            raise RunError(
                f"rank {names} of {here.size} did not join within {seconds:g} s",
                "look at that process's own output; strategy.connect_seconds waits longer",
            )
        time.sleep(0.05)
