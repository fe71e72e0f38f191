"""Which weights of a server are not those of the trainer: a hash of each on both sides, or of each worker's part."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from dgpo_cli.engines.vllm.conversation import Conversation
from dgpo_cli.engines.vllm.updates import Named
from dgpo_cli.errors import RunError
from dgpo_cli.processes import SOLO, Processes

# The name that the server gives a weight, the dimension that is cut, first index, length, hash.
Part = tuple[str, int, int, int, str]


def different(urls: Sequence[str], tensors: Named, processes: Processes = SOLO, *, seconds: float = 600.0) -> list[str]:
    """Names of the weights of any server that differ from `tensors`, or that it does not have, in the servers' order.

    Every process goes through all of `tensors` (`exported`) and gets the names. Negative and positive zero are alike.

    Raises:
        RunError: a server does not say what it holds.
    """

    def found() -> list[str]:
        parts = _held(urls, seconds) if processes.main else {}
        try:
            return _compared(parts, tensors)
        finally:
            for _ in tensors:
                pass

    names: list[str] = processes.from_main(processes.agreed(found))
    return names


def _held(urls: Sequence[str], seconds: float) -> dict[str, list[Part]]:
    """What all workers hold of each weight of a checkpoint."""
    parts: dict[str, list[Part]] = defaultdict(list)
    for url in urls:
        for answer in Conversation(url, timeout_seconds=seconds).calls("dgpo_held"):
            if refused := answer.get("refused") or answer.get("error"):
                raise RunError(f"{url}: it cannot say what weights it holds: {refused}", "its log may say why")
            for one in answer["held"]:
                part = (str(one["name"]), int(one["dim"]), int(one["start"]), int(one["length"]), str(one["sha256"]))
                parts[str(one["of"])].append(part)
    return parts


def _compared(parts: dict[str, list[Part]], tensors: Named) -> list[str]:
    wrong: dict[str, None] = {}
    for name, tensor in tensors:
        if not parts:
            continue
        held = parts.pop(name, [])
        if not held:
            wrong[name] = None
        for own, dim, start, length, sha256 in held:
            if start + length > tensor.shape[dim] or value_hash(tensor.narrow(dim, start, length)) != sha256:
                wrong[own] = None
    return list(wrong)


def value_hash(part: Tensor) -> str:
    """As the plugin's `held.value_hash`."""
    values = (part.detach().cpu() + 0.0).contiguous().reshape(-1)
    return hashlib.sha256(values.view(torch.uint8).numpy().data).hexdigest()
