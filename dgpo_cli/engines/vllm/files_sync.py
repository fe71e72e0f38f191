"""Weights by way of files: safetensors buckets in a folder that trainer and servers both see, such as /dev/shm.

A push takes as much room there as the weights do; afterwards nothing is left. A trainer that is killed leaves its
folder, which the next one removes: a lock in it says whether its owner is alive.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from dgpo_cli.engines.vllm.buckets import BUCKET_BYTES, Bucket, bucketed
from dgpo_cli.engines.vllm.sync_base import MainSends, Servers, gone_through
from dgpo_cli.engines.vllm.updates import Entry, Named, Pushed, Refusal, Stamp, header, total_hash
from dgpo_cli.errors import RunError
from dgpo_cli.processes import SOLO, Processes

PREFIX, LOCK = "dgpo-weights-", "owner.lock"
FULL = (errno.ENOSPC, errno.EDQUOT)


class FilesSync(MainSends):
    """A `WeightSync` through a folder."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        processes: Processes = SOLO,
        timeout_seconds: float = 600.0,
        bucket_bytes: int = BUCKET_BYTES,
    ) -> None:
        """folder: as the servers see it too; None is /dev/shm, if there is one."""
        super().__init__(processes)
        self.timeout_seconds = timeout_seconds
        self.bucket_bytes = bucket_bytes
        self.above = folder or default_folder()
        self._own: _OwnFolder | None = None

    def init(self, urls: Sequence[str]) -> None:
        if not self.processes.main:
            return
        if self._own is None:
            self._own = _OwnFolder(self.above)
        self._servers = Servers(urls, timeout_seconds=self.timeout_seconds)

    def close(self) -> None:
        if self._own is not None:
            self._own.remove()
            self._own = None

    def _pushed(self, version: int, tensors: Named) -> Pushed:
        assert self._servers is not None
        assert self._own is not None
        started = time.perf_counter()
        stamp = Stamp(self._servers.session, version)
        try:
            files, entries = self._written(stamp, self._own.path, tensors)
            refusals = self._given(self._servers, stamp, files, entries)
        finally:
            gone_through(tensors)  # after an error too: the others gather the rest, and wait for this process
            self._own.empty()
        return Pushed(time.perf_counter() - started, sum(entry.bytes for entry in entries), refusals)

    def _written(self, stamp: Stamp, folder: Path, tensors: Named) -> tuple[list[str], list[Entry]]:
        files: list[str] = []
        entries: list[Entry] = []
        for bucket in bucketed(stamp, tensors, bucket_bytes=self.bucket_bytes):
            files.append(f"{stamp.version}-{bucket.number:05}.safetensors")
            _write(folder / files[-1], stamp, bucket)
            entries += bucket.entries
        return files, entries

    def _given(self, servers: Servers, stamp: Stamp, files: list[str], entries: list[Entry]) -> dict[str, Refusal]:
        asked = {"session": stamp.session, "version": stamp.version, "files": files, "sha256": total_hash(entries)}
        folder = str(self._own.path) if self._own else ""
        refusals = servers.all(lambda talk: talk.refusal("dgpo_verify", folder=folder, **asked))
        if refusals:
            servers.forget()
            return refusals
        return servers.load(stamp)


def default_folder() -> Path:
    """Memory that looks like a folder, if this system has it."""
    shared = Path("/dev/shm")
    return shared if os.access(shared, os.W_OK) else Path(tempfile.gettempdir())


def _write(file: Path, stamp: Stamp, bucket: Bucket) -> None:
    tensors = {entry.name: tensor for entry, tensor in zip(bucket.entries, bucket.tensors, strict=True)}
    try:
        free = shutil.disk_usage(file.parent).free
        if free < bucket.bytes:  # a full tmpfs kills the process that writes to it by mapping
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save_file(tensors, file, metadata={"dgpo": header(stamp, bucket.number, bucket.entries)})
    except Exception as error:
        if not _is_full(error):
            raise
        raise RunError(
            f"{file.parent}: no room for {bucket.bytes:,} bytes of weights ({free:,} are free)",
            "engine.sync_folder names another folder that the servers see too; or engine.sync=group",
        ) from error


def _is_full(error: Exception) -> bool:
    words = str(error).lower()
    return (isinstance(error, OSError) and error.errno in FULL) or "no space left" in words or "quota" in words


class _OwnFolder:
    """A folder of this process, for as long as it lives."""

    def __init__(self, above: Path) -> None:
        """Raises RunError: nothing can be written to `above`."""
        try:
            above.mkdir(parents=True, exist_ok=True)
            clean(above)
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=above))
            self._lock = (self.path / LOCK).open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"engine.sync_folder: {above}: {error.strerror}", "a folder that can be written to"
            ) from error

    def empty(self) -> None:
        for file in self.path.glob("*.safetensors"):
            file.unlink(missing_ok=True)

    def remove(self) -> None:
        self._lock.close()
        shutil.rmtree(self.path, ignore_errors=True)


def clean(above: Path) -> None:
    """Remove the folders of trainers that are no more."""
    for folder in above.glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:  # its owner lives, or it is somebody else's
            continue
