"""Files that are whole or not there: atomic writes, and JSON without NaN. Large ones show that they get on."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import io
import json
import math
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from dgpo_cli.progress import beat

CHUNK = 1 << 22  # bytes that are hashed or synced between two beats


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` in one move: a reader, or a run killed meanwhile, sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            # A lone surrogate becomes its own escape, which JSON reads back as it was.
            stream.write(content if isinstance(content, bytes) else content.encode("utf-8", errors="backslashreplace"))
            stream.flush()
            sync(stream)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)  # on a full disk it would take the room of something that matters
        raise
    sync_folder(path.parent)


def read_name(path: Path) -> str:
    """The name of a neighbour that a file holds; "" where there is no such file, or what it holds can be no name."""
    try:
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return name if name.isprintable() and name not in (".", "..") and "/" not in name else ""


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(stream: BinaryIO) -> str:
    """The SHA-256 of what is left of a file, with a beat after each chunk."""
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        beat()
    return digest.hexdigest()


@dataclass(frozen=True)
class Written:
    """What a file was when it was written."""

    bytes: int
    sha256: str


def written(path: Path) -> Written:
    """A file that something else has written, read again and brought to the disk."""
    with path.open("rb+") as stream:
        digest = sha256(stream)
        sync(stream)
    return Written(path.stat().st_size, digest)


def sync(stream: IO[Any]) -> None:
    """Bring a whole file to the disk, where the system can a chunk at a time, with a beat after each.

    Raises:
        OSError: the disk is full or broken.
    """
    descriptor = stream.fileno()
    size = os.fstat(descriptor).st_size
    for start in range(0, size, CHUNK):
        if not _sync_range(descriptor, start):
            break
        beat()
    os.fsync(descriptor)  # the last chunk, the length, and what went wrong
    beat()


def _sync_range(descriptor: int, start: int) -> bool:
    """Write a chunk of a file out and wait for it; False where that is not to be had."""
    write_range = _sync_file_range()
    if write_range is None:
        return False
    wait_before, write, wait_after = 1, 2, 4
    offset, count = ctypes.c_int64(start), ctypes.c_int64(CHUNK)
    return bool(write_range(descriptor, offset, count, wait_before | write | wait_after) == 0)


@functools.cache
def _sync_file_range() -> Any:
    return getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None


def remove_tree(folder: Path, *, ignore_errors: bool = False) -> None:
    """Delete a folder with all in it, with a beat after each file: a large one takes a while to go."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir():
            with suppress(OSError):  # what does not go now is said below
                path.unlink()
            beat()
    shutil.rmtree(folder, ignore_errors=ignore_errors)


def to_json(record: Any, indent: int | None = None) -> str:
    """Strict JSON: a number that is not finite becomes null."""
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False, indent=indent)
    except ValueError:
        return json.dumps(finite(record), ensure_ascii=False, allow_nan=False, indent=indent)


def append_line(path: Path, record: Any) -> None:
    """Add one JSON object as a line of its own; where the disk has no room for it the file stays as it was."""
    line = (to_json(record) + "\n").encode("utf-8", errors="backslashreplace")
    with path.open("ab", buffering=0) as stream:
        before = stream.tell()
        try:
            write_all(stream, line)
        except OSError:
            stream.truncate(before)
            raise


def write_all(stream: io.RawIOBase, content: bytes) -> None:
    """Write every byte to an unbuffered file, which by itself stops early where a disk fills up."""
    rest = memoryview(content)
    while rest:
        rest = rest[stream.write(rest) or 0 :]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; a last line that a kill cut short is left out."""
    if not path.is_file():
        return []
    records: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return records


def finite(value: Any) -> Any:
    """The value as it comes back from a file: null where a number is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def shown_path(path: Path) -> str:
    """A path as a person would type it: relative if it lies below the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) and path != here else str(path)
