"""How a process shows that it gets on. Its watchdog (training/watchdog.py) looks at it, where there is one.

Progress is what the main thread has got behind it, the bytes that it moves while a library works for it, or a wait
that a deadline ends. Nothing here beats by itself: a thread that beat while the main one hangs would hide the hang.
"""

from __future__ import annotations

import math
import resource
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
BLOCK, PAGE = 512, 4096  # bytes of a block and a page, as getrusage counts them


@dataclass
class Pulse:
    """What the main thread of this process says of itself."""

    beats: int = 0
    until: float = -math.inf  # time.monotonic() at which the wait that it is in ends of itself
    together: int = 0  # more than 0: it waits for the other processes
    measured: int = 0  # more than 0: a library works for it, and bytes are what shows of that


PULSE = Pulse()


def beat() -> None:
    """Say that something is done. From other threads than the main one it says nothing."""
    if _is_main():
        PULSE.beats += 1


def each(items: Iterable[T]) -> Iterator[T]:
    """The items, with a beat before each."""
    for item in items:
        beat()
        yield item


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is waited for within ends after `seconds` at the latest, whatever happens: no stall before that."""
    if not _is_main():
        yield
        return
    before = PULSE.until
    PULSE.until = max(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        PULSE.until = before
        beat()


@contextmanager
def together() -> Iterator[None]:
    """The other processes are waited for within: it is for them to get on."""
    if not _is_main():
        yield
        return
    beat()
    PULSE.together += 1
    try:
        yield
    finally:
        PULSE.together -= 1
        beat()


@contextmanager
def measured() -> Iterator[None]:
    """A library loads, fetches or writes within: while bytes move, it gets on."""
    if not _is_main():
        yield
        return
    PULSE.measured += 1
    try:
        yield
    finally:
        PULSE.measured -= 1
        beat()


def bytes_moved() -> int:
    """Bytes that this process has read, written or touched for the first time, roughly. Asking never waits for a disk.

    Files of any kind count where Linux says so, else those that reach a disk; a page counts where it is mapped.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    pages, blocks = used.ru_minflt + used.ru_majflt, used.ru_inblock + used.ru_oublock
    return pages * PAGE + blocks * BLOCK + _passed_through()


def _passed_through() -> int:
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("rchar:", "wchar:")))


def _is_main() -> bool:
    return threading.get_ident() == threading.main_thread().ident
