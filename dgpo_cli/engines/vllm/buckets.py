"""A stream of tensors in buckets of bounded size, so that neither end ever holds the whole model beside itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from dgpo_cli.engines.vllm.updates import Entry, Named, Stamp, entry_of

BUCKET_BYTES = 1 << 28  # a larger tensor is a bucket of its own


@dataclass(frozen=True)
class Bucket:
    """Tensors on the CPU, and their entries."""

    number: int
    entries: list[Entry]
    tensors: list[Tensor]

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)


def bucketed(stamp: Stamp, tensors: Named, *, bucket_bytes: int = BUCKET_BYTES) -> Iterator[Bucket]:
    """The tensors in their order, as many in a bucket as fit into `bucket_bytes`, each hashed on the CPU."""
    number, entries, held, size = 0, list[Entry](), list[Tensor](), 0
    for name, tensor in tensors:
        if held and size + tensor.nbytes > bucket_bytes:
            yield Bucket(number, entries, held)
            number, entries, held, size = number + 1, [], [], 0
        here = tensor.detach().cpu().contiguous()
        entries.append(entry_of(stamp, name, here))
        held.append(here)
        size += here.nbytes
    if held:
        yield Bucket(number, entries, held)
