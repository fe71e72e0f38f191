"""A run of several processes that stands still: every process writes where it is, and ends.

Without it a collective that one process never reaches waits for ever, and says nothing.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from dgpo_cli.terminal import say

STALLED = 1


class Watchdog:
    """Ends the process when `beat` has not been called for `stall_seconds`."""

    def __init__(self, stall_seconds: float, rank: int) -> None:
        self.stall_seconds = stall_seconds
        self.rank = rank
        self._last = time.monotonic()
        self._done = threading.Event()

    def beat(self) -> None:
        self._last = time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch from a thread of its own, within."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _watch(self) -> None:
        while not self._done.wait(min(5.0, self.stall_seconds / 4)):
            if time.monotonic() - self._last > self.stall_seconds:
                say(f"error: rank {self.rank}: no progress for {self.stall_seconds:g} s; it stands here:")
                faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
                os._exit(STALLED)
