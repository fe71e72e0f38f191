"""Bytes and rows between the processes of a run: to all, to the main one, from it to each. Nothing here knows whose.

Small things go between CPUs, over gloo. Large ones go where the device has a way of its own (NCCL between GPUs).
Each function gives what this process got, and the bytes that arrived in all of them together.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad

LARGE = 1 << 20  # bytes from which on the way over the device is worth a copy there and back
WAIT_SECONDS = 0.01  # between two looks whether all have come
LENGTH = 8  # bytes of a length that is sent before


@dataclass(frozen=True)
class Way:
    """How a process reaches the others. group: gloo's, of all; device: where it computes."""

    rank: int
    size: int
    group: Any
    device: torch.device

    def of(self, large: bool) -> tuple[Any, torch.device]:
        """The group and the device that something is sent over."""
        over_device = large and self.device.type == "cuda"
        return (None, self.device) if over_device else (self.group, torch.device("cpu"))


def packed(value: object) -> Tensor:
    """Any value as bytes [n]."""
    return torch.frombuffer(bytearray(pickle.dumps(value, pickle.HIGHEST_PROTOCOL)), dtype=torch.uint8)


def unpacked(content: Tensor) -> Any:
    """The value, which another process of this run has packed."""
    return pickle.loads(content.numpy().data)


def from_main(content: Tensor | None, way: Way, meanwhile: Callable[[], object] | None = None) -> tuple[Tensor, int]:
    """Bytes of rank 0, the others give None, in all. `meanwhile` is called while rank 0 is waited for."""
    length = torch.tensor([0 if content is None else len(content)])
    wait(dist.broadcast(length, src=0, group=way.group, async_op=meanwhile is not None), meanwhile)
    group, device = way.of(int(length) >= LARGE)
    sent = torch.empty(int(length), dtype=torch.uint8, device=device) if content is None else content.to(device)
    dist.broadcast(sent, src=0, group=group)
    return sent.cpu() if content is None else content, (LENGTH + int(length)) * (way.size - 1)


def from_all(content: Tensor, way: Way) -> tuple[list[Tensor], int]:
    """The bytes of each, by rank, in all. For small ones: they are sent at the length of the longest."""
    lengths, arrived = _lengths(len(content), way)
    longest = max(lengths)
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(way.size)]
    dist.all_gather(parts, pad(content, (0, longest - len(content))), group=way.group)
    found = [part[:length] for part, length in zip(parts, lengths, strict=True)]
    return found, arrived + longest * way.size * (way.size - 1)


def to_main(content: Tensor, way: Way) -> tuple[list[Tensor], int]:
    """The bytes of each, by rank, in rank 0; nothing in the others."""
    lengths, arrived = _lengths(len(content), way)
    arrived += sum(lengths[1:])
    parts = [torch.empty(length, dtype=torch.uint8) for length in lengths]
    _to_main(content, parts, way.rank, way.group)
    return [] if way.rank else [content, *parts[1:]], arrived


def dealt(parts: Sequence[Tensor] | None, way: Way) -> tuple[Tensor, int]:
    """Rank 0's part for this process. parts: in rank 0, one for each; None in the others."""
    lengths = torch.tensor([0] * way.size if parts is None else [len(part) for part in parts])
    dist.broadcast(lengths, src=0, group=way.group)
    arrived = LENGTH * way.size * (way.size - 1) + int(lengths[1:].sum())
    if parts is None:
        mine = torch.empty(int(lengths[way.rank]), dtype=torch.uint8)
        dist.recv(mine, src=0, group=way.group)
        return mine, arrived
    _all_of([dist.isend(part, dst=rank, group=way.group) for rank, part in enumerate(parts) if rank])
    return parts[0], arrived


def rows_from_all(values: Tensor, counts: Sequence[int], way: Way) -> tuple[list[Tensor], int]:
    """Columns [k, n] of each process, which has counts[rank] of them, by rank, in all. One of the k rows at a time.

    So a device never holds more of it than one number of every column.
    """
    group, device = way.of(4 * sum(counts) >= LARGE)
    longest = max(counts)
    wholes = [torch.empty(len(values), count, dtype=values.dtype) for count in counts]
    for number, row in enumerate(values):
        mine = pad(row, (0, longest - len(row))).to(device)
        parts = [torch.empty_like(mine) for _ in counts]
        dist.all_gather(parts, mine, group=group)
        for whole, part, count in zip(wholes, parts, counts, strict=True):
            whole[number] = part[:count].cpu()
    return wholes, values.element_size() * len(values) * longest * way.size * (way.size - 1)


def rows_to_main(values: Tensor, way: Way) -> tuple[list[Tensor], int]:
    """Columns [k, n] of each process, by rank, in rank 0; nothing in the others. One of the k rows at a time."""
    counts, arrived = _lengths(values.shape[1], way)
    group, device = way.of(values.element_size() * sum(counts) >= LARGE)
    arrived += values.element_size() * len(values) * sum(counts[1:])
    wholes = [values, *(torch.empty(len(values), count, dtype=values.dtype) for count in counts[1:])]
    for number, row in enumerate(values):
        parts = [torch.empty(0 if way.rank else count, dtype=values.dtype, device=device) for count in counts]
        _to_main(row.contiguous().to(device), parts, way.rank, group)
        for whole, part in zip(wholes[1:], [] if way.rank else parts[1:], strict=not way.rank):
            whole[number] = part.cpu()
    return [] if way.rank else wholes, arrived


def wait(work: Any, meanwhile: Callable[[], object] | None) -> None:
    """Until a collective is done. Without `meanwhile` no signal's handler runs before that."""
    while meanwhile is not None and not work.is_completed():
        meanwhile()
        time.sleep(WAIT_SECONDS)
    if work is not None:
        work.wait()


def _to_main(mine: Tensor, parts: Sequence[Tensor], rank: int, group: Any) -> None:
    """Send `mine` to rank 0, which puts what it gets into `parts`. Nothing is sent of nothing."""
    if rank:
        if len(mine):
            dist.send(mine, dst=0, group=group)
        return
    _all_of([dist.irecv(part, src=other, group=group) for other, part in enumerate(parts) if other and len(part)])


def _lengths(mine: int, way: Way) -> tuple[list[int], int]:
    found = [torch.tensor([0]) for _ in range(way.size)]
    dist.all_gather(found, torch.tensor([mine]), group=way.group)
    return [int(length) for length in found], LENGTH * way.size * (way.size - 1)


def _all_of(works: Sequence[Any]) -> None:
    for work in works:
        work.wait()
