"""What a worker holds of each weight of a checkpoint: which part of it, and the hash of that part.

vLLM puts weights together (q, k and v; gate and up), cuts them over tensor-parallel workers, and on a CPU packs them
so that they cannot be read any more. All of that is undone here, to tell which weights are not those of the trainer.
It answers after something went wrong, so it may take its time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from vllm.model_executor.layers.linear import (
    ColumnParallelLinear,
    LinearBase,
    MergedColumnParallelLinear,
    QKVParallelLinear,
    RowParallelLinear,
)
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

from dgpo_vllm.loading import tied_heads

BLOCK = 512  # columns of a packed weight that are read at a time
Part = tuple[str, int, int, Tensor]  # name in the checkpoint, dimension that is cut, first index, what is held


@torch.no_grad()
def held(model: Any) -> list[dict[str, Any]]:
    """Of every weight: `name`, `of` (the checkpoint's name of it), `dim`, `start`, `length`, `sha256` of that part."""
    tied = tied_heads(model)
    found = []
    for name, dim, start, part in _parts(model):
        owner = name.removesuffix(".weight")
        of = f"{tied[owner]}.weight" if owner in tied and name.endswith(".weight") else name
        facts = {"name": name, "of": of, "dim": dim, "start": start, "length": part.shape[dim]}
        found.append(facts | {"sha256": value_hash(part)})
    return found


def value_hash(part: Tensor) -> str:
    """SHA-256 of values; -0.0 counts as 0.0, which a product cannot tell apart."""
    values = (part.detach().cpu() + 0.0).contiguous().reshape(-1)
    return hashlib.sha256(values.view(torch.uint8).numpy().data).hexdigest()


def _parts(model: Any) -> Iterator[Part]:
    fused = dict(getattr(model, "packed_modules_mapping", {}))
    for name, module in model.named_modules():
        if isinstance(module, VocabParallelEmbedding):
            yield from _rows(name, module)
        elif isinstance(module, LinearBase):
            yield from _linear(name, module, fused)
        else:
            for own, parameter in module.named_parameters(recurse=False):
                yield (f"{name}.{own}", 0, 0, parameter)


def _rows(name: str, module: Any) -> Iterator[Part]:
    """Of an embedding or a head: rows of the vocabulary, without the padding."""
    indices = module.shard_indices
    count = indices.num_org_elements
    weight = _weight(module) if isinstance(module, ParallelLMHead) else module.weight
    yield (f"{name}.weight", 0, indices.org_vocab_start_index, weight[:count])
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        yield (f"{name}.bias", 0, indices.org_vocab_start_index, bias[:count])


def _linear(name: str, module: Any, fused: dict[str, list[str]]) -> Iterator[Part]:
    weight, bias = _weight(module), getattr(module, "bias", None)
    parent, _, last = name.rpartition(".")
    at = 0
    for sub, (start, length) in zip(fused.get(last, [last]), _shares(module, weight), strict=True):
        whole = f"{parent}.{sub}" if parent else sub
        if isinstance(module, RowParallelLinear):
            yield (f"{whole}.weight", 1, start, weight)
            if bias is not None:
                yield (f"{whole}.bias", 0, 0, bias)
            return
        yield (f"{whole}.weight", 0, start, weight[at : at + length])
        if bias is not None:
            yield (f"{whole}.bias", 0, start, bias[at : at + length].to(weight.dtype))
        at += length


def _shares(module: Any, weight: Tensor) -> list[tuple[int, int]]:
    """(first row, rows) that this worker holds of each weight of a layer; columns of a row-parallel one."""
    if isinstance(module, QKVParallelLinear):
        rank, size = module.tp_rank, module.head_size
        queries, keys = module.num_heads * size, module.num_kv_heads * size
        group = rank // module.num_kv_head_replicas
        return [(rank * queries, queries), (group * keys, keys), (group * keys, keys)]
    if isinstance(module, MergedColumnParallelLinear):
        each = [rows // module.tp_size for rows in module.output_sizes]
        return [(module.tp_rank * rows, rows) for rows in each]
    if isinstance(module, ColumnParallelLinear):
        return [(module.tp_rank * weight.shape[0], weight.shape[0])]
    if isinstance(module, RowParallelLinear):
        return [(module.tp_rank * weight.shape[1], weight.shape[1])]
    return [(0, weight.shape[0])]


def _weight(module: Any) -> Tensor:
    """The weight [out, in] that a layer computes with: on a CPU read through its kernel, one column a unit vector."""
    if not hasattr(module, "cpu_linear"):
        return module.weight  # type: ignore[no-any-return]
    columns = _columns(module)
    dtype = module.params_dtype
    blocks = []
    for start in range(0, columns, BLOCK):
        length = min(BLOCK, columns - start)
        unit = torch.zeros(length, columns, dtype=dtype)
        unit[torch.arange(length), torch.arange(start, start + length)] = 1
        blocks.append(module.cpu_linear(unit, module.weight, None).T)
    return torch.cat(blocks, dim=1)


def _columns(module: Any) -> int:
    if isinstance(module, VocabParallelEmbedding):
        return int(module.embedding_dim)
    return int(getattr(module, "input_size_per_partition", module.input_size))
