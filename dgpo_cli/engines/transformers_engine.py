"""Sampling with transformers in this process: one decoding loop, explicit in every choice.

`generate` is not used: it fills unset options from the model's generation_config (penalties, top_k, top_p), and its
random numbers depend on the rest of the batch. Here each sample has its own stream of uniforms (`core.seeds`),
turned into a token by inverting the cumulative distribution, and nothing but `Sampling` shapes that distribution.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from dgpo_cli.core.seeds import uniforms
from dgpo_cli.engines.unit_batch import UnitBatch
from dgpo_cli.errors import RunError
from dgpo_cli.models.language_model import LanguageModel, NextLogits
from dgpo_cli.progress import beat
from dgpo_cli.types import EngineFacts, Rollout, SampleRequest, Sampling

# Number of the way in which rows are put together for a pass. It decides the last bits of logits, so samples of another
# number are not continued: 1 computed every row to the end of its unit, and each prompt for every completion.
DECODING = 2
BLOCK_IDS = 512  # of the vocabulary, whose masses are added up together


class TransformersEngine:
    """Draws completions in generation units of up to `batch_size` requests, in the order given.

    Which requests share a unit, padding included, follows from that order and from the units that they name, and from
    nothing else: logits differ in the last bits with the batch that they are computed in.
    """

    def __init__(self, model: LanguageModel, *, stop_ids: frozenset[int], batch_size: int) -> None:
        self.model = model
        self.stop_ids = stop_ids
        self.batch_size = batch_size
        self.version: int | None = None

    @property
    def facts(self) -> EngineFacts:
        return EngineFacts(
            depends_on_unit=True,
            units_at_once=1,
            gives_logprobs=True,
            shares_devices=True,
            computes_as_trained=True,
            manifest={
                "engine": "transformers",
                "decoding": DECODING,
                "device": self.model.device.type,
                "compute_dtype": self.model.computes_in,
                "stop_ids": sorted(self.stop_ids),
            },
        )

    def load(self, version: int) -> None:
        """Note which step's weights these are: they are the policy's own, so they are there already."""
        self.version = version

    def prepare(self, longest: int) -> None:
        """Nothing is to be started."""

    def rest(self) -> None:
        """It holds nothing that training needs."""

    def measured(self) -> dict[str, float]:
        """Nothing is pushed anywhere."""
        return {}

    def close(self) -> None:
        """Nothing was started, and the model belongs to the caller."""

    def generate(self, requests: list[SampleRequest], sampling: Sampling) -> list[Rollout]:
        """One completion a request, in order.

        Raises:
            RunError: the model gives logits that are not numbers.
        """
        with self.model.sampling() as next_logits:
            return [rollout for unit in self.units(requests) for rollout in self.draw(unit, sampling, next_logits)]

    def units(self, requests: list[SampleRequest]) -> list[list[SampleRequest]]:
        """The generation units that requests are cut into: those they name, in parts of at most `batch_size`."""
        named = (list(together) for _, together in groupby(requests, key=lambda request: request.unit))
        size = self.batch_size
        return [whole[start : start + size] for whole in named for start in range(0, len(whole), size)]

    def draw(self, unit: list[SampleRequest], sampling: Sampling, next_logits: NextLogits) -> list[Rollout]:
        """One unit's completions."""
        ids, logprobs = self._decode(unit, sampling, next_logits)
        return [self._rollout(*drawn) for drawn in zip(unit, ids, logprobs, strict=True)]

    def _decode(
        self, unit: list[SampleRequest], sampling: Sampling, next_logits: NextLogits
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Ids of each completion, and the log-probs that these were drawn with."""
        device = self.model.device
        prompts = [request.prompt.token_ids for request in unit]
        batch = UnitBatch(prompts, max_tokens=sampling.max_tokens, pad_id=self.model.pad_id, device=device)
        draws = self._draws(unit, sampling).to(device)
        logprobs = torch.zeros(draws.shape, dtype=torch.float64, device=device)
        completions: list[list[int]] = [[] for _ in unit]
        logits = batch.first(next_logits)
        for step in range(sampling.max_tokens):
            chosen, drawn_with = choose(logits, draws[batch.completions, step], sampling)
            logprobs[batch.completions, step] = drawn_with
            ids = chosen.tolist()
            beat()
            for row, number in batch.running:
                completions[number].append(ids[row])
            chosen = batch.end({number for row, number in batch.running if ids[row] in self.stop_ids}, chosen)
            if not batch.running or step + 1 == sampling.max_tokens:
                break
            logits = batch.following(next_logits, chosen)
        by_row = logprobs.tolist()  # read once: each reading waits for the device
        return completions, [values[: len(ids)] for values, ids in zip(by_row, completions, strict=True)]

    def _draws(self, unit: list[SampleRequest], sampling: Sampling) -> Tensor:
        if sampling.temperature == 0:
            return torch.zeros((len(unit), sampling.max_tokens), dtype=torch.float64)
        return torch.from_numpy(np.stack([uniforms(request.seed, sampling.max_tokens) for request in unit]))

    def _rollout(self, request: SampleRequest, ids: list[int], logprobs: list[float]) -> Rollout:
        stopped = bool(ids) and ids[-1] in self.stop_ids
        text = self.model.tokenizer.decode(
            ids[:-1] if stopped else ids, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        reason = "stop" if stopped else "length"
        return Rollout(request, tuple(ids), text, reason, logprobs=tuple(logprobs), policy_step=self.version)


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor]:
    """The next token [b] from logits [b, V] and uniforms [b]: the first id whose cumulative mass passes u.

    And its log-prob [b] under the distribution that it is drawn from, float64.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        chosen = logits.argmax(dim=-1)
        if not bool(torch.isfinite(logits.gather(1, chosen[:, None])).all()):
            raise _not_numbers()
        return chosen, torch.zeros(chosen.shape, dtype=torch.float64, device=chosen.device)
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1.0:
        probabilities = _nucleus(probabilities, sampling.top_p)
    chosen, total = _inverted(probabilities, draws)
    mass = probabilities.gather(1, chosen[:, None]).double()
    return chosen, torch.log(mass[:, 0] / total)


def _inverted(probabilities: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """The ids [b] that uniforms [b] fall on in cumulative masses of probabilities [b, V], and the total mass [b].

    A large vocabulary is added up in blocks first. Only the block that a draw falls into is gone through id by id.
    """
    size = probabilities.shape[1]
    if size < 2 * BLOCK_IDS:
        cumulative = probabilities.double().cumsum(dim=-1)  # [b, V]
        return _passed(cumulative, draws * _numbers(cumulative[:, -1])), cumulative[:, -1]
    whole = size // BLOCK_IDS
    blocks = probabilities[:, : whole * BLOCK_IDS].unflatten(1, (whole, BLOCK_IDS)).sum(dim=-1, dtype=torch.float64)
    rest = probabilities[:, whole * BLOCK_IDS :].sum(dim=-1, keepdim=True, dtype=torch.float64)
    cumulative = torch.cat([blocks, rest], dim=1).cumsum(dim=-1)  # [b, blocks]
    total = _numbers(cumulative[:, -1])
    threshold = draws * total
    block = _passed(cumulative, threshold)
    before = torch.where(block > 0, cumulative.gather(1, (block - 1).clamp(min=0)[:, None])[:, 0], 0.0)
    ids = block[:, None] * BLOCK_IDS + torch.arange(BLOCK_IDS, device=block.device)
    within = probabilities.gather(1, ids.clamp(max=size - 1)).double().masked_fill(ids >= size, 0.0)
    return block * BLOCK_IDS + _passed(within.cumsum(dim=-1), threshold - before), total


def _passed(cumulative: Tensor, threshold: Tensor) -> Tensor:
    """The first place [b] in cumulative masses [b, n] that is above a threshold [b].

    The threshold never reaches the last one: the search would run past the last place that has any mass.
    """
    total = cumulative[:, -1]
    reached = torch.minimum(threshold, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, reached[:, None], right=True)[:, 0]


def _numbers(total: Tensor) -> Tensor:
    if not bool(torch.isfinite(total).all()):
        raise _not_numbers()
    return total


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most likely ids whose mass reaches top_p. probabilities: [b, V]."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    beyond = ordered.cumsum(dim=-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(1, order, ordered.masked_fill(beyond, 0.0))


def _not_numbers() -> RunError:
    return RunError(
        "the model's logits are not numbers (NaN or infinite) while sampling",
        "its weights are damaged or training diverged: check the model, or resume from an earlier checkpoint with a "
        "smaller optim.lr",
    )
