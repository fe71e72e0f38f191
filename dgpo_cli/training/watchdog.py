"""A run of several processes that stands still: every process writes where it is, and ends.

Without it a collective that one process never reaches waits for ever, and says nothing. Each process judges its own
main thread by what progress.py knows of it, and tells the others on the board, who may be waiting for it. So one that
grades, hashes or loads for long keeps nobody from waiting, and one that hangs is ended where it hangs. A process that
says nothing any more (stopped, its machine gone) is named by the others.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgpo_cli.progress import PULSE, bytes_moved

if TYPE_CHECKING:
    from dgpo_cli.meeting import Board

from dgpo_cli.terminal import say

STALLED = 1
LOOKS = 8  # at each other while a stall is waited for
LONGEST_LOOK, LONGEST_POST = 5.0, 30.0  # seconds between two
LEAST_DELAY = 2.0  # seconds that a line may be on its way on a busy machine
MOVED = 1 << 18  # bytes between two looks that are work, not the program's own noise
WORKS, WAITS, LEFT = "works", "waits", "left"


@dataclass
class Other:
    """Another process, by what it posts. Times are those of this watchdog's clock."""

    line: str
    heard: float  # its line was last another one
    moved: float  # it last got on
    progress: str = ""
    state: str = WORKS

    def hear(self, line: str, now: float) -> None:
        if line == self.line:
            return
        parts = line.split()
        if len(parts) != 3:  # a line that was cut on its way says nothing
            return
        self.line, self.heard = line, now
        _, progress, self.state = parts
        if progress != self.progress:
            self.progress, self.moved = progress, now


class Watchdog:
    """Ends the process when it has not got on for `stall_seconds`, nor who it waits for."""

    def __init__(self, stall_seconds: float, rank: int, board: Board | None = None) -> None:
        self.stall_seconds = stall_seconds
        self.rank = rank
        self.board = board
        self._look_seconds = min(LONGEST_LOOK, stall_seconds / LOOKS)
        self._post_seconds = min(LONGEST_POST, stall_seconds / LOOKS)
        self._done = threading.Event()
        # Seconds in which this thread could run: a process that was stopped and goes on has not been idle meanwhile.
        self._clock = 0.0
        self._looks = self._progress = 0
        self._moved = 0.0
        self._beats, self._bytes = PULSE.beats, bytes_moved()
        self._exchanged = 0.0  # when the board last answered
        self._others: dict[int, Other] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch from threads of its own, within. The board has one of them: it may take its time to answer."""
        judge = threading.Thread(target=self._judge, daemon=True)
        post = threading.Thread(target=self._post, daemon=True)
        judge.start()
        if self.board is not None:
            post.start()
        try:
            yield
        finally:
            self._done.set()
            judge.join()
            if self.board is not None:
                post.join(timeout=2.0)  # it says that this one has left

    def _judge(self) -> None:
        last = time.monotonic()
        while not self._done.wait(self._look_seconds):
            now = time.monotonic()
            self._clock += min(now - last, 2 * self._look_seconds)
            last = now
            self._look(now)
            said = self._stall()
            if said:
                self._end(said)

    def _look(self, now: float) -> None:
        """Note whether the main thread got on since the last look, or is in a wait that ends of itself."""
        beats, moved = PULSE.beats, bytes_moved()
        works = PULSE.measured > 0 and moved - self._bytes >= MOVED
        if beats != self._beats or works or now < PULSE.until:
            self._moved = self._clock
            self._progress += 1
        self._beats, self._bytes = beats, moved
        self._looks += 1

    def _stall(self) -> str | None:
        """What stands still, or None."""
        delay = max(LEAST_DELAY, 2 * self._post_seconds)
        gone = self._silent_for(self.stall_seconds + delay)
        if gone:
            return self._without_life(gone)
        if not PULSE.together:
            if self._clock - self._moved <= self.stall_seconds:
                return None
            suspects = self._silent_for(4 * self._post_seconds)
            more = f", and {_ranks(suspects)} given no sign of life" if suspects else ""
            return f"no progress for {self.stall_seconds:g} s{more}"
        others = list(self._others.values())
        quiet = self._clock - max(self._moved, *(other.moved for other in others), 0.0)
        # Who works and does not get on ends itself, and knows best where it stands.
        works = any(other.state == WORKS for other in others)
        if quiet <= self.stall_seconds * (1.5 if works else 1.0) + delay:
            return None
        if self.board is not None and self._clock - self._exchanged > self.stall_seconds:
            return f"no progress for {self.stall_seconds:g} s, and {self.board.keeper} does not answer"
        suspects = self._silent_for(self.stall_seconds)
        return self._without_life(suspects) if suspects else f"no progress of any process for {self.stall_seconds:g} s"

    def _without_life(self, ranks: list[int]) -> str:
        return f"{_ranks(ranks)} given no sign of life for {self.stall_seconds:g} s (stopped, or cut off)"

    def _silent_for(self, seconds: float) -> list[int]:
        """Those that said nothing for so long before the board's last answer, and did not leave."""
        return [
            rank
            for rank, other in sorted(self._others.items())
            if other.state != LEFT and self._exchanged - other.heard > seconds
        ]

    def _post(self) -> None:
        assert self.board is not None
        left = False
        while not left:
            left = self._done.wait(self._post_seconds)
            state = LEFT if left else WAITS if PULSE.together else WORKS
            with suppress(
                RuntimeError
            ):  # the store is gone, as its keeper may be: the judge sees when it last answered
                self.board.post(f"{self._looks} {self._progress} {state}")
                for rank, line in {} if left else self.board.read().items():
                    self._hear(rank, line)
                self._exchanged = self._clock

    def _hear(self, rank: int, line: str) -> None:
        if rank not in self._others:
            self._others[rank] = Other("", self._clock, self._clock)
        self._others[rank].hear(line, self._clock)

    def _end(self, said: str) -> None:
        say(f"error: rank {self.rank}: {said}; it stands here:")
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
        os._exit(STALLED)


def _ranks(ranks: list[int]) -> str:
    listed = ", ".join(map(str, ranks))
    return f"rank {listed} has" if len(ranks) == 1 else f"ranks {listed} have"
