"""What the main process orders, and all processes of a run do together.

The main process decides alone what depends on files, graders and clocks. Some of its work is too large for one process,
or needs the weights that another one holds. So a part of the program shares its work here (`share`), and the main
process may then call it while the others wait for orders (`on_main`). Nothing here knows what the work is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

from dgpo_cli.processes import Processes
from dgpo_cli.traffic import CONTROL

P = ParamSpec("P")
T = TypeVar("T")
LOOK_SECONDS = 1.0  # between two looks at what the others have noted


class Crew:
    """The processes of a run, ready to work for the main one.

    signal_number: the number of the Unix signal that this process has received, 0 for none.
    stop_agreed: gets the highest of these numbers, the same in every process, each time they agree on it: in `go_on`
        and in `meet`.
    at_once: a context of the main process, in which a signal ends its work at once (True) or is only noted (False).
        Its second argument gives the number of a signal that another process has received.
    """

    def __init__(
        self,
        processes: Processes,
        *,
        signal_number: Callable[[], int] = lambda: 0,
        stop_agreed: Callable[[int], None] = lambda number: None,
        at_once: Callable[[bool, Callable[[], int]], AbstractContextManager[None]] = lambda *_: nullcontext(),
    ) -> None:
        self.processes = processes
        self.signal_number = signal_number
        self.stop_agreed = stop_agreed
        self.at_once = at_once
        self._shared: list[Callable[..., Any]] = []
        self._together = False  # in shared work, which all leave together
        self._signal = 0  # that this process or another one has received
        self._looked = 0.0  # time.monotonic() of the last look at what the others noted

    def share(self, work: Callable[P, T], kind: str = CONTROL) -> Callable[P, T]:
        """A function that has `work` done by every process, with the same arguments, and gives this one's result.

        The main process calls it, within `on_main`; it is the main one's arguments that count, and they are pickled.
        Every process shares the same work in the same order, because an order names work by its place in that order: a
        function itself may hold weights, and could not be sent. kind: of traffic.py, what the arguments are.
        """
        place = len(self._shared)
        self._shared.append(work)

        def ordered(*arguments: P.args, **named: P.kwargs) -> T:
            with self.at_once(False, self.processes.noted):
                self._together = True
                self.processes.from_main((place, arguments, named), kind)
                result = work(*arguments, **named)
                self._together = False
            return result

        return ordered

    def on_main(
        self,
        action: Callable[[], T],
        kind: str = CONTROL,
        *,
        told: Callable[[T], Any] = lambda result: result,
        heard: Callable[[Any], T] = lambda result: result,
    ) -> T:
        """Run `action` in the main process alone; its result, everywhere. kind: of traffic.py, what it is.

        told: what the others are sent of the result; heard: what they make of that.
        Until it is done the other processes do their part of all shared work that it calls. If it raises, only the main
        process does: it ends, and the others then find out that it is gone. If a signal ends it, `stop_agreed` gets its
        number everywhere.
        """
        if self.processes.alone:
            return action()
        if self.processes.main:
            result = self._until_a_signal(action)
            self.processes.from_main(None)
            self.processes.from_main(told(result), kind)
            return result
        while (order := self._next_order()) is not None:
            if isinstance(order, int):
                self.stop_agreed(order)
                continue
            place, arguments, named = order
            self._shared[place](*arguments, **named)
        return heard(self.processes.from_main(None, kind))

    def go_on(self, unfinished: bool) -> bool:
        """Whether any process has something left to do. All have to ask equally often.

        Whatever `stop_agreed` raises about a signal is raised in all of them, at the same place.
        """
        going, signal = self.processes.highest(int(unfinished), self.signal_number())
        self.stop_agreed(signal)
        return bool(going)

    def stopping(self) -> int:
        """The number of a signal that some process has received, 0 for none. For work that each does at its own pace.

        No message is waited for, so it may be asked at any time. The others know of a signal after LOOK_SECONDS. Who
        stops its work because of one has to `meet` them.
        """
        if self._signal:
            return self._signal
        self._signal = self.signal_number()
        now = time.monotonic()
        if self._signal:
            self.processes.note(self._signal)
        elif now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._signal = self.processes.noted()
        return self._signal

    def meet(self) -> None:
        """Wait until every process has come here, at the end of work that each did at its own pace.

        Whatever `stop_agreed` raises about a signal is raised in all of them.
        """
        [signal] = self.processes.highest(self.stopping(), meanwhile=self.stopping)
        self.stop_agreed(signal)

    def _until_a_signal(self, action: Callable[[], T]) -> T:
        """The main process's own work. What it does together with the others is finished or stopped by all of them."""
        try:
            with self.at_once(True, self.processes.noted):
                return action()
        except BaseException as stop:
            number = self.signal_number()
            if number and not isinstance(stop, Exception) and not self._together:
                self.processes.from_main(number)
            raise

    def _next_order(self) -> tuple[int, tuple[Any, ...], dict[str, Any]] | int | None:
        """What the main process asks for next, a signal that ended its work, or None if it needs nothing more.

        A signal that this process gets meanwhile is left where the main one looks for it.
        """
        order: tuple[int, tuple[Any, ...], dict[str, Any]] | int | None = None
        return self.processes.from_main(order, meanwhile=self.stopping)
