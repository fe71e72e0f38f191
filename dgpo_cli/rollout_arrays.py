"""Rollouts as a few arrays: what one process sends another of them.

A token is 4 bytes of an id, and 4 or 8 of a log-prob if those are wanted; as numbers of Python it would be 5 to 14, and
take as long to read as to draw. A log-prob comes back to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

NOWHERE = Problem(0, "", (), "")  # of a prompt that is trained on where no problem is known


@dataclass(frozen=True)
class Ragged:
    """Sequences of unlike length, one behind the other; None in place of one counts as of no length."""

    lengths: NDArray[Any]  # [b], -1 for None
    values: NDArray[Any]  # [n]

    @classmethod
    def of(cls, sequences: Sequence[Sequence[float] | None], dtype: Any) -> Ragged:
        """dtype: of each value."""
        lengths = np.array([-1 if one is None else len(one) for one in sequences], np.int32)
        count = int(lengths.clip(min=0).sum())
        return cls(lengths, np.fromiter((value for one in sequences for value in one or ()), dtype, count))

    def narrowed(self) -> Ragged:
        """The same in float32, if that holds every value to the last bit."""
        narrow = self.values.astype(np.float32)
        return Ragged(self.lengths, narrow) if np.array_equal(narrow.astype(self.values.dtype), self.values) else self

    def sequences(self) -> list[tuple[Any, ...] | None]:
        """The sequences, of Python's numbers."""
        ends = np.cumsum(self.lengths.clip(min=0))
        starts = ends - self.lengths.clip(min=0)
        return [
            None if length < 0 else tuple(self.values[start:end].tolist())
            for length, start, end in zip(self.lengths.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]


@dataclass(frozen=True)
class DrawnArrays:
    """Completions on their way to the process that asked for them: it has the requests."""

    token_ids: Ragged
    logprobs: Ragged
    plain: list[tuple[str, str, int | None, int | None]]  # text, finish_reason, reported_tokens, policy_step

    @classmethod
    def of(cls, rollouts: Sequence[Rollout]) -> DrawnArrays:
        return cls(
            Ragged.of([one.token_ids for one in rollouts], np.int32),
            Ragged.of([one.logprobs for one in rollouts], np.float64).narrowed(),
            [(one.text, one.finish_reason, one.reported_tokens, one.policy_step) for one in rollouts],
        )

    def answering(self, requests: Sequence[SampleRequest]) -> list[Rollout]:
        """The rollouts as they were drawn."""
        parts = zip(requests, self.token_ids.sequences(), self.logprobs.sequences(), self.plain, strict=True)
        return [
            Rollout(request, ids or (), text, reason, reported, logprobs, policy_step)
            for request, ids, logprobs, (text, reason, reported, policy_step) in parts
        ]


@dataclass(frozen=True)
class TrainedArrays:
    """Rollouts on their way to a process that trains on them: no text, no problem, log-probs if they are asked for."""

    prompts: Ragged  # each once
    prompt: NDArray[Any]  # [B], which of them
    draws: NDArray[Any]  # [B]
    samples: NDArray[Any]  # [B]
    token_ids: Ragged
    logprobs: Ragged | None
    truncated: NDArray[Any]  # [B]
    policy_steps: list[int | None]

    @classmethod
    def of(cls, rollouts: Sequence[Rollout], *, logprobs: bool) -> TrainedArrays:
        numbers: dict[tuple[int, ...], int] = {}
        prompt = [numbers.setdefault(one.request.prompt.token_ids, len(numbers)) for one in rollouts]
        return cls(
            Ragged.of(list(numbers), np.int32),
            np.array(prompt, np.int32),
            np.array([one.request.draw for one in rollouts], np.int64),
            np.array([one.request.sample for one in rollouts], np.int32),
            Ragged.of([one.token_ids for one in rollouts], np.int32),
            Ragged.of([one.logprobs for one in rollouts], np.float64).narrowed() if logprobs else None,
            np.array([one.truncated for one in rollouts], np.bool_),
            [one.policy_step for one in rollouts],
        )

    def rollouts(self) -> list[Rollout]:
        """What training reads of them; everything else is empty."""
        prompts = [Prompt(NOWHERE, "", ids or ()) for ids in self.prompts.sequences()]
        told = [None] * len(self.draws) if self.logprobs is None else self.logprobs.sequences()
        plain = zip(self.prompt, self.draws, self.samples, self.truncated, self.policy_steps, strict=True)
        return [
            Rollout(
                SampleRequest(prompts[prompt], int(sample), 0, int(draw)),
                ids or (),
                "",
                "length" if truncated else "stop",
                logprobs=values,
                policy_step=step,
            )
            for (prompt, draw, sample, truncated, step), ids, values in zip(
                plain, self.token_ids.sequences(), told, strict=True
            )
        ]
