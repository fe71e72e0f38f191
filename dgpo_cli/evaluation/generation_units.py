"""Which samples of an evaluation are drawn in one batch, and in which order.

Logits differ in the last bits with the batch that they are computed in, so a sample is a function of its seed and of
the unit that it is drawn in. Units follow from the number of problems and the batch size alone: a block of problems
times a block of sample numbers. They do not depend on k, so k=32 after k=8 draws only what is missing, and gives what
one run of k=32 would have given.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dgpo_cli.core.seeds import derive_seed
from dgpo_cli.types import Prompt, SampleRequest

Key = tuple[int, int]  # of a sample: index of its problem, sample number


@dataclass(frozen=True)
class Unit:
    """Samples that are drawn in one batch: positions of problems times sample numbers."""

    problems: range
    samples: range

    def requests(self, prompts: list[Prompt], seed: int, number: int) -> list[SampleRequest]:
        """All of the unit's; `number` tells it from the others of a call."""
        return [
            SampleRequest(prompts[p], sample, derive_seed("eval", seed, prompts[p].problem.index, sample), unit=number)
            for p in self.problems
            for sample in self.samples
        ]

    def keys(self, prompts: list[Prompt], k: int) -> set[Key]:
        """Of its samples below k."""
        return {(prompts[p].problem.index, sample) for p in self.problems for sample in self.samples if sample < k}


def key_of(request: SampleRequest) -> Key:
    return request.prompt.problem.index, request.sample


def generation_units(problems: int, batch_size: int, k: int) -> Iterator[Unit]:
    """The units that samples 0 .. k-1 of every problem lie in, lower sample numbers first.

    Problems are cut into blocks of `batch_size`. If all fit into a batch several times, a unit takes several samples of
    each: blocks of 1, 1, 2, 4, ... samples up to the largest power of two that fits, so that a small k wastes little.
    For a k inside the last block the samples beyond it are drawn and dropped.
    """
    widest = _widest(problems, batch_size)
    start = 0
    while start < k:
        width = min(widest, max(1, start))
        for first in range(0, problems, batch_size):
            yield Unit(range(first, min(first + batch_size, problems)), range(start, start + width))
        start += width


def in_drawing_order(prompts: list[Prompt], batch_size: int, keys: Collection[Key]) -> list[Key]:
    """Keys of samples in the order in which they are drawn if nothing fails."""
    places = {prompt.problem.index: place for place, prompt in enumerate(prompts)}
    widest = _widest(len(prompts), batch_size)

    def drawn_at(key: Key) -> tuple[int, ...]:
        place, sample = places[key[0]], key[1]
        # `generation_units` begins blocks at 0, 1, 2, 4, ... and then at every `widest`.
        block = sample // widest * widest if sample >= widest else (1 << sample.bit_length()) >> 1
        return block, place // batch_size, place, sample

    return sorted((key for key in keys if key[0] in places), key=drawn_at)


def _widest(problems: int, batch_size: int) -> int:
    """Samples of a problem in the widest unit: the largest power of two of which all problems fit into a batch."""
    return 1 << (max(1, batch_size // problems).bit_length() - 1)
