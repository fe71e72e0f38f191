"""Does a server compute what the trainer computes? Fixed sequences, their log-probs from both, the largest difference.

Bytes and hashes say that what was sent has arrived. They can't say that it was right when it was hashed, nor that the
server computes with it: a packed copy of an old head passes. So the numbers themselves are compared. A step of training
moves log-probs by less than bfloat16 rounds: staleness of that size is for hashes and versions to find.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.core.seeds import uniforms
from dgpo_cli.engines.vllm.conversation import Conversation
from dgpo_cli.engines.vllm.facts import longest_sequence
from dgpo_cli.errors import RunError, ServerError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.scoring import score_rollouts
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.types import Problem, Prompt, Rollout, SampleRequest

T = TypeVar("T")
SEQUENCES, LENGTH = 4, 24  # the length is less for servers of shorter sequences
SEED = 20240229
# Roundings, in eps of the coarser dtype, that separate two correct computations at the scale of the logits. Measured on
# a CPU with random models of two layers: 3 to 6 in float32, below 1 in bfloat16. Rollouts of the bundled model in
# bfloat16 were up to 0.15 nats apart. The margin is for deeper models.
ROUNDINGS = {torch.float32: 64.0, torch.bfloat16: 8.0, torch.float16: 8.0}


class LostServer(RunError):
    """A server does not answer the probe: it may be no more."""


def sequences(vocabulary: int, *, count: int = SEQUENCES, length: int = LENGTH, seed: int = SEED) -> list[list[int]]:
    """Ids that depend on the vocabulary and the seed alone: no data, the same in every process and run."""
    draws = uniforms(seed, count * length).reshape(count, length)
    return [[min(int(draw * vocabulary), vocabulary - 1) for draw in row] for row in draws]


def bound(logprobs: Tensor, *dtypes: torch.dtype) -> float:
    """The largest difference, in nats, that rounding explains: roundings x eps x the scale of the logits.

    Logits are sums of products that are each rounded in the coarser of `dtypes`, so their error grows with eps and with
    their size. The size is not known here, but a log-prob is a difference of logits: the largest one stands for it, and
    1 for a flat distribution.
    """
    coarse = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
    scale = max(1.0, float(logprobs.abs().max()))
    return ROUNDINGS[coarse] * torch.finfo(coarse).eps * scale


def trainer_logprobs(model: LanguageModel, ids: Sequence[Sequence[int]], processes: Processes = SOLO) -> Tensor:
    """log p of every id but the first of each sequence, at temperature 1, by the trainer  # [sequences, length - 1]

    All processes take part.
    """
    rollouts = []
    for row, sequence in enumerate(ids):
        prompt = Prompt(Problem(row, str(row), (("user", ""),), ""), "", (sequence[0],))
        rollouts.append(Rollout(SampleRequest(prompt, 0, 0), tuple(sequence[1:]), "", "length"))
    lengths = [len(sequence) - 1 for sequence in ids]
    signals = score_rollouts(
        model, None, rollouts, lengths, temperature=1.0, tokens=len(ids) * len(ids[0]), processes=processes
    )
    return signals.logprobs


def probe_gap(
    urls: Sequence[str],
    model: LanguageModel,
    dtype: torch.dtype,
    processes: Processes = SOLO,
    *,
    seconds: float = 600.0,
) -> tuple[float, float]:
    """The largest |trainer - engine| in nats over all servers, and the bound that it is held to.

    Args:
        dtype: of the servers' weights.

    Raises:
        LostServer: one does not answer. In all processes alike.
        RunError: a server gives no log-probs.
    """
    length = _asked(lambda: probe_length(urls, seconds), processes)
    ids = sequences(model.vocabulary_size, length=length)
    ours = trainer_logprobs(model, ids, processes).double()

    def theirs() -> float:
        gaps = [0.0]
        for url in urls:
            talk = Conversation(url, timeout_seconds=seconds)
            told = torch.tensor(np.array([talk.prompt_logprobs(list(row)) for row in ids]))
            gap = float((told - ours).abs().max())
            gaps.append(gap if np.isfinite(gap) else float("inf"))
        return max(gaps)

    gap = _asked(theirs, processes)
    return gap, bound(ours, dtype, getattr(torch, model.computes_in))


def probe_length(urls: Sequence[str], seconds: float) -> int:
    """Tokens of a sequence that every server takes, with room for the one token that it has to draw behind it."""
    shortest = min((longest_sequence(url, timeout_seconds=seconds) for url in urls), default=LENGTH + 1)
    return max(2, min(LENGTH, shortest - 1))


def _asked(ask: Callable[[], T], processes: Processes) -> T:
    """What the main process learns from the servers, in every process; so is the error, whose kind decides what next.

    Raises:
        LostServer: a server does not answer.
    """

    def answer() -> tuple[Any, tuple[str, str] | None]:
        if not processes.main:
            return None, None
        try:
            return ask(), None
        except ServerError as error:
            [problem] = error.problems
            return None, (problem.message, problem.hint)

    found, lost = processes.from_main(processes.agreed(answer))
    if lost is not None:
        raise LostServer(*lost)
    return found  # type: ignore[no-any-return]


def too_far(gap: float, limit: float, names: Sequence[str]) -> RunError:
    """The end of a run whose servers do not compute what the trainer computes. names: of the weights that differ."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    which = f"these weights differ: {shown}" if names else "all weights are alike, so the servers compute otherwise"
    return RunError(
        f"engine=vllm: log-probs of trainer and servers differ by {gap:.3g} nats, where rounding explains {limit:.3g}; "
        f"{which}",
        "the last checkpoint stands; resume= continues from there. engine=transformers computes in the trainer itself",
    )
