"""Disks that fill up: what went wrong in a write, said in one line with the path and the bytes it needed.

Owns telling a full or broken disk from a bug, whichever library met it: safetensors and tokenizers raise errors of
their own that are no OSError, torch one that hides it. What is predicted before a run stands in training/space.py.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dgpo_cli.errors import DgpoError, RunError

# Nothing here is the program's fault: full, over quota, over the limit of a file's size, read-only, broken, gone.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DISK_ERRORS = FULL | {errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM}
RUST_ERROR = re.compile(r"\(os error (\d+)\)")


@contextmanager
def writing(path: Path, needed: int) -> Iterator[None]:
    """Turn a disk that is full or broken into one line; every other error passes.

    needed: bytes that the write takes, or an estimate.

    Raises:
        RunError: naming the path, the reason, and the bytes needed and free.
    """
    try:
        yield
    except DgpoError:
        raise
    except Exception as error:
        reason = failed_write(error)
        if reason is None:
            raise
        raise RunError(described(path, reason, needed), "make room, then go on; what was saved before is intact") from (
            error
        )


def described(path: Path, reason: str, needed: int) -> str:
    """The line of a failed write."""
    free = free_bytes(path)
    there = "" if free is None else f", {free:,} are free"
    return f"{path} could not be written: {reason} ({needed:,} bytes needed{there})"


def failed_write(error: BaseException) -> str | None:
    """What the system says of a write that failed, or None where the error is of another kind."""
    seen: BaseException | None = error
    while seen is not None:
        number = seen.errno if isinstance(seen, OSError) else None
        if number is None and (match := RUST_ERROR.search(str(seen))):
            number = int(match.group(1))
        if number in DISK_ERRORS:
            return os.strerror(number)
        seen = seen.__cause__ or seen.__context__
    return None


def free_bytes(path: Path) -> int | None:
    """Bytes that may still be written where `path` is or will be; None where that cannot be told."""
    for place in (path, *path.absolute().parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None
