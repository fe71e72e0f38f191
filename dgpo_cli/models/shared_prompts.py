"""The states of a micro-batch in which each prompt is computed once, whatever number of completions it has.

A group's completions begin with the same tokens. Their keys and values are those of one pass over the prompts, which
every completion then attends to. Gradients go back through both passes, and are those of whole sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dgpo_cli.models.adapted_layers import has_adapted_layers
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.microbatch import MicroBatch

# Two passes cost more than one if they save less than this share of the positions.
SAVED_SHARE = 1 / 8


@dataclass(frozen=True)
class _Prompts:
    """The distinct prompts of a micro-batch, left-padded, so that the first token of each completion follows on."""

    input_ids: Tensor  # [p, L]
    attention_mask: Tensor | None  # [p, L]; None: nothing is padded
    position_ids: Tensor  # [p, L]
    of_row: Tensor  # [b], the place of each row's prompt
    lengths: Tensor  # [b]


def shared_states(model: LanguageModel, batch: MicroBatch) -> Tensor | None:
    """The hidden states [n, D] that predict the counted tokens; None if whole sequences have to be computed.

    That is so on a GPU, whose flash attention knows no common beginning; for sharded weights, which would be gathered
    twice; for layers that are compiled or computed a second time; for packed rows; and if prompts share too little.
    """
    if batch.packed or not _saves_enough(batch) or not _can_share(model):
        return None
    from transformers.cache_utils import DynamicCache, DynamicLayer  # what scores stored signals needs none of it

    cache = DynamicCache(config=model.model.config)
    if not cache.layers or not all(type(layer) is DynamicLayer for layer in cache.layers):
        return None  # a window or a state: what the prompt leaves is not one row a token
    device, longest = model.device, max(batch.lengths)
    prompts = _prompts_of(batch, model.pad_id, device)
    states = model.continued_states(prompts.input_ids, prompts.attention_mask, prompts.position_ids, cache)
    found = states[prompts.of_row, -1][:, None]  # [b, 1, D], what predicts the first token
    mask = batch.mask.to(device)
    if longest > 1:
        for layer in cache.layers:
            layer.reorder_cache(prompts.of_row)
            for repeated in (layer.keys, layer.values):
                if repeated.requires_grad:
                    repeated.register_hook(torch.Tensor.contiguous)  # to add up rows in pieces takes ten times as long
        ids = torch.full(mask.shape, model.pad_id, device=device).masked_scatter(mask, batch.targets.to(device))
        attention = None
        if prompts.attention_mask is not None:
            ones = torch.ones((len(ids), longest - 1), dtype=torch.long, device=device)
            attention = torch.cat([prompts.attention_mask[prompts.of_row], ones], dim=1)
        positions = prompts.lengths[:, None] + torch.arange(longest - 1, device=device)
        # What follows a completion's end is no matter: a causal model does not look ahead.
        rest = model.continued_states(ids[:, :-1], attention, positions, cache)
        found = torch.cat([found, rest], dim=1)  # [b, T, D]
    return found.flatten(0, 1) if min(batch.lengths) == longest else found[mask]


def _saves_enough(batch: MicroBatch) -> bool:
    distinct, whole = set(batch.prompts), batch.input_ids.numel()
    shared = len(distinct) * max(map(len, distinct)) + len(batch.rows) * (max(batch.lengths) - 1)
    return len(distinct) < len(batch.rows) and whole - shared >= SAVED_SHARE * whole


def _can_share(model: LanguageModel) -> bool:
    own_code = type(model.model).__module__.startswith("transformers.")
    return (
        own_code
        and model.has_head
        and model.shards is None
        and model.device.type == "cpu"
        and not has_adapted_layers(model.model)
    )


def _prompts_of(batch: MicroBatch, pad_id: int, device: torch.device) -> _Prompts:
    distinct = {prompt: place for place, prompt in enumerate(dict.fromkeys(batch.prompts))}
    width = max(map(len, distinct))
    ids = torch.full((len(distinct), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(distinct), width), dtype=torch.long)
    for prompt, place in distinct.items():
        ids[place, width - len(prompt) :] = torch.tensor(prompt)
        mask[place, width - len(prompt) :] = 1
    padded = not bool(mask.all())
    return _Prompts(
        ids.to(device),
        mask.to(device) if padded else None,
        (mask.cumsum(dim=1) - 1).clamp(min=0).to(device),
        torch.tensor([distinct[prompt] for prompt in batch.prompts], device=device),
        torch.tensor([len(prompt) for prompt in batch.prompts], device=device),
    )
