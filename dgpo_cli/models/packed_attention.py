"""Attention of sequences that lie one after another in one row: each sees itself alone, and no place is padding.

transformers lets a program bring an attention function of its own. Ours takes torch's fused causal kernel on each
sequence, so that work grows with the sum of squared lengths; a block-diagonal mask would cost the square of the sum.
Whatever is not packed goes to transformers' own function.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.models.sequence_parallel import ALONE, Team

NAME = "dgpo_packed"
ORDINARY = "sdpa"
OF_THE_LONGEST = {"dynamic", "longrope"}  # rotations that a part of a sequence, or one beside a longer, gets otherwise


def no_packing(model: Any) -> str | None:
    """Why sequences cannot be packed for this model of transformers; None if they can."""
    config = model.config.get_text_config()
    if config._attn_implementation not in (ORDINARY, NAME) or not model._can_set_attn_implementation():
        return f"{type(model).__name__} has an attention of its own"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"} or (getattr(config, "sliding_window", None) and not hasattr(config, "layer_types")):
        return f"{type(model).__name__} has layers in which a token does not see its whole sequence"
    if _rope_types(config) & OF_THE_LONGEST:
        return f"{type(model).__name__} scales its positions by the longest sequence of a pass"
    return None


def _rope_types(config: Any) -> set[str]:
    found = getattr(config, "rope_parameters", None) or {}
    kinds = [found, *(value for value in found.values() if isinstance(value, dict))]  # one for all layers, or by kind
    return {kind["rope_type"] for kind in kinds if "rope_type" in kind}


def pack_attention(model: Any) -> None:
    """Let the model take packed rows, beside what it took before."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)


def packed_inputs(sizes: list[int], device: torch.device, team: Team = ALONE) -> dict[str, Any]:
    """What a pass takes beside the ids [1, S] of sequences of these sizes, or beside a team's [1, S / size] of them.

    A mask of four dimensions is handed on as it is: so no mask of [S, S] is made.
    """
    positions = torch.cat([torch.arange(size) for size in sizes])[None].chunk(team.size, dim=1)[team.place]
    mark = torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    return {
        "position_ids": positions.to(device),
        "attention_mask": mark.to(device),
        "packed_sizes": tuple(sizes),
        "team": team,
    }


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed_sizes: tuple[int, ...] | None = None,
    team: Team = ALONE,
    **more: Any,
) -> tuple[Tensor, None]:
    """query [1, H, S, d], keys and values [1, H_kv, S, d]; the output [1, S, H, d], as transformers' own gives it.

    In a team each has its part of S.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if packed_sizes is None:
        output: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **more)
        return output
    if team.size > 1:
        query, key, value = (team.to_heads(tensor) for tensor in (query, key, value))
    parts, start = [], 0
    for size, alike in groupby(packed_sizes):
        count = len(list(alike))
        end = start + count * size
        rows = [tensor[0, :, start:end].unflatten(1, (count, size)).transpose(0, 1) for tensor in (query, key, value)]
        out, _ = sdpa_attention_forward(module, *rows, None, **more)  # [count, size, H, d]
        parts.append(out.flatten(0, 1))
        start = end
    whole = torch.cat(parts)[None]
    return team.to_tokens(whole) if team.size > 1 else whole, None
