"""Weights taken from the trainer's process group (broadcasting.py), and checked.

What was received lies in the memory of the host until it is loaded. A worker that has found a fault receives on to the
end, or everybody else would hang.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

from dgpo_vllm.broadcasting import broadcast, group_over
from dgpo_vllm.manifest import Entry, Refused, Stamp, check_tensor, read_header


def open_group(
    *, host: str, port: int, rank: int, size: int, seconds: float, device: torch.device, address: str, key: str
) -> Any:
    """A process group of its own, over gloo between CPUs and over NCCL between GPUs.

    Args:
        host, port: where the trainer's main process keeps the store.
        address: of this process, as the others reach it.
        key: names the group in the store.

    Raises:
        RuntimeError: not all have come within `seconds`.
    """
    patience = timedelta(seconds=seconds)
    store = TCPStore(host, port, None, is_master=False, timeout=patience)
    return group_over(store, rank=rank, size=size, seconds=seconds, device=device, address=address, key=key)


@dataclass
class Received:
    """An update as it came over the group."""

    stamp: Stamp
    entries: list[Entry] = field(default_factory=list)
    held: list[tuple[str, Tensor]] = field(default_factory=list)

    def receive(self, group: Any, device: torch.device, seconds: float) -> None:
        """Take buckets until the last one, and check each.

        Raises:
            Refused: something is not what its manifest says; raised after the last bucket.
            RuntimeError: the trainer is gone, or a bucket did not come within `seconds`.
        """
        fault: Refused | None = None
        number = 0
        while (content := _next(group, device, seconds)) is not None:
            text, flat = content
            if fault is None:
                try:
                    self._take(text, flat, number)
                except Refused as refused:
                    fault, self.held = refused, []
            number += 1
        if fault is not None:
            raise fault

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, in the order in which they came; each is let go of as soon as the next is asked for."""
        waiting = self.held[::-1]
        self.held = []
        while waiting:
            yield waiting.pop()

    def _take(self, text: str, flat: Tensor, number: int) -> None:
        at = 0
        for entry in read_header(text, self.stamp, number):
            dtype = getattr(torch, entry.dtype, None)
            if not isinstance(dtype, torch.dtype):
                raise Refused(f"{entry.name} has the dtype {entry.dtype}, which torch does not know")
            end = at + entry.bytes
            if end > flat.numel():
                raise Refused(f"bucket {number} is shorter than its manifest says")
            tensor = flat[at:end].clone().view(dtype).reshape(entry.shape)
            check_tensor(self.stamp, entry, tensor)
            self.entries.append(entry)
            self.held.append((entry.name, tensor))
            at = end
        if at != flat.numel():
            raise Refused(f"bucket {number} is longer than its manifest says")


def _next(group: Any, device: torch.device, seconds: float) -> tuple[str, Tensor] | None:
    """Header and bytes [n] of the next bucket, on the CPU; None after the last."""
    sizes = torch.zeros(2, dtype=torch.int64, device=device)
    broadcast(group, sizes, seconds=seconds)
    characters, count = sizes.tolist()
    if not characters:
        return None
    text = torch.empty(characters, dtype=torch.uint8, device=device)
    broadcast(group, text, seconds=seconds)
    flat = torch.empty(count, dtype=torch.uint8, device=device)
    if count:
        broadcast(group, flat, seconds=seconds)
    return bytes(text.cpu().numpy()).decode(), flat.cpu()
