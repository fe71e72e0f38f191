"""Buckets of weights as safetensors files: opened with distrust, read whole, never mapped.

A file that is cut while it is mapped kills the process that reads it, so a bucket is read into memory. One bucket is
there at a time.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load
from torch import Tensor

from dgpo_vllm.manifest import Entry, Refused, Stamp, check_tensor, read_header

KEY = "dgpo"  # of the metadata of a bucket
LARGEST_HEADER = 1 << 27  # bytes


@dataclass
class Buckets:
    """The files of one update in a folder; `entries` once they have been read."""

    folder: str
    files: list[str]
    stamp: Stamp
    entries: list[Entry] = field(default_factory=list)
    order: list[list[str]] = field(default_factory=list)  # names in each file, as they were sent: layer by layer
    seen: list[tuple[int, ...]] = field(default_factory=list)  # which files they were, as `_identity` says

    def verify(self, *, share: int = 0, shares: int = 1) -> None:
        """Read every manifest, and the bytes of every bucket of this share of them.

        Raises:
            Refused: something is not what its manifest says.
        """
        for number, file in enumerate(self.files):
            with _Opened(self.folder, file) as opened:
                if number % shares == share:
                    content = opened.content()
                    metadata, tensors = _parsed(file, content)
                else:
                    metadata, tensors = opened.metadata(), None
                entries = read_header(metadata.get(KEY), self.stamp, number)
                if tensors is not None:
                    self._check(file, entries, tensors)
                self.entries += entries
                self.order.append([entry.name for entry in entries])
                self.seen.append(opened.identity)

    def check_unchanged(self) -> None:
        """Hold the files against those that were verified.

        Raises:
            Refused: one of them was replaced, cut or written to since.
        """
        for file, seen in zip(self.files, self.seen, strict=True):
            with _Opened(self.folder, file) as opened:
                if opened.identity != seen:
                    raise Refused(f"{file} was changed after it was verified")

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor, in the order in which they were sent."""
        for file, names in zip(self.files, self.order, strict=True):
            with _Opened(self.folder, file) as opened:
                held = load(opened.content())
            for name in names:
                yield name, held.pop(name)

    def _check(self, file: str, entries: list[Entry], tensors: dict[str, Tensor]) -> None:
        names = {entry.name for entry in entries}
        if names != set(tensors) or len(entries) != len(tensors):
            raise Refused(f"{file} does not hold the tensors that its manifest names")
        for entry in entries:
            check_tensor(self.stamp, entry, tensors[entry.name])


class _Opened:
    """A regular file right in a folder, open for reading: no link, no path that leads elsewhere."""

    def __init__(self, folder: str, file: str) -> None:
        self.folder, self.file = folder, file

    def __enter__(self) -> _Opened:
        if not self.file or self.file != os.path.basename(self.file) or self.file in (".", ".."):
            raise Refused(f"'{self.file}' is no file in the folder of the update")
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                handle = os.open(self.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise Refused(f"{os.path.join(self.folder, self.file)} cannot be opened: {error.strerror}") from error
        self.handle = os.fdopen(handle, "rb", buffering=0)
        self.status = os.fstat(handle)
        if not stat.S_ISREG(self.status.st_mode):
            self.handle.close()
            raise Refused(f"{self.file} is no regular file")
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.close()

    @property
    def identity(self) -> tuple[int, ...]:
        status = self.status
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def content(self) -> bytes:
        parts = []
        while part := self.handle.read(1 << 26):
            parts.append(part)
        return b"".join(parts)

    def metadata(self) -> dict[str, Any]:
        start = self.handle.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(LARGEST_HEADER, self.status.st_size):
            raise Refused(f"{self.file} is no safetensors file")
        return _metadata(self.file, self.handle.read(length))


def _parsed(file: str, content: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not content:
        raise Refused(f"{file} is empty")
    try:
        tensors: dict[str, Tensor] = load(content)
    except Exception as error:  # SafetensorError, and what torch says of a dtype that it doesn't know
        raise Refused(f"{file} is no whole safetensors file: {' '.join(str(error).split())[:200]}") from error
    length = int.from_bytes(content[:8], "little")
    return _metadata(file, content[8 : 8 + length]), tensors


def _metadata(file: str, text: bytes) -> dict[str, Any]:
    try:
        record = json.loads(text).get("__metadata__") or {}
    except (ValueError, AttributeError) as error:
        raise Refused(f"{file} is no safetensors file") from error
    if not isinstance(record, dict):
        raise Refused(f"{file} has no metadata")
    return record


def checkpoint_shapes(folder: str) -> dict[str, tuple[int, ...]]:
    """Shape by name of every tensor in a model's folder, from the headers of its safetensors files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted(os.listdir(folder)):
        if not file.endswith(".safetensors") or file.startswith("adapter_"):
            continue
        with open(os.path.join(folder, file), "rb") as opened:
            record = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
        record.pop("__metadata__", None)
        shapes |= {name: tuple(facts["shape"]) for name, facts in record.items()}
    return shapes
