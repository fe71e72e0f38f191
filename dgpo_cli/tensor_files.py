"""safetensors files, hashed while they are written and brought to the disk.

The library's own writer gives no hash, and a checkpoint of a large model takes minutes to be read again for one. The
format is eight bytes, a JSON header and the numbers; any safetensors reader reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.files import CHUNK, Written, sync
from dgpo_cli.progress import beat

NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ALIGNED = 8  # bytes that the numbers begin at a multiple of, wide ones first


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> Written:
    """Write tensors, which lie on the CPU, into a new file.

    Raises:
        OSError: the disk is full or broken.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    start = 0
    for name in order:
        tensor = tensors[name]
        end = start + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNED)
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as stream:
        for rest in _contents(text, [tensors[name] for name in order]):
            while rest:
                done = stream.write(rest[:CHUNK]) or 0
                digest.update(rest[:done])
                rest = rest[done:]
                beat()
        sync(stream)
    return Written(8 + len(text) + start, digest.hexdigest())


def _contents(header: bytes, tensors: Iterable[Tensor]) -> Iterator[memoryview]:
    """The parts of the file one after another, the numbers as they lie in memory."""
    yield memoryview(len(header).to_bytes(8, "little"))
    yield memoryview(header)
    for tensor in tensors:
        numbers: Any = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        yield memoryview(numbers)
