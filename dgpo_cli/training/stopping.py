"""Signals that end a run (checkpoint.signals): a step that has changed nothing yet is abandoned, others are finished.

What is saved then is the business of commands/train.py.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

from dgpo_cli.errors import RunError
from dgpo_cli.processes import SOLO, Processes

LOOK_SECONDS = 0.3  # between two looks at what the other processes have noted


class StopRequested(BaseException):
    """A signal came where the step can be abandoned. Not an Exception: no library may swallow it."""


class UnfinishedStep(Exception):
    """A signal left no time to finish the step: its weights are not to be kept."""


class StopGuard:
    """Turns the first signal into `StopRequested` at a moment that loses nothing; the second stops the process now."""

    def __init__(self, grace_seconds: float, names: Sequence[str] = ("SIGTERM", "SIGINT")) -> None:
        self.grace_seconds = grace_seconds
        self.numbers = [signal.Signals[name] for name in names]
        self.received: int | None = None
        self._at = 0.0
        self._protected = 0
        self._at_once = False
        self._passed_on = False  # a signal that this process sends itself for another one
        self.processes = SOLO

    def share(self, processes: Processes) -> None:
        """From here on all processes stop at the same place: a signal is noted, and obeyed where they agree on it."""
        self.processes = processes

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals within; restores the handlers after. Only the main thread may do so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in self.numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def protected(self) -> Iterator[None]:
        """What runs within is finished first, but for where it asks itself: updates, checkpoints, rows."""
        self._protected += 1
        try:
            yield
        finally:
            self._protected -= 1
        if not self._protected:
            self.agree()

    @contextmanager
    def at_once(self, allowed: bool, elsewhere: Callable[[], int]) -> Iterator[None]:
        """Within, a signal ends what the main process does alone beside others that wait for it; or, not `allowed`, no
        longer does. elsewhere: the number of a signal that another process has received, or 0; asked from a thread.

        Raises:
            StopRequested: at any moment within, unless it is `protected`. The others have to be told.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before, self._at_once = self._at_once, allowed
        try:
            self._stop_if_allowed()
            with self._watching(elsewhere) if allowed and not before else nullcontext():
                yield
        finally:
            self._at_once = before
        self._stop_if_allowed()

    def _stop_if_allowed(self) -> None:
        if self._at_once and self.received is not None and not self._protected:
            raise StopRequested

    @contextmanager
    def _watching(self, elsewhere: Callable[[], int]) -> Iterator[None]:
        """Within, a signal that another process has noted is this one's, too."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(LOOK_SECONDS):
                try:
                    number = elsewhere()
                except RunError:  # a process is gone, which the main thread finds out, too
                    return
                if number in self.numbers and self.received is None:
                    self._passed_on = True
                    signal.pthread_kill(threading.main_thread().ident or 0, number)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()

    def agree(self) -> None:
        """Stop here, if any process has got a signal. All have to ask."""
        self.obey(self.processes.highest(self.received or 0)[0])

    def obey(self, number: int) -> None:
        """Stop, if `number`, which all processes have, is a signal's."""
        if number:
            self._note(number)
            raise StopRequested

    def hold(self) -> None:
        """From here on a first signal is only noted: what is left takes a moment and ends the run."""
        self._protected += 1

    def may_go_on(self, seconds_left: float) -> bool:
        """Whether work of about that length still fits the grace time; always, while no signal came."""
        number = self.processes.highest(self.received or 0)[0]
        if not number:
            return True
        self._note(number)
        return self.processes.from_main(time.monotonic() - self._at + seconds_left <= self.grace_seconds)

    @property
    def exit_code(self) -> int:
        return 128 + (self.received or signal.SIGINT)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        passed_on, self._passed_on = self._passed_on, False
        if self.received is not None and passed_on:  # its own came in the same moment
            return
        if self.received is not None:
            os._exit(128 + number)
        self._note(number)
        if not self._protected and (self.processes.alone or self._at_once):
            raise StopRequested

    def _note(self, number: int) -> None:
        if self.received is None:
            self.received, self._at = number, time.monotonic()


@dataclass
class StepUnderway:
    """The updates of a step, to be asked between micro-batches whether a signal ends them.

    Before the first update nothing is lost. After it the step goes on while what is left, at the pace so far, fits the
    grace time.
    """

    guard: StopGuard
    updates: int  # of the step
    _passed: int = 0  # of these, taken or without anything to train on
    _taken: int = 0
    _seconds: float = 0.0  # that those taken took
    _since: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """From here on the time belongs to the first update."""
        self._since = time.perf_counter()

    def passed(self, *, taken: bool) -> None:
        """One of the updates is behind."""
        now = time.perf_counter()
        self._passed += 1
        if taken:
            self._taken += 1
            self._seconds += now - self._since
        self._since = now

    def ask(self) -> None:
        """Go on, or not. All processes have to ask equally often.

        Raises:
            StopRequested: a signal came, and no weight has moved in this step.
            UnfinishedStep: weights have, and there is no time for the rest.
        """
        if not self._taken:
            self.guard.agree()
            return
        left = (self.updates - self._passed) * self._seconds / self._taken - (time.perf_counter() - self._since)
        if not self.guard.may_go_on(max(0.0, left)):
            raise UnfinishedStep
