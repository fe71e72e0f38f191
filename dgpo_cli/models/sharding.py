"""A model sharded over the processes of a run: torch's `fully_shard`, on GPUs and, over gloo, on CPUs alike.

Each layer of the body is gathered when it computes and let go after; so is the body's rest (embedding, last norm). The
output head is never called as a layer (scoring streams over its rows): gathered_head.py puts it together for a pass.
Weights, reduction and moments stay in their own dtype (float32), forward and backward are in `compute_dtype`. Gradients
are summed over the processes, never averaged.

accelerate is not used for this: on a CPU its FSDP plugin turns into DDP without a word, so a test there would not hold
the code that runs on GPUs. Which model is sharded, placement.py says; sharded models are saved in saving.py.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.fsdp._fully_shard._fsdp_collectives import DefaultAllGather, DefaultReduceScatter
from torch.distributed.tensor import DTensor

from dgpo_cli.models.adapted_layers import layers_of
from dgpo_cli.progress import together
from dgpo_cli.traffic import CHECKPOINT, GRADIENTS, TRAFFIC, WEIGHTS


@dataclass(frozen=True)
class ShardSettings:
    """How a model is spread over the processes."""

    device: torch.device
    compute_dtype: torch.dtype
    rest_on_cpu: bool  # shards lie in CPU memory and come to the device for a pass
    keep_whole: bool  # while sampling, which reads every weight for every token


def is_sharded(weight: Tensor) -> bool:
    return isinstance(weight, DTensor)


def local(weight: Tensor) -> Tensor:
    """This process's rows of a sharded tensor; any other tensor as it is."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def full(weight: Tensor, kind: str = CHECKPOINT) -> Tensor:
    """The whole tensor, on every process; any other tensor as it is. Every process has to ask. kind: of traffic.py."""
    if not isinstance(weight, DTensor):
        return weight
    with together():
        whole: Tensor = weight.full_tensor()
    _count(kind, whole)
    return whole


def whole_on(weight: Tensor, rank: int, device: torch.device) -> Tensor | None:
    """The whole tensor on the CPU, in the process `rank` alone; None in the others. Every process has to ask.

    A sharded one goes there over `device`, a shard from each. Any other tensor is copied, for it may change.
    """
    here, size = dist.get_rank(), dist.get_world_size()
    if not isinstance(weight, DTensor):
        return weight.detach().cpu().clone() if rank == here else None
    mine, rows = local(weight.detach()).to(device), weight.shape[0]
    each = -(-rows // size)
    sent = torch.cat([mine, mine.new_empty(each - len(mine), *mine.shape[1:])])
    whole = sent.new_empty(each * size, *sent.shape[1:]) if rank == here else None
    with together():
        dist.gather(sent, None if whole is None else list(whole.split(each)), dst=rank)
    TRAFFIC.count(CHECKPOINT, sent.nbytes * (size - 1))
    return None if whole is None else whole[:rows].cpu()


def _count(kind: str, whole: Tensor) -> None:
    """A whole that is gathered from all processes, sent to all, or summed into their shards."""
    TRAFFIC.count(kind, whole.nbytes * (dist.get_world_size() - 1))


class _CountedAllGather(DefaultAllGather):
    """What `fully_shard` takes by itself to gather a layer, and counts."""

    def __call__(self, output_tensor: Tensor, *args: Any, **named: Any) -> Any:
        _count(WEIGHTS, output_tensor)
        return super().__call__(output_tensor, *args, **named)


class _CountedReduceScatter(DefaultReduceScatter):
    """What `fully_shard` takes by itself to sum a layer's gradient, and counts."""

    def __call__(self, output_tensor: Tensor, input_tensor: Tensor, *args: Any, **named: Any) -> Any:
        _count(GRADIENTS, input_tensor)
        return super().__call__(output_tensor, input_tensor, *args, **named)


def skeleton_of(model: Any) -> Any:
    """A copy of a model on the meta device: its modules, names, shapes and dtypes, and no memory."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        twin = torch.empty_like(tensor, device="meta")
        if isinstance(tensor, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, requires_grad=tensor.requires_grad)
        memo[id(tensor)] = twin
    return copy.deepcopy(model, memo)  # finds each tensor in `memo`, as if it were copied already


def shard(skeleton: Any, settings: ShardSettings, source: Any | None) -> None:
    """Spread a model on the meta device over all processes, in place, and fill it from `source`, which rank 0 holds.

    One tensor at a time goes out. So no process but rank 0 ever holds more than its shards and one whole weight.
    """
    body, embedding, head = skeleton.base_model, skeleton.get_input_embeddings(), skeleton.get_output_embeddings()
    tied = head.weight is embedding.weight
    options = _options(settings)
    for layer in layers_of(body):
        fully_shard(layer, **options)
    # By default the outermost is left gathered after a forward pass, in `compute_dtype`, and would be saved like that.
    fully_shard(body, reshard_after_forward=True, **options)
    if tied:
        head.weight = embedding.weight
    else:
        fully_shard(head, **options)
    _sum_gradients(skeleton)
    skeleton.to_empty(device="cpu" if settings.rest_on_cpu else settings.device)
    if tied:
        head.weight = embedding.weight  # to_empty made two of it
    fill(skeleton, settings.device, source)
    if settings.rest_on_cpu:
        _move_buffers(skeleton, settings.device)


def _options(settings: ShardSettings) -> dict[str, Any]:
    """Of `fully_shard`."""
    offload = CPUOffloadPolicy(pin_memory=settings.device.type == "cuda") if settings.rest_on_cpu else OffloadPolicy()
    return {
        "mesh": init_device_mesh(settings.device.type, (dist.get_world_size(),)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=settings.compute_dtype, reduce_dtype=torch.float32),
        "offload_policy": offload,
    }


def _sum_gradients(model: Any) -> None:
    """By default `fully_shard` takes their mean over the processes. A loss here is divided before (`token_weights`)."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_custom_all_gather(_CountedAllGather())
            module.set_custom_reduce_scatter(_CountedReduceScatter())
            module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def _move_buffers(model: Any, device: torch.device) -> None:
    """Weights rest on the CPU and come to the device for a pass; buffers (rotary frequencies) do not come with them."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))


@torch.no_grad()
def fill(model: Any, device: torch.device, source: Any | None) -> None:
    """Put the weights and buffers of rank 0's `source` into the shards of `model`."""
    given = dict(_tensors(source)) if source is not None else {}
    for name, target in _tensors(model):
        whole = torch.empty(target.shape, dtype=target.dtype, device=device)
        if given:
            whole.copy_(given[name])
        with together():
            dist.broadcast(whole, src=0)
        _count(WEIGHTS, whole)
        if is_sharded(target):
            start, stop = rows_of(target.shape[0], dist.get_rank(), dist.get_world_size())
            whole = whole[start:stop]
        local(target).copy_(whole)


def rows_of(rows: int, rank: int, size: int) -> tuple[int, int]:
    """The rows [start, stop) of a tensor that a process holds: `fully_shard` cuts the first dimension evenly, up."""
    each = -(-rows // size)
    return min(rank * each, rows), min((rank + 1) * each, rows)


@contextmanager
def kept_whole(model: Any) -> Iterator[None]:
    """Within, layers stay gathered between passes (no gradients)."""
    body = model.base_model
    body.set_reshard_after_forward(False, recurse=True)
    try:
        yield
    finally:
        body.set_reshard_after_forward(True, recurse=True)
        for module in body.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def _tensors(model: Any) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]
