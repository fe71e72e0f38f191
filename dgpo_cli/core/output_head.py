"""An output head, and its logits one tile at a time.

Owns the record `Head`, the choice of tile sizes, the reusable buffers of a pass and the product that fills a tile of
logits. What is summed over the tiles stands in `running_stats` (scoring) and `streamed_logprob` (training).

A tile is [v, n]: v ids of the vocabulary by n tokens. On a CPU it lies so in memory too: every reduction over ids is
then vertical and runs at the speed of the vector units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from dgpo_cli.core.tile_sizes import TILE_IDS, TILE_TOKENS

MASKED = -1e30  # stands in for a logit of -inf: its probability is exactly 0, and 0 * MASKED is 0 where 0 * inf is NaN
LOG2_E = 1.4426950408889634
LN_2 = 0.6931471805599453

# torch.mm learned out_dtype in 2.8; before, low-precision tiles are cast.
_EMITS_FLOAT32 = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 8)


@dataclass(frozen=True)
class Head:
    """An output head: logits = softcap(scale * hidden @ weight.T + bias), with softcap(z) = c * tanh(z / c).

    weight   [V, D], any float dtype. May be the tied input embedding.
    bias     [V] or None. -inf removes an id from the vocabulary.
    softcap  c of the final logit soft-capping (Gemma), applied before the temperature; None for none.
    scale    multiplies the product before bias and softcap (Cohere's logit_scale, 1 / Granite's logits_scaling).
    """

    weight: Tensor
    bias: Tensor | None = None
    softcap: float | None = None
    scale: float = 1.0

    @property
    def vocab_size(self) -> int:
        return self.weight.shape[0]


@dataclass(frozen=True)
class HeadTile:
    """The rows [start, start + v) of a head in the dtype of the arithmetic."""

    head: Head
    start: int
    weight: Tensor  # [v, D]
    bias: Tensor | None  # [v], no lower than MASKED


@dataclass
class Scratch:
    """Buffers of one pass, by name, grown on demand and reused from tile to tile."""

    dtype: torch.dtype
    device: torch.device
    buffers: dict[str, Tensor] = field(default_factory=dict)

    def take(self, name: str, rows: int, columns: int) -> Tensor:
        """An uninitialised contiguous [rows, columns] view; the next call with this name overwrites it."""
        size = rows * columns
        if name not in self.buffers or self.buffers[name].numel() < size:
            self.buffers[name] = torch.empty(size, dtype=self.dtype, device=self.device)
        return self.buffers[name][:size].view(rows, columns)

    def like(self, name: str, tile: Tensor) -> Tensor:
        """A buffer of the shape and the memory order of `tile`."""
        rows, columns = tile.shape
        return self.take(name, rows, columns) if tile.is_contiguous() else self.take(name, columns, rows).T


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 when an input is (gradient checks), else float32, whatever the inputs."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def tile_shape(
    vocab_size: int, device: torch.device, vocab_chunk: int | None = None, token_chunk: int | None = None
) -> tuple[int, int]:
    """Ids and tokens of a tile: even tiles near the device's best size; more tokens where the vocabulary is small."""
    kind = device.type if device.type in TILE_IDS else "cpu"
    ids, tokens = TILE_IDS[kind], TILE_TOKENS[kind]
    if vocab_chunk is None:
        tiles = max(1, -(-vocab_size // ids))
        even = -(-vocab_size // tiles)
        vocab_chunk = even if tiles == 1 else -(-even // 64) * 64
    if token_chunk is None:
        token_chunk = max(tokens, ids * tokens // max(1, vocab_chunk))
    return vocab_chunk, token_chunk


def token_slices(count: int, token_chunk: int) -> list[slice]:
    return [slice(start, min(start + token_chunk, count)) for start in range(0, count, token_chunk)]


def head_tiles(head: Head, vocab_chunk: int, scratch: Scratch, name: str) -> Iterator[HeadTile]:
    """The head's rows in order. A tile is valid until the next one is asked for: they share the buffer `name`."""
    for start in range(0, head.vocab_size, vocab_chunk):
        weight = head.weight[start : start + vocab_chunk]
        if weight.dtype != scratch.dtype and not native_product(weight, scratch):
            weight = scratch.take(name, *weight.shape).copy_(weight)
        bias = None
        if head.bias is not None:
            bias = head.bias[start : start + vocab_chunk].to(scratch.dtype).clamp_min(MASKED)
        yield HeadTile(head, start, weight, bias)


def is_low(dtype: torch.dtype) -> bool:
    """Whether a sum of products would be rounded to less than float32."""
    return dtype in (torch.bfloat16, torch.float16)


def native_product(weight: Tensor, scratch: Scratch) -> bool:
    """Whether the device multiplies this low-precision dtype itself and emits float32. CPUs are faster after a cast."""
    return emits_float32(weight) and scratch.dtype == torch.float32


def emits_float32(weight: Tensor) -> bool:
    """Whether a product with this low-precision weight can come out in float32 without a copy of the weight."""
    return _EMITS_FLOAT32 and weight.is_cuda and is_low(weight.dtype)


def widened(weight: Tensor) -> Tensor:
    """The weight as `whole_product` multiplies with it: made once where many products follow one another.

    A low-precision weight is copied to float32, its values as they are, unless the device emits float32 from it.
    """
    return weight.float() if is_low(weight.dtype) and not emits_float32(weight) else weight


def whole_product(weight: Tensor, hidden: Tensor) -> Tensor:
    """hidden @ weight.T as [..., V], never rounded below float32; weight [V, D] of any dtype, hidden [..., D].

    For a few tokens, all ids at once: `product` fills tiles. Gradients pass. Not to be called under autocast, which
    would round again.
    """
    if (
        emits_float32(weight)
        and hidden.dtype == weight.dtype
        and not (
            torch.is_grad_enabled() and (weight.requires_grad or hidden.requires_grad)  # a product that has no backward
        )
    ):
        flat = torch.mm(hidden.reshape(-1, hidden.shape[-1]), weight.T, out_dtype=torch.float32)
        return flat.view(*hidden.shape[:-1], -1)
    dtype = compute_dtype(weight, hidden)
    return torch.nn.functional.linear(hidden.to(dtype), weight.to(dtype))


def product(weight: Tensor, hidden: Tensor, scratch: Scratch, factor: float = 1.0, name: str = "logits") -> Tensor:
    """factor * weight @ hidden.T as [v, n], never rounded below float32; on a CPU in the buffer `name`.

    A GPU's tile is [n, v] in memory, as the reductions there prefer.
    """
    if not weight.is_cuda:
        out = scratch.take(name, weight.shape[0], hidden.shape[0])
        return torch.addmm(out, weight, hidden.to(scratch.dtype).T, beta=0, alpha=factor, out=out)
    if native_product(weight, scratch) and hidden.dtype == weight.dtype:
        tile = torch.mm(hidden, weight.T, out_dtype=torch.float32)
    else:
        tile = torch.mm(hidden.to(scratch.dtype), weight.to(scratch.dtype).T)
    return (tile if factor == 1.0 else tile.mul_(factor)).T


def logit_tile(tile: HeadTile, hidden: Tensor, unit: float, scratch: Scratch) -> Tensor:
    """Logits times `unit`, [v, n], from hidden [n, D]. `unit` holds 1 / temperature and the base of the exponential.

    Every factor rides on the product where it can.
    """
    head = tile.head
    inner = unit if head.softcap is None else 1.0 / head.softcap
    logits = product(tile.weight, hidden, scratch, head.scale * inner)
    if tile.bias is not None:
        logits.add_((tile.bias * inner)[:, None])
    if head.softcap is not None:
        logits.tanh_().mul_(head.softcap * unit)
    return logits
