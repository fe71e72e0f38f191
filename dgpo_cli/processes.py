"""The processes of a run: how they join, and how they tell each other things. A process alone asks nobody.

Numbers, records and flags go over gloo between CPUs, large ones over the device. Weights and gradients go their own way
(models/sharding.py, training/optimizer.py), over NCCL on GPUs. Work that the main process orders is in crew.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dgpo_cli import collectives
from dgpo_cli.allocation import is_out_of_memory, reason
from dgpo_cli.collectives import Way
from dgpo_cli.errors import DgpoError, RunError
from dgpo_cli.meeting import Meeting
from dgpo_cli.progress import beat, together
from dgpo_cli.traffic import CONTROL, TRAFFIC

T = TypeVar("T")
R = TypeVar("R")
# Words in the errors of gloo and NCCL when a process at the other end is gone.
LOST = ("gloo", "nccl", "connection", "socket", "peer")
# So long that it never ends a wait. A collective cannot tell a process that grades for an hour from one that hangs; the
# watchdogs can (training/watchdog.py).
COLLECTIVE_PATIENCE = timedelta(days=7)
NOTED = "noted"  # a key in the store


class LostProcess(RunError):
    """Another process of the run is gone: its own message says why."""

    exit_code = 76


@dataclass
class Processes:
    """The processes of a run, seen from one of them. `beat` is called whenever they have got further together."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    group: Any = None  # gloo
    store: Any = None  # where all of them met, over a connection of this object's own
    beat: Callable[[], None] = field(default=beat)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # where it computes

    @property
    def main(self) -> bool:
        """Whether this one owns the folder, the terminal and every decision that is not the same everywhere."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.size == 1

    def from_main(self, value: T, kind: str = CONTROL, meanwhile: Callable[[], object] | None = None) -> T:
        """The main process's value, in every process. kind: of traffic.py.

        `meanwhile` is called in the others while the main one is waited for.
        """
        if self.alone:
            return value
        content = collectives.packed(value) if self.main else None
        found = self._counted(kind, lambda way: collectives.from_main(content, way, None if self.main else meanwhile))
        return value if self.main else collectives.unpacked(found)

    def gathered(self, value: T, kind: str = CONTROL) -> list[T]:
        """The values of all processes, by rank: small ones. kind: of traffic.py."""
        if self.alone:
            return [value]
        found = self._counted(kind, lambda way: collectives.from_all(collectives.packed(value), way))
        return [collectives.unpacked(part) for part in found]

    def to_main(self, value: T, kind: str) -> list[T]:
        """The values of all processes, by rank, in the main one; an empty list in the others. kind: of traffic.py."""
        if self.alone:
            return [value]
        found = self._counted(kind, lambda way: collectives.to_main(collectives.packed(value), way))
        return [collectives.unpacked(part) for part in found]

    def dealt(self, values: Sequence[T], kind: str) -> T:
        """Of the main process's values, one for each process, this one's; the others give nothing that counts."""
        if self.alone:
            return values[0]
        contents = [collectives.packed(value) for value in values] if self.main else None
        mine = self._counted(kind, lambda way: collectives.dealt(contents, way))
        return values[0] if self.main else collectives.unpacked(mine)

    def rows_from_all(self, values: Tensor, counts: Sequence[int], kind: str) -> list[Tensor]:
        """Columns [k, n] of each process, by rank: counts[rank] of them, as every process knows."""
        if self.alone:
            return [values]
        return self._counted(kind, lambda way: collectives.rows_from_all(values, counts, way))

    def rows_to_main(self, values: Tensor, kind: str) -> list[Tensor]:
        """Columns [k, n] of each process, by rank, in the main one; an empty list in the others."""
        if self.alone:
            return [values]
        return self._counted(kind, lambda way: collectives.rows_to_main(values, way))

    def total(self, values: Tensor, kind: str = CONTROL) -> Tensor:
        """The sum over the processes of a tensor on the CPU, in place. kind: of traffic.py."""
        if not self.alone:
            with self._together():
                dist.all_reduce(values, group=self.group)
            TRAFFIC.count(kind, 2 * values.nbytes * (self.size - 1))
        return values

    def highest(self, *values: int, meanwhile: Callable[[], object] | None = None) -> list[int]:
        """The largest of each number over the processes. `meanwhile` is called while the others are waited for."""
        if self.alone:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.int64)
        with self._together():
            work = dist.all_reduce(numbers, op=dist.ReduceOp.MAX, group=self.group, async_op=meanwhile is not None)
            collectives.wait(work, meanwhile)
        TRAFFIC.count(CONTROL, 2 * numbers.nbytes * (self.size - 1))
        return [int(number) for number in numbers]

    def note(self, number: int) -> None:
        """Leave a number, not 0, where the others find it without a message; one for the whole run."""
        if self.store is not None:
            with watching_for_loss():
                self.store.set(NOTED, str(number))

    def noted(self) -> int:
        """The number that a process has left; 0 for none."""
        if self.store is None:
            return 0
        with watching_for_loss():
            return int(self.store.get(NOTED)) if self.store.check([NOTED]) else 0

    def agreed(self, action: Callable[[], T]) -> T:
        """Run `action` everywhere. If it fails in one process, all raise that error: none goes on alone."""
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
        """Run `action`. If one process lacks memory for it, all of them fail, so that they can try again together.

        apart: no process waits for another within `action`. Otherwise it is simply run: a process that fails could not
        tell the others, which wait for it.
        after_each: `action` calls it after each of its `rounds`, and the processes may talk to each other in it. A
        process that fails calls it for the rounds that are left, because the others count on that.

        Raises:
            torch.OutOfMemoryError: everywhere, if an allocation failed in one process.
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

    def _counted(self, kind: str, send: Callable[[Way], tuple[R, int]]) -> R:
        """What `send` gives, over the way to the others; the bytes that it moved are counted."""
        with self._together():
            found, arrived = send(Way(self.rank, self.size, self.group, self.device))
        TRAFFIC.count(kind, arrived)
        return found

    @contextmanager
    def _together(self) -> Iterator[None]:
        with watching_for_loss(), together():
            yield
        self.beat()


SOLO = Processes()


@contextmanager
def watching_for_loss() -> Iterator[None]:
    """Turn the errors of a broken connection into LostProcess."""
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
    """The GPU of a process. If a scheduler shows each process only its own GPU, that is the first one it sees."""
    return local_rank % torch.cuda.device_count()


def join(meeting: Meeting, *, device: str, connect_seconds: float) -> Processes:
    """Connect the processes that have met, and try one collective with them.

    Raises:
        RunError: they cannot talk to each other within `connect_seconds`.
    """
    here = meeting.here
    backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    if device == "cuda":
        torch.cuda.set_device(gpu_of(here.local_rank))
    with together():
        dist.init_process_group(
            backend, store=meeting.store, rank=here.rank, world_size=here.size, timeout=COLLECTIVE_PATIENCE
        )
        group = dist.new_group(backend="gloo", timeout=COLLECTIVE_PATIENCE)
        on = torch.device("cpu" if device == "cpu" else f"cuda:{gpu_of(here.local_rank)}")
        processes = Processes(here.rank, here.size, here.local_rank, group, meeting.store.clone(), device=on)
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
