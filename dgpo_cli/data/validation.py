"""Which rows are split off for validation: by the hash of their prompt, so neither seed nor order decides.

A prompt that occurs twice is on one side with both rows. As a file grows, rows stay on their side.
"""

from __future__ import annotations

import hashlib

from dgpo_cli.types import Problem


def part_of(problems: list[Problem], fraction: float, *, validation: bool) -> list[Problem]:
    """The rows on one side: of `validation`, about `fraction` of them and at least one prompt, or all others."""
    if not fraction:
        return problems
    places = [_place(problem) for problem in problems]
    last = max(fraction, min(places, default=0.0))
    return [problem for problem, place in zip(problems, places, strict=True) if (place <= last) is validation]


def _place(problem: Problem) -> float:
    """From 0 to 1, evenly over prompts."""
    digest = hashlib.sha256(repr(problem.messages).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8]) / 2**64
