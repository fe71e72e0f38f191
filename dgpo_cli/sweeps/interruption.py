"""Signals to a sweep: they go to the jobs that run, which save their state, and no other job is started."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from dgpo_cli.jobs import Stopped

# Those that checkpoint.signals may name: a job that does not listen to one ends by it, as the sweep would have.
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU)


@dataclass
class Interruption:
    """The jobs that run, and the signal that ends them all.

    raises: a signal that finds no job raises `Stopped`, to leave what Hydra is doing.
    """

    raises: bool = False
    signal_number: int | None = None
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    _starting: bool = False
    _held_back: int | None = None

    def start(self, start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Start a job so that a signal that comes meanwhile reaches it once."""
        self._starting = True
        try:
            child = start()
            self.children.append(child)
        finally:
            self._starting = False
        held_back, self._held_back = self._held_back, None
        if held_back is not None:
            self._tell(held_back)
        return child

    def on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        self.signal_number = number
        if self._starting:
            self._held_back = number
            return
        if self.raises and not self.children:
            raise Stopped(number)
        self._tell(number)

    def _tell(self, number: int) -> None:
        for child in self.children:
            if child.poll() is None:
                child.send_signal(number)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hear the signals within, but for one that is ignored, such as nohup's SIGHUP."""
        heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.on_signal) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
