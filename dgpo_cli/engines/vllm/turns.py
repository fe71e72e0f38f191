"""Servers of ours on the trainer's own GPUs (`engine.colocated`): while one side works, the other has given way.

Before servers wake, every trainer process hands the memory that torch keeps for later back to its GPU; gradients are
gone after a step, while weights, moments and reference stay. Before training goes on, every server has given back
weights and cache. vLLM measures the whole GPU when it starts and when it falls asleep, and takes it for a fault if
others take or free memory meanwhile: so all trainer processes wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dgpo_cli.allocation import give_back
from dgpo_cli.engines.vllm.client import GONE
from dgpo_cli.engines.vllm.conversation import Conversation
from dgpo_cli.errors import RunError, ServerError
from dgpo_cli.processes import Processes

ROOM_HINT = "a smaller engine.gpu_memory_fraction leaves the trainer more; resume= continues from the last checkpoint"


class Turns:
    """Sleep and wake-up of all servers. All processes of a run call it together; the main one alone speaks to them."""

    def __init__(self, processes: Processes, *, timeout_seconds: float) -> None:
        self.processes = processes
        self.timeout_seconds = timeout_seconds
        self._spent = 0.0

    def give_back(self) -> None:
        """Every process returns what it does not use of its GPU; nobody goes on before all have."""
        give_back()
        self.processes.highest(0)

    def wake(self, urls: Sequence[str], part: str) -> None:
        """Have all servers take memory for `part`. One that is awake stays as it is.

        Raises:
            RunError: one does not. In all processes alike.
        """
        self.give_back()
        self._all(urls, partial(_wake, part=part))

    def sleep(self, urls: Sequence[str]) -> None:
        """Have all servers give back the memory of weights and cache. One that is gone holds none.

        Raises:
            RunError: one does not. In all processes alike.
        """
        self._all(urls, _sleep)

    def spent(self) -> float:
        """Seconds since the last call that the main process waited for servers to sleep and to wake."""
        spent, self._spent = self._spent, 0.0
        return spent

    def _all(self, urls: Sequence[str], ask: Callable[[Conversation], None]) -> None:
        self.processes.agreed(partial(self._asked, urls if self.processes.main else [], ask))

    def _asked(self, urls: Sequence[str], ask: Callable[[Conversation], None]) -> None:
        if not urls:
            return
        started = time.perf_counter()
        talks = [Conversation(url, timeout_seconds=self.timeout_seconds) for url in urls]
        try:
            with ThreadPoolExecutor(len(talks)) as pool:
                list(pool.map(ask, talks))
        finally:
            self._spent += time.perf_counter() - started


def _wake(talk: Conversation, part: str) -> None:
    try:
        talk.wake_up(part)
    except RunError as error:
        raise RunError(f"engine.colocated: {error}", ROOM_HINT) from error


def _sleep(talk: Conversation) -> None:
    try:
        talk.sleep()
    except ServerError as error:  # it died in the draw: the next `load` starts it anew
        if error.cause not in GONE:
            raise
