"""The completions of a study: the same requests as an evaluation's, so with the same seed the same samples."""

from __future__ import annotations

from dgpo_cli.evaluation.generation_units import generation_units
from dgpo_cli.types import Prompt, SampleRequest


def units_of_evaluation(prompts: list[Prompt], *, k: int, batch_size: int, seed: int) -> list[list[SampleRequest]]:
    """The requests of samples 0 .. k-1 of every prompt by generation unit; a unit may hold samples beyond k, too."""
    units = generation_units(len(prompts), batch_size, k)
    return [unit.requests(prompts, seed, number) for number, unit in enumerate(units)]
