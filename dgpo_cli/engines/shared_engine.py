"""Sampling by all processes of a run, ordered by the main one.

The main process asks for completions as if it sampled alone. Generation units are those of one process, dealt out in
turn, so the same tokens are drawn. Every process makes the same number of forward passes, token by token and unit by
unit, because sharded weights are gathered by all of them or by none. So a process without a unit in the last round
computes again one that another process has too, and drops the result.
"""

from __future__ import annotations

from dataclasses import replace

from dgpo_cli.crew import Crew
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.types import EngineFacts, Rollout, SampleRequest, Sampling


class SharedEngine:
    """An Engine that all processes of a crew make of their own ones. `generate` is for the main one, in `on_main`."""

    def __init__(self, engine: TransformersEngine, crew: Crew) -> None:
        self.engine = engine
        self.crew = crew
        self._draw_together = crew.share(self._draw)

    @property
    def facts(self) -> EngineFacts:
        return replace(self.engine.facts, units_at_once=self.crew.processes.size)

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout]:
        """One completion a request, in order."""
        return self._draw_together(self.engine.units(requests), sampling)

    def load(self, version: int) -> None:
        self.engine.load(version)

    def prepare(self, longest: int) -> None:
        """Nothing is to be started."""

    def measured(self) -> dict[str, float]:
        """Nothing is pushed anywhere."""
        return {}

    def close(self) -> None:
        self.engine.close()

    def _draw(self, units: list[list[SampleRequest]], sampling: Sampling) -> list[Rollout]:
        processes, mine = self.crew.processes, {}
        with self.engine.model.sampling() as next_logits:
            for first in range(0, len(units), processes.size):
                number = first + processes.rank
                unit = units[min(number, len(units) - 1)]
                drawn = self.engine.draw(unit, sampling, next_logits, self.crew.go_on)
                if number < len(units):
                    mine[number] = drawn
        drawn_by_unit = {number: drawn for part in processes.gathered(mine) for number, drawn in part.items()}
        return [rollout for number in range(len(units)) for rollout in drawn_by_unit[number]]
