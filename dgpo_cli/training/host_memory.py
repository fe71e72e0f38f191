"""Whether a run on the CPU fits in memory, asked before its first step: there the kernel kills what does not.

A lower bound: what it refuses cannot fit, what it lets through may still be too much.
"""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from dgpo_cli.errors import ConfigError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.planning.architecture import BFLOAT, FLOAT, Adapters, from_content
from dgpo_cli.planning.pieces import moment_bytes
from dgpo_cli.processes import Processes

GRADIENT = 4  # bytes a trained weight, in float32
CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
BOOT = Path("/proc/sys/kernel/random/boot_id")  # tells machines apart that have the same name


@dataclass(frozen=True)
class Sharers:
    """The processes of a run, as memory sees them."""

    here: int = 1  # that take from the memory that this one takes from
    shards: int = 1  # over which weights, gradients and moments are spread


def sharers_of(processes: Processes, *, sharded: bool) -> Sharers:
    """For all processes together. Another machine, container or control group has memory of its own."""
    place = (socket.gethostname(), _text(BOOT).strip(), _text(OWN_GROUPS))
    return Sharers(processes.gathered(place).count(place), processes.size if sharded else 1)


def check_memory(
    model: LanguageModel,
    *,
    positions: int,
    micro_batches: int = 2,
    checkpointing: bool = False,
    moments_to_come: bool = True,
    states: str = "float32",
    sharers: Sharers = Sharers(),
    available: int | None = None,
) -> None:
    """Whether every process of this machine finds what it will take.

    positions: of a process's largest micro-batch; micro_batches: of its part of an update. moments_to_come: False where
    a checkpoint brought them. states: of the optimizer, float32 | 8bit. available: bytes, the machine's where None.

    Weights and reference are in memory already; gradients, AdamW's moments and a micro-batch's activations are to come,
    as the plan counts them (planning/memory.py). Where an update has one micro-batch, gradients take the place of its
    activations as its backward goes on.

    Raises:
        ConfigError: they do not fit.
    """
    tensors = [weight.numel() for weight in model.model.parameters() if weight.requires_grad]
    moments = bytes_of_moments(model, states) // sharers.shards
    parts = {
        "gradients": sum(tensors) // sharers.shards * GRADIENT,
        "optimizer": moments if moments_to_come else 0,
        "micro-batch": positions * _bytes_of_a_position(model, checkpointing=checkpointing),
    }
    need = sum(parts.values())
    if micro_batches == 1:
        need -= min(parts["gradients"], parts["micro-batch"])
    shared = shared_bytes() if available is None else available
    free = min(shared // sharers.here, available_bytes() if available is None else available)
    if need <= free:
        return
    listed = ", ".join(f"{name} {size / 2**30:.2f} GiB" for name, size in parts.items() if size)
    several = sharers.here > 1
    who = f"each of {sharers.here} processes" if several else "it"
    raise ConfigError(
        f"this run does not fit in memory: beside its weights {who} needs {need / 2**30:.2f} GiB "
        f"({listed}), {free / 2**30:.2f} GiB are free{' for each' if several else ''}",
        "a smaller model; optim.tokens_per_microbatch=TOKENS makes the micro-batch smaller"
        + ("; a smaller strategy.num_processes" if several else ""),
    )


def bytes_of_moments(model: LanguageModel, states: str) -> int:
    """AdamW's of all trained weights. states: of the optimizer, float32 | 8bit."""
    return sum(moment_bytes(weight.numel(), states) for weight in model.model.parameters() if weight.requires_grad)


def shared_bytes() -> int:
    """What the processes of this machine can still take together: the least of its memory and the control groups'."""
    return max(0, min([int(psutil.virtual_memory().available), *_cgroup_bytes()]))


def available_bytes() -> int:
    """What this process can still take: the least of what all can and its own limit."""
    free = [shared_bytes()]
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        free.append(limit - int(psutil.Process().memory_info().vms))
    return max(0, min(free))


def _bytes_of_a_position(model: LanguageModel, *, checkpointing: bool) -> int:
    """What the layers keep of a position for the backward pass, at least; 0 for an architecture without these sizes."""
    try:
        sizes = from_content(model.model.config.to_dict())
    except ValueError:
        return 0
    low = model.compute_dtype is torch.bfloat16 or model.model.dtype is torch.bfloat16
    element = BFLOAT if low else FLOAT
    if checkpointing:
        return sizes.layers * sizes.hidden_size * element
    if model.adapter is not None:
        return sizes.layers * sizes.saved_bytes_of_adapters(element, Adapters())
    return sizes.layers * sizes.saved_bytes(element)


def _cgroup_bytes() -> Iterator[int]:
    """Free bytes in this process's control group and those around it, of either version."""
    names = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))
    for line in _text(OWN_GROUPS).splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = CGROUPS / controllers
        folder = root / place.lstrip("/")
        for group in (folder, *folder.parents):
            for limit_name, used_name in names:
                limit, used = _text(group / limit_name).strip(), _text(group / used_name).strip()
                if limit.isdigit() and used.isdigit():
                    yield int(limit) - int(used) + _reclaimable(group)
            if group == root:
                break


def _reclaimable(group: Path) -> int:
    """Pages of files, which the kernel drops when it needs room."""
    rows = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines() if " " in line)
    return int(rows.get("total_inactive_file", rows.get("inactive_file", "0")))


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8")
    return ""
