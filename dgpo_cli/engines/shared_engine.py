"""Sampling by all processes of a run, ordered by the main one.

The main process asks as if it sampled alone, within `led`, where the others wait for what it asks. Generation units are
those of one process, dealt out in turn, so the same tokens are drawn. Every process makes the same number of forward
passes, token by token and unit by unit: sharded weights are gathered by all of them or by none. One without a unit
computes one that another has, and lets the result go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.processes import Processes
from dgpo_cli.types import Rollout, SampleRequest, Sampling

T = TypeVar("T")


class SharedEngine:
    """An Engine in the main process; `led` is where the others lend a hand.

    `stop_agreed` is told once a token, in every process, the highest signal number that any of them has received.
    """

    def __init__(
        self,
        engine: TransformersEngine,
        processes: Processes,
        *,
        signal_number: Callable[[], int],
        stop_agreed: Callable[[int], None],
    ) -> None:
        self.engine = engine
        self.processes = processes
        self.units_at_once = processes.size
        self.signal_number = signal_number
        self.stop_agreed = stop_agreed

    def led(self, action: Callable[[], T]) -> T:
        """Run `action` in the main process, with every process drawing what it asks for; its result, everywhere."""
        if self.processes.alone:
            return action()
        if self.processes.main:
            result = action()
            self.processes.from_main(None)
            return self.processes.from_main(result)
        while (order := self._order()) is not None:
            self._draw(*order)
        return self.processes.from_main(None)  # type: ignore[return-value]

    def generate(
        self, requests: list[SampleRequest], sampling: Sampling, lengths: Sequence[int] | None = None
    ) -> list[Rollout]:
        """One completion a request, in order. For the main process, within `led`."""
        if self.processes.alone:
            return self.engine.generate(requests, sampling, lengths)
        units = self.engine.units(requests, lengths)
        self.processes.from_main((units, sampling))
        return self._draw(units, sampling)

    def _order(self) -> tuple[list[list[SampleRequest]], Sampling] | None:
        """What the main process asks for next; None where it needs nothing more."""
        return self.processes.from_main(None)

    def _draw(self, units: list[list[SampleRequest]], sampling: Sampling) -> list[Rollout]:
        mine = {}
        size, rank = self.processes.size, self.processes.rank
        with self.engine.model.sampling() as next_logits:
            for first in range(0, len(units), size):
                number = first + rank
                unit = units[min(number, len(units) - 1)]
                drawn = self.engine.draw(unit, sampling, next_logits, self._goes_on)
                if number < len(units):
                    mine[number] = drawn
        drawn_by_unit = {number: drawn for part in self.processes.gathered(mine) for number, drawn in part.items()}
        return [rollout for number in range(len(units)) for rollout in drawn_by_unit[number]]

    def _goes_on(self, unfinished: bool) -> bool:
        going, signal = self.processes.highest(int(unfinished), self.signal_number())
        self.stop_agreed(signal)
        return bool(going)
