"""One `dgpo train` at a time in a run's folder.

The lock is the kernel's (flock on run.lock), so it ends with the process that holds it, however that dies, and a pid
that is used again means nothing. What stands in the file is for the message alone.

On a shared file system: NFS (Linux 2.6.12 and later) and Lustre or GPFS mounted with flock keep such locks across
hosts, and a second host is refused like a second process. Mounted with local locks only (`localflock`, `local_lock`),
each host sees its own; then a lock that another host has not released is reported, and nothing can be done about it.
Without any locks the file's record is all there is: a process that lives on this host holds, everything else is
reported and taken over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from dgpo_cli.disk import writing
from dgpo_cli.errors import ConfigError
from dgpo_cli.terminal import say

NAME = "run.lock"
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}


@dataclass(frozen=True)
class Holder:
    """Who has the folder: enough to tell a process from another one with the same pid."""

    pid: int
    host: str
    started: float  # of the process, seconds since the epoch

    @classmethod
    def this_process(cls) -> Holder:
        return cls(os.getpid(), socket.gethostname(), psutil.Process().create_time())

    def __str__(self) -> str:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started))
        return f"process {self.pid} on {self.host}, started {since}"

    def is_elsewhere(self) -> bool:
        return self.host != socket.gethostname()

    def lives_here(self) -> bool:
        """Whether that very process runs on this host."""
        if self.is_elsewhere():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.started) < 2.0)
        except psutil.Error:
            return False


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder within; call it in the main process alone.

    Raises:
        ConfigError: another process holds it.
    """
    path = folder / NAME
    with writing(path, 4096):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor, has_locks = _acquire(path)
        _take_over(path, descriptor, has_locks)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is locked: see _acquire
        os.close(descriptor)


def _acquire(path: Path) -> tuple[int, bool]:
    """A descriptor of the file, locked, and whether its file system keeps locks at all."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        has_locks = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                holder = _read(descriptor)
                os.close(descriptor)
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise _held(path.parent, holder) from error
                raise
            has_locks = False
        try:
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor, has_locks
        except FileNotFoundError:
            pass
        os.close(descriptor)  # who held it let go between the two calls, and deleted the file that we locked


def _take_over(path: Path, descriptor: int, has_locks: bool) -> None:
    """Look at who was there before, then write down who is there now."""
    before = _read(descriptor)
    if before is not None and not has_locks and before.lives_here():
        os.close(descriptor)
        raise _held(path.parent, before)
    if not has_locks:
        say(f"warning: the file system of {path.parent} keeps no locks: nothing stops a second dgpo train there")
    if before is not None and before.is_elsewhere():
        say(f"note: the run was last held by {before}, which ended without letting go of it; if it still runs, stop it")
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(asdict(Holder.this_process())).encode(), 0)


def _read(descriptor: int) -> Holder | None:
    try:
        stored = json.loads(os.pread(descriptor, 4096, 0))
        return Holder(int(stored["pid"]), str(stored["host"]), float(stored["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _held(folder: Path, holder: Holder | None) -> ConfigError:
    who = str(holder) if holder is not None else "another process"
    stop = f"kill {holder.pid} on {holder.host} ends it after saving" if holder is not None else "wait for it"
    return ConfigError(
        f"another dgpo train is at work in {folder}: {who}", f"{stop}; hydra.run.dir=FOLDER takes another folder"
    )
