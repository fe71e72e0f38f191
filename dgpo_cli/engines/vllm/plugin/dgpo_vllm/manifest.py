"""The manifest of an update of weights: each tensor by name, shape, dtype and hash, and whose update it is.

Both ends read this one file: the trainer, which writes manifests, and vLLM's workers, which check them before the model
is touched. So it needs nothing but the standard library and torch. Session and version are part of every hash: bytes
of another run or another step can't pass for this one's, whatever the request around them says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

FORMAT = "dgpo-weights-1"
SHOWN = 3  # names in a message


class Refused(Exception):
    """An update that is not what it says, or not what the model needs. The model has not been touched."""


@dataclass(frozen=True)
class Stamp:
    """Whose update it is: of which run (`session`, one a trainer's start), after which training step."""

    session: str
    version: int


@dataclass(frozen=True)
class Entry:
    """A tensor of an update, named as in the checkpoint."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # float32, bfloat16
    sha256: str

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def bytes(self) -> int:
        return self.numel * getattr(torch, self.dtype).itemsize  # type: ignore[no-any-return]


def entry_of(stamp: Stamp, name: str, tensor: Tensor) -> Entry:
    """The entry of a tensor on the CPU."""
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    return Entry(name, shape, dtype, tensor_hash(stamp, name, tensor))


def tensor_hash(stamp: Stamp, name: str, tensor: Tensor) -> str:
    """SHA-256 of a tensor's bytes together with its name, shape, dtype, session and version."""
    shape, dtype = list(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    digest = hashlib.sha256(json.dumps([FORMAT, stamp.session, stamp.version, name, shape, dtype]).encode())
    digest.update(raw(tensor).numpy().data)
    return digest.hexdigest()


def raw(tensor: Tensor) -> Tensor:
    """The bytes of a tensor on the CPU  # [bytes] uint8"""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def header(stamp: Stamp, bucket: int, entries: Iterable[Entry]) -> str:
    """What stands in front of the bytes of a bucket."""
    tensors = [[entry.name, list(entry.shape), entry.dtype, entry.sha256] for entry in entries]
    record = {"format": FORMAT, "session": stamp.session, "version": stamp.version, "bucket": bucket}
    return json.dumps(record | {"tensors": tensors})


def read_header(text: Any, stamp: Stamp, bucket: int) -> list[Entry]:
    """The entries of a bucket that says that it is number `bucket` of this update.

    Raises:
        Refused: it says otherwise, or nothing that can be read.
    """
    try:
        record = json.loads(text)
        said = (record["format"], record["session"], record["version"], record["bucket"])
        entries = [
            Entry(str(name), tuple(int(size) for size in shape), str(dtype), str(sha256))
            for name, shape, dtype, sha256 in record["tensors"]
        ]
    except (TypeError, ValueError, KeyError) as error:
        raise Refused(f"bucket {bucket} has no readable manifest") from error
    if said[0] != FORMAT:
        raise Refused(f"bucket {bucket} has the format {said[0]}, expected {FORMAT}")
    if said[1] != stamp.session:
        raise Refused(f"bucket {bucket} is of another run")
    if said[2] != stamp.version:
        raise Refused(f"bucket {bucket} holds version {said[2]}, expected {stamp.version}")
    if said[3] != bucket:
        raise Refused(f"bucket {bucket} is a copy of bucket {said[3]}")
    return entries


def total_hash(entries: Iterable[Entry]) -> str:
    """One hash of all entries, in whatever order they come."""
    lines = sorted([entry.name, list(entry.shape), entry.dtype, entry.sha256] for entry in entries)
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def check_tensor(stamp: Stamp, entry: Entry, tensor: Tensor) -> None:
    """Hold a tensor on the CPU against its entry.

    Raises:
        Refused: another shape, dtype or bytes; values that are not finite.
    """
    shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
    if (shape, dtype) != (entry.shape, entry.dtype):
        raise Refused(f"{entry.name} is {dtype} {list(shape)}, its manifest says {entry.dtype} {list(entry.shape)}")
    if tensor_hash(stamp, entry.name, tensor) != entry.sha256:
        raise Refused(f"{entry.name} does not have the hash that its manifest names: its bytes are not those sent")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise Refused(f"{entry.name} holds NaN or infinities")


def check_whole(entries: list[Entry], *, sha256: str, expected: Mapping[str, tuple[int, ...]], dtype: str) -> None:
    """Hold all entries of an update against its total and against the tensors that the model needs.

    Args:
        expected: shape by name.
        dtype: of the model's weights.

    Raises:
        Refused: a tensor twice, too few, too many, of another shape or dtype.
    """
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise Refused(f"a tensor comes twice: {_shown(twice)}")
    missing, extra = sorted(expected.keys() - set(names)), sorted(set(names) - expected.keys())
    if missing or extra:
        parts = [f"lacks {_shown(missing)}"] * bool(missing) + [f"has {_shown(extra)} besides"] * bool(extra)
        raise Refused(f"the update {' and '.join(parts)}")
    for entry in entries:
        if entry.shape != tuple(expected[entry.name]):
            wanted = list(expected[entry.name])
            raise Refused(f"{entry.name} has the shape {list(entry.shape)}, the model's is {wanted}")
        if entry.dtype != dtype:
            raise Refused(f"{entry.name} is {entry.dtype}, the engine computes in {dtype}")
    if total_hash(entries) != sha256:
        raise Refused("the manifests of the buckets together are not those that were announced")


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
