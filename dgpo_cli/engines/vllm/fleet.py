"""Requests dealt out over replicas: any server with a free place takes the next one.

Which server draws a completion changes nothing in it: its seed alone decides. So the rule may follow the servers' pace,
and what a dead server took with it is asked again of another. Nothing here knows what a completion is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dgpo_cli.engines.vllm.client import GONE, VllmClient
from dgpo_cli.errors import ServerError
from dgpo_cli.progress import within

T = TypeVar("T")
TICK = 0.5  # seconds between two looks at what the main thread has to know
LINE_EVERY = 15.0  # seconds between two lines of progress
LONGEST_PAUSE = 30.0  # seconds before a request is asked again
HEALTH_TRIES, HEALTH_WAIT = 3, 1.0  # a server that lost a connection is dead if it is not well after these

Ask = Callable[[VllmClient, int], T]  # one request, by its position, of one server


@dataclass
class _Pace:
    """How far a call is, told now and then."""

    total: int
    tell: Callable[[str], None]
    done: int = 0
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    told: float = field(default_factory=time.monotonic)

    def tell_if_due(self, longest: Callable[[], float]) -> None:
        now = time.monotonic()
        if now - self.told < LINE_EVERY:
            return
        self.told = now
        self.tell(
            f"vllm: {self.done} of {self.total} completions, {self.tokens / (now - self.started):,.0f} tokens/s, "
            f"longest running {longest():.0f} s"
        )


@dataclass
class Dealt(Generic[T]):
    """What came of the requests so far, by position. If all servers are dead, the others are open."""

    found: dict[int, T] = field(default_factory=dict)
    failed: dict[int, ServerError] = field(default_factory=dict)
    lost: ServerError | None = None  # what the last server was found dead by

    def open(self, positions: Sequence[int]) -> list[int]:
        return [one for one in positions if one not in self.found and one not in self.failed]


class Fleet:
    """The servers that draw together. `dead` are the positions of those that were given up."""

    def __init__(self, clients: Sequence[VllmClient], *, concurrency: int, retries: int) -> None:
        self.clients = list(clients)
        self.concurrency = concurrency
        self.retries = retries
        self.dead: set[int] = set()

    def deal(
        self,
        positions: Sequence[int],
        ask: Ask[T],
        *,
        size: Callable[[T], int],
        tick: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda line: None,
    ) -> Dealt[T]:
        """Ask for all positions, up to `concurrency` at a time of each server that is not dead.

        Args:
            size: the tokens of an answer, for the pace.
            tick: called by the caller's thread every half second; what it raises ends the call at once.
            tell: gets a line every 15 s.

        Raises:
            Exception: whatever `ask` raises that is no ServerError.
        """
        if not positions:
            return Dealt()
        deal = _Deal(self, list(positions), ask)
        deal.start()
        try:
            return deal.collect(size, tick, tell)
        finally:
            deal.end()

    def seconds_for_one(self) -> float:
        """After which a request has been answered or given up, whatever happens."""
        return (max(client.http.timeout_seconds for client in self.clients) + LONGEST_PAUSE) * (self.retries + 2)

    def close(self) -> None:
        for client in self.clients:
            client.close()


class _Deal(Generic[T]):
    """One call: a queue of positions, threads that empty it, and a queue of outcomes."""

    def __init__(self, fleet: Fleet, positions: list[int], ask: Ask[T]) -> None:
        self.fleet, self.positions, self.ask = fleet, positions, ask
        self.todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.outcomes: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()
        self.tries: dict[int, int] = {}
        self.since: dict[int, float] = {}  # when each open request was sent
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.threads = 0
        self.last_fault: ServerError | None = None

    def start(self) -> None:
        for one in self.positions:
            self.todo.put(one)
        places = min(self.fleet.concurrency, len(self.positions))
        alive = [number for number in range(len(self.fleet.clients)) if number not in self.fleet.dead]
        for _ in range(places):  # server after server, so that few requests are spread over all of them
            for number in alive:
                self.threads += 1
                # Daemons: a signal does not have to wait for completions that may be minutes away.
                threading.Thread(target=self._work, args=(number,), daemon=True).start()

    def collect(self, size: Callable[[T], int], tick: Callable[[], None], tell: Callable[[str], None]) -> Dealt[T]:
        dealt: Dealt[T] = Dealt()
        pace = _Pace(len(self.positions), tell)
        while len(dealt.found) + len(dealt.failed) < len(self.positions):
            with within(self.fleet.seconds_for_one()):
                outcome = self._next(pace, tick)
            if outcome is None:
                dealt.lost = self.last_fault
                break
            position, found = outcome
            if isinstance(found, ServerError):
                dealt.failed[position] = found
            elif isinstance(found, Exception):
                raise found
            else:
                dealt.found[position] = found
                pace.tokens += size(found)
            pace.done += 1
        return dealt

    def end(self) -> None:
        self.ended.set()
        for _ in range(self.threads):
            self.todo.put(None)

    def _next(self, pace: _Pace, tick: Callable[[], None]) -> tuple[int, T | Exception] | None:
        """The next outcome; None if no server is left to bring one."""
        while True:
            tick()
            pace.tell_if_due(self._longest)
            try:
                return self.outcomes.get(timeout=TICK)
            except queue.Empty:
                if self._all_dead():
                    return None

    def _all_dead(self) -> bool:
        return len(self.fleet.dead) == len(self.fleet.clients) and self.outcomes.empty()

    def _longest(self) -> float:
        """Seconds that the oldest open request has been running."""
        now = time.monotonic()
        with self.lock:
            return now - min(self.since.values(), default=now)

    def _work(self, number: int) -> None:
        """Take requests for one server until there are none, or it is dead."""
        while not self.ended.is_set() and number not in self.fleet.dead:
            position = self.todo.get()
            if position is None:
                return
            if number in self.fleet.dead:  # found out while this thread waited
                self.todo.put(position)
                return
            self._ask(number, position)

    def _ask(self, number: int, position: int) -> None:
        with self.lock:
            self.since[position] = time.monotonic()
        try:
            outcome: T | Exception = self.ask(self.fleet.clients[number], position)
        except Exception as error:  # handed to the caller's thread, where it is counted or raised
            outcome = error
        with self.lock:
            del self.since[position]
        if isinstance(outcome, ServerError) and not self.ended.is_set() and self._again(number, position, outcome):
            self.todo.put(position)
        else:
            self.outcomes.put((position, outcome))

    def _again(self, number: int, position: int, error: ServerError) -> bool:
        """Whether a request is asked again: the server died under it, or it has tries left."""
        if error.cause in GONE and not self._is_well(number):
            with self.lock:
                self.last_fault = error
                self.fleet.dead.add(number)
            return True
        if error.cause.startswith("status_4"):  # it is refused, and would be again
            return False
        with self.lock:
            tries = self.tries[position] = self.tries.get(position, 0) + 1
        return tries <= self.fleet.retries and not self.ended.wait(min(2.0 ** (tries - 2), LONGEST_PAUSE))

    def _is_well(self, number: int) -> bool:
        for _ in range(HEALTH_TRIES):
            if number in self.fleet.dead:
                return False
            if self.fleet.clients[number].is_up():
                return True
            if self.ended.wait(HEALTH_WAIT):
                return False
        return False
