"""Rollouts of several lengths, one of them without a token, for tests of what is made of rollouts."""

from __future__ import annotations

import torch

from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

LENGTHS = [5, 1, 9, 0, 3]


def uneven_rollouts(vocabulary: int = 400) -> list[Rollout]:
    """Random ids: prompts of 4 to 8 tokens, completions of LENGTHS."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for row, length in enumerate(LENGTHS):
        ids = torch.randint(2, vocabulary, (4 + row + length,), generator=generator).tolist()
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", tuple(ids[: 4 + row]))
        made.append(Rollout(SampleRequest(prompt, 0, 0), tuple(ids[4 + row :]), "", "stop"))
    return made
