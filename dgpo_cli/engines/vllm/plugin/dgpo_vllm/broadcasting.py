"""A process group apart from all others, and buckets sent over it. Both ends read this one file.

Rank 0 is the trainer's main process, the others are the workers of all servers: gloo between CPUs, NCCL between GPUs.
Each bucket is two sizes, a header and the bytes; an empty header ends an update.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore


def group_over(
    store: Any, *, rank: int, size: int, seconds: float, device: torch.device, address: str, key: str
) -> Any:
    """A process group over a store that is open.

    Args:
        address: of this process, as the others reach it.
        key: names the group in the store.

    Raises:
        RuntimeError: not all have come within `seconds`.
    """
    patience = timedelta(seconds=seconds)
    named = PrefixStore(key, store)
    if device.type == "cuda":
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = patience
        return dist.ProcessGroupNCCL(named, rank, size, options)
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = patience
    options._devices = [gloo.create_device(hostname=address)]
    return gloo(named, rank, size, options)


def broadcast(group: Any, tensor: Tensor, *, seconds: float) -> None:
    """From rank 0 to all, in place.

    Raises:
        RuntimeError: a peer is gone, or not there in time.
    """
    options = dist.BroadcastOptions()
    options.rootRank, options.rootTensor = 0, 0
    options.timeout = timedelta(seconds=seconds)
    work = group.broadcast([tensor], options)
    work.wait(timedelta(seconds=seconds))


def send(group: Any, device: torch.device, text: str, parts: list[Tensor], *, seconds: float) -> None:
    """A bucket, from rank 0: its header and the bytes of its tensors. An empty text ends the update."""
    encoded = text.encode()
    count = sum(part.numel() for part in parts)
    broadcast(group, torch.tensor([len(encoded), count], device=device), seconds=seconds)
    if not encoded:
        return
    broadcast(group, torch.frombuffer(bytearray(encoded), dtype=torch.uint8).to(device), seconds=seconds)
    if count:
        broadcast(group, torch.cat(parts).to(device), seconds=seconds)
