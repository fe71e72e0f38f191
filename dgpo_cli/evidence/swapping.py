"""The swap test's sampling: one model writes, and at some of the tokens another one chooses.

Both models read the same text and give their next-token distributions. A rule says at which tokens the other one's
counts. The uniform number that turns a distribution into a token belongs to the place in the completion and not to the
model, so where the two agree the swap changes nothing. With no token swapped the completion is the writer's own, bit
for bit, and with every token swapped the other's, as an evaluation with the same seed and units draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.core.seeds import derive_seed, uniforms
from dgpo_cli.core.token_stats import stats_from_logits
from dgpo_cli.engines.transformers_engine import choose
from dgpo_cli.engines.unit_batch import UnitBatch
from dgpo_cli.models.language_model import NextLogits
from dgpo_cli.models.policy import Policy
from dgpo_cli.progress import beat
from dgpo_cli.types import Rollout, SampleRequest, Sampling

Distance = Callable[[Tensor, Tensor], Tensor]  # logits [b, V] of the writer and of the other -> [b]


class Rule(Protocol):
    """Whether the other model chooses a token."""

    def __call__(self, request: SampleRequest, place: int, distance: float) -> bool:
        """place: of the token in its completion. distance: how far the two models are apart there."""
        ...


@dataclass(frozen=True)
class Swapped:
    """A completion, with the distance at each of its tokens and whether the other model chose it."""

    rollout: Rollout
    distances: tuple[float, ...]
    swapped: tuple[bool, ...]


def nowhere(request: SampleRequest, place: int, distance: float) -> bool:
    return False


def everywhere(request: SampleRequest, place: int, distance: float) -> bool:
    return True


@dataclass(frozen=True)
class Above:
    """Where the distance is more than a threshold."""

    threshold: float

    def __call__(self, request: SampleRequest, place: int, distance: float) -> bool:
        return distance > self.threshold


@dataclass(frozen=True)
class Below:
    """Where the distance is less than a threshold."""

    threshold: float

    def __call__(self, request: SampleRequest, place: int, distance: float) -> bool:
        return distance < self.threshold


class AtRandom:
    """At as many places of each completion as were swapped in another arm, drawn from that completion's length."""

    def __init__(self, other: Sequence[Swapped], seed: int) -> None:
        self._places: dict[tuple[int, int], frozenset[int]] = {}
        for one in other:
            index, sample = key_of(one.rollout.request)
            draws = uniforms(derive_seed("swap at random", seed, index, sample), len(one.swapped))
            chosen = np.argsort(draws, kind="stable")[: sum(one.swapped)]
            self._places[index, sample] = frozenset(chosen.tolist())

    def __call__(self, request: SampleRequest, place: int, distance: float) -> bool:
        return place in self._places.get(key_of(request), ())


def key_of(request: SampleRequest) -> tuple[int, int]:
    return request.prompt.problem.index, request.sample


def hellinger(writer: Tensor, other: Tensor) -> Tensor:
    """The squared distance d, as credit has it."""
    found = stats_from_logits(writer, writer.argmax(dim=-1), ref_logits=other).hellinger
    assert found is not None
    return found


def kl(writer: Tensor, other: Tensor) -> Tensor:
    """sum_a p_a (log p_a - log q_a), p the writer's, q the other's, nats; not below 0."""
    log_p, log_q = torch.log_softmax(writer.double(), dim=-1), torch.log_softmax(other.double(), dim=-1)
    return torch.where(log_p > -torch.inf, log_p.exp() * (log_p - log_q), 0.0).sum(dim=-1).clamp(min=0.0)


def entropy(writer: Tensor, other: Tensor) -> Tensor:
    """The writer's, nats: where it is unsure, whatever the other says."""
    return stats_from_logits(writer, writer.argmax(dim=-1)).entropy


DISTANCES: dict[str, Distance] = {"hellinger": hellinger, "kl": kl, "entropy": entropy}


def swap(
    writer: Policy,
    other: Policy,
    units: Sequence[list[SampleRequest]],
    sampling: Sampling,
    *,
    rule: Rule,
    distance: Distance,
) -> list[Swapped]:
    """A completion for each request, in order. A token ends it if the model that chose it ends there.

    Raises:
        RunError: a model gives logits that are not numbers.
    """
    with writer.model.sampling() as of_writer, other.model.sampling() as of_other:
        return [
            one
            for unit in units
            for one in _Unit(writer, other, unit, sampling).draw(of_writer, of_other, rule, distance)
        ]


class _Unit:
    """The completions of a generation unit, fed to both models."""

    def __init__(self, writer: Policy, other: Policy, requests: list[SampleRequest], sampling: Sampling) -> None:
        self._models, self._requests, self._sampling = (writer, other), requests, sampling
        prompts = [request.prompt.token_ids for request in requests]
        self._batches = [
            UnitBatch(prompts, max_tokens=sampling.max_tokens, pad_id=one.model.pad_id, device=one.model.device)
            for one in self._models
        ]
        draws = [uniforms(request.seed, sampling.max_tokens) for request in requests]
        self._draws = torch.from_numpy(np.stack(draws)) * (sampling.temperature > 0)
        self._ids: list[list[int]] = [[] for _ in requests]
        self._logprobs: list[list[float]] = [[] for _ in requests]
        self._distances: list[list[float]] = [[] for _ in requests]
        self._swapped: list[list[bool]] = [[] for _ in requests]
        self._stopped = [False] * len(requests)

    def draw(self, of_writer: NextLogits, of_other: NextLogits, rule: Rule, distance: Distance) -> list[Swapped]:
        passes = (of_writer, of_other)
        logits = [batch.first(one) for batch, one in zip(self._batches, passes, strict=True)]
        for place in range(self._sampling.max_tokens):
            tokens = self._choose(place, logits, rule, distance)
            beat()
            ended = {number for _, number in self._batches[0].running if self._stopped[number]}
            left = [batch.end(ended, tokens.to(batch.completions.device)[batch.completions]) for batch in self._batches]
            if not self._batches[0].running or place + 1 == self._sampling.max_tokens:
                break
            fed = zip(self._batches, passes, left, strict=True)
            logits = [batch.following(one, chosen) for batch, one, chosen in fed]
        return [self._result(number) for number in range(len(self._requests))]

    def _choose(self, place: int, logits: list[Tensor], rule: Rule, distance: Distance) -> Tensor:
        """The next token of each completion of the unit [n]; those that have ended get one that nobody keeps."""
        running = [number for _, number in self._batches[0].running]
        tokens = torch.zeros(len(self._requests), dtype=torch.long)
        chosen, logprobs = [], []
        for batch, own in zip(self._batches, logits, strict=True):
            draws = self._draws.to(own.device)[batch.completions, place]
            ids, drawn_with = choose(own, draws, self._sampling)
            chosen.append(self._by_number(batch, ids))
            logprobs.append(self._by_number(batch, drawn_with))
        apart = self._distance(distance, logits, running)
        for row, number in enumerate(running):
            swapped = rule(self._requests[number], place, apart[row])
            token = int(chosen[swapped][number])
            tokens[number] = token
            self._ids[number].append(token)
            self._logprobs[number].append(float(logprobs[swapped][number]))
            self._distances[number].append(apart[row])
            self._swapped[number].append(swapped)
            self._stopped[number] = token in self._models[swapped].stop_ids
        return tokens

    def _distance(self, distance: Distance, logits: list[Tensor], running: list[int]) -> list[float]:
        """Between the distributions that tokens are drawn from; at temperature 0 as at 1."""
        scale = self._sampling.temperature or 1.0
        rows = []
        for batch, own in zip(self._batches, logits, strict=True):
            places = {number: row for row, number in batch.running}
            rows.append(own[[places[number] for number in running]].float().to(logits[0].device) / scale)
        found: list[float] = distance(rows[0], rows[1]).tolist()
        return found

    def _by_number(self, batch: UnitBatch, values: Tensor) -> Tensor:
        """Values [b] of the rows that are computed, by the number of their completion [n]."""
        found = torch.zeros(len(self._requests), dtype=values.dtype)
        found[batch.completions.cpu()] = values.cpu()
        return found

    def _result(self, number: int) -> Swapped:
        ids, stopped = self._ids[number], self._stopped[number]
        tokenizer: Any = self._models[0].model.tokenizer
        text = tokenizer.decode(
            ids[:-1] if stopped else ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        reason = "stop" if stopped else "length"
        rollout = Rollout(self._requests[number], tuple(ids), text, reason, logprobs=tuple(self._logprobs[number]))
        return Swapped(rollout, tuple(self._distances[number]), tuple(self._swapped[number]))


ROUNDS = 3


def calibrated(
    draw: Callable[[Rule], list[Swapped]], fraction: float, *, highest: bool, first: list[Swapped] | None = None
) -> Above | Below:
    """The threshold at which a share `fraction` of the tokens is swapped, found on completions of its own.

    A round takes the quantile of the distances over the tokens of the round before. The first round's are the writer's
    alone (`first`, if it is at hand). The later ones' are drawn under the threshold so far, since swaps change what is
    written after them. Tokens at the threshold itself are not swapped.
    """
    drawn, rule = draw(nowhere) if first is None else first, Above(np.inf) if highest else Below(-np.inf)
    for number in range(ROUNDS):
        distances = np.concatenate([np.asarray(one.distances) for one in drawn])
        level = float(np.quantile(distances, 1 - fraction if highest else fraction))
        rule = Above(level) if highest else Below(level)
        if number + 1 < ROUNDS:
            drawn = draw(rule)
    return rule
