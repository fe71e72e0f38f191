"""Sampling by all processes of a run, ordered by the main one.

The main process asks for completions as if it sampled alone. Generation units are those of one process, dealt out in
turn, so the same tokens are drawn. If every process holds the weights, each draws its units at its own pace, and they
meet when all are done. Otherwise layers are gathered for each pass, by all of them or by none. Then all make as many
passes as the one that needs most, and agree on that every few passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.crew import Crew
from dgpo_cli.engines.transformers_engine import TransformersEngine
from dgpo_cli.models.language_model import NextLogits, one_token_pass
from dgpo_cli.rollout_arrays import DrawnArrays
from dgpo_cli.traffic import SAMPLES
from dgpo_cli.types import EngineFacts, Rollout, SampleRequest, Sampling

PASSES_AGREED = 8  # on at a time: a message for so many, and a signal is noticed after so many


class SharedEngine:
    """An Engine that all processes of a crew make of their own ones. `generate` is for the main one, in `on_main`."""

    def __init__(self, engine: TransformersEngine, crew: Crew) -> None:
        self.engine = engine
        self.crew = crew
        self._draw_together = crew.share(self._draw)
        # In the main process, beside the order to draw and not in it: an order goes to all, and each needs a share.
        self._units: list[list[SampleRequest]] = []

    @property
    def facts(self) -> EngineFacts:
        return replace(self.engine.facts, units_at_once=self.crew.processes.size)

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout]:
        """One completion a request, in order."""
        self._units = self.engine.units(requests)
        return self._draw_together(sampling)

    def load(self, version: int) -> None:
        self.engine.load(version)

    def prepare(self, longest: int) -> None:
        """Nothing is to be started."""

    def rest(self) -> None:
        """It holds nothing that training needs."""

    def measured(self) -> dict[str, float]:
        """Nothing is pushed anywhere."""
        return {}

    def close(self) -> None:
        self.engine.close()

    def _draw(self, sampling: Sampling) -> list[Rollout]:
        """The units of the main process, a share of which each draws; their completions, in the main one."""
        processes = self.crew.processes
        shares = [self._units[rank :: processes.size] for rank in range(processes.size)]
        mine: list[Rollout] = []
        share = processes.dealt(shares, SAMPLES)
        with self.engine.model.sampling() as next_logits, self._in_step(next_logits) as in_step:
            for unit in share:
                mine += self.engine.draw(unit, sampling, in_step)
        drawn: dict[int, list[Rollout]] = {}
        for rank, part in enumerate(processes.to_main(DrawnArrays.of(mine), SAMPLES)):
            rollouts = iter(part.answering([request for unit in shares[rank] for request in unit]))
            for place, unit in enumerate(shares[rank]):
                drawn[rank + place * processes.size] = list(islice(rollouts, len(unit)))
        return [rollout for number in sorted(drawn) for rollout in drawn[number]]

    @contextmanager
    def _in_step(self, next_logits: NextLogits) -> Iterator[NextLogits]:
        """Passes as they have to be made beside those of the other processes; at the end all are done, or stop."""
        if self.engine.model.samples_apart:
            with suppress(_SignalSeen):  # the others see it too, and all stop in `meet`
                yield _Apart(next_logits, self.crew)
            self.crew.meet()
        else:
            passes = _Counted(next_logits, self.crew, self.engine.model.device)
            yield passes
            passes.follow()


class _SignalSeen(Exception):
    """A process has received a signal: nobody needs what is being drawn."""


class _Apart:
    """Passes that no other process takes part in."""

    def __init__(self, next_logits: NextLogits, crew: Crew) -> None:
        self._next_logits = next_logits
        self._crew = crew

    def __call__(self, **inputs: Any) -> tuple[Tensor, Any]:
        if self._crew.stopping():
            raise _SignalSeen
        return self._next_logits(**inputs)


class _Counted:
    """Passes that all processes make equally often."""

    def __init__(self, next_logits: NextLogits, crew: Crew, device: torch.device) -> None:
        self._next_logits = next_logits
        self._crew = crew
        self._device = device
        self._made = 0

    def __call__(self, **inputs: Any) -> tuple[Tensor, Any]:
        if self._made % PASSES_AGREED == 0:
            self._crew.go_on(True)
        self._made += 1
        return self._next_logits(**inputs)

    def follow(self) -> None:
        """Make the passes that others still need."""
        while self._made % PASSES_AGREED or self._crew.go_on(False):
            self._made += 1
            one_token_pass(self._next_logits, self._device)
