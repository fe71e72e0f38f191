"""The output head of a sharded model, put together for a pass: the rows of all processes as one [V, D].

It travels in the dtype of the pass, over the device that computes, wherever its shards rest. Rows that are cast before
they are gathered are the same numbers as after. The gradient of a head in bfloat16 travels in bfloat16, too, and is
added up in float32: each process gets what the others found for its rows, and nothing is rounded on the way.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributed.tensor import DTensor, Shard
from torch.nn.functional import pad

from dgpo_cli.core.output_head import is_low
from dgpo_cli.progress import together
from dgpo_cli.traffic import GRADIENTS, HEADS, TRAFFIC

# torch 2.13 gave them other names, and warns of the old ones.
_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gathered(weight: Tensor, device: torch.device, dtype: torch.dtype, kept: Tensor | None = None) -> Tensor:
    """A sharded weight as a whole on `device` in `dtype`: its gradients are summed back into the shards.

    kept: the whole without its gradient, if a call before this one has gathered it and no weight has moved since.
    """
    if not isinstance(weight, DTensor):
        return weight
    rows = weight.to_local(grad_placements=[Shard(0)])
    whole = _whole(rows.detach(), weight.shape[0], device, dtype) if kept is None else kept
    found: Tensor = _OfShards.apply(rows, whole)
    return found


def _whole(rows: Tensor, count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The `count` rows of all processes, which hold equally many of them but for the last ones."""
    size = dist.get_world_size()
    each = -(-count // size)
    mine = _padded(rows.to(dtype).to(device), each)
    whole = torch.empty(each * size, *rows.shape[1:], dtype=dtype, device=device)
    with together():
        _gather(_as_bytes(whole), _as_bytes(mine))
    TRAFFIC.count(HEADS, whole.nbytes * (size - 1))
    return whole[:count]


class _OfShards(torch.autograd.Function):
    """The whole as it is; backwards its gradient, summed over the processes, as the rows of each."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, whole: Tensor) -> Tensor:
        ctx.rows = rows.new_empty(0), len(rows)
        return whole.view_as(whole)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        like, count = ctx.rows
        size = dist.get_world_size()
        each = -(-len(gradient) // size)
        sent = _padded(gradient, each * size)
        with together():
            if is_low(sent.dtype):
                parts = torch.empty_like(sent)
                dist.all_to_all_single(_as_bytes(parts), _as_bytes(sent))
                summed = parts.view(size, each, *sent.shape[1:]).sum(0, dtype=torch.float32)
            else:
                summed = torch.empty(each, *sent.shape[1:], dtype=sent.dtype, device=sent.device)
                _reduce(summed, sent)
        TRAFFIC.count(GRADIENTS, sent.nbytes * (size - 1))
        return summed[:count].to(like), None


def _padded(rows: Tensor, count: int) -> Tensor:
    missing = count - len(rows)
    return (pad(rows, (0, 0) * (rows.ndim - 1) + (0, missing)) if missing else rows).contiguous()


def _as_bytes(tensor: Tensor) -> Tensor:
    """The same memory, if its dtype is one that not every backend sends."""
    return tensor.view(torch.uint8) if is_low(tensor.dtype) else tensor
