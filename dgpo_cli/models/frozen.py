"""Models whose weights stand still: cast once for their passes, copied off a policy, renewed from it.

autocast keeps what it casts only for weights that take a gradient. A frozen weight would be cast again by every
product, which while completions are sampled is once a token. So frozen matrices are held in the dtype of the pass. What
is trained stays as it is. Which model is frozen, reference.py decides, and training/loop.py when one is renewed.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.lora import REFERENCE, AdapterView, add_reference, load_adapter
from dgpo_cli.models.sharding import local


def frozen_copy(model: LanguageModel, *, renewed: bool = False) -> LanguageModel:
    """A copy without gradients. Of a model with an adapter no copy: the same one, seen with its adapter off.

    renewed: as in `cast_once`.
    """
    if model.adapter is not None:
        return replace(model, adapter=AdapterView(model.model, None))
    copied = replace(model, model=copy.deepcopy(model.model).requires_grad_(False))
    return cast_once(copied, renewed=renewed)


def renewable_reference(policy: LanguageModel, stored: Path | None) -> LanguageModel:
    """The policy's model seen through a second, frozen adapter: the policy's weights of now, or those of a folder."""
    assert policy.adapter is not None
    if stored is None:
        return replace(policy, adapter=add_reference(policy.model))
    return replace(policy, adapter=load_adapter(policy.model, stored, name=REFERENCE))


def renew(reference: LanguageModel, policy: LanguageModel) -> None:
    """Let the reference take over the weights of a policy of the same shape (reference.refresh_every)."""
    if reference.adapter is not None and policy.adapter is not None:
        reference.adapter.renewed_from(policy.adapter)
        return
    with torch.no_grad():
        for mine, theirs in zip(reference.model.parameters(), policy.model.parameters(), strict=True):
            local(mine).copy_(local(theirs))
        theirs_by_name = dict(policy.model.named_parameters()) if reference.full_weights else {}
        for name, weight in reference.full_weights.items():
            weight.copy_(theirs_by_name[name])
        if reference.low_head is not None:
            reference.low_head.copy_(reference.model.get_output_embeddings().weight)


def cast_once(model: LanguageModel, *, renewed: bool = False) -> LanguageModel:
    """The same model, its frozen float32 weights cast once to the dtype that they compute in; no number changes.

    renewed: its weights will be replaced (`renew`) and saved, so they are kept in float32 beside.
    """
    if model.compute_dtype is None or model.shards is not None:  # shards are gathered in that dtype anyway
        return model
    kept = _cast_products(model.model, model.compute_dtype, keep=renewed)
    return replace(model, low_head=_cast_head(model.model, model.compute_dtype), full_weights=kept)


def _cast_products(model: Any, dtype: torch.dtype, *, keep: bool) -> dict[str, Tensor]:
    """Store the frozen float32 matrices of a model's linear layers in `dtype`: the numbers that autocast gives.

    Embeddings and norms stay: autocast computes with them in float32. `keep`: returns the float32 weights by name.
    """
    kept: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name in _cast_names(model, prefix, module):
            weight = getattr(module, name, None)
            if weight is None or weight.requires_grad or weight.dtype != torch.float32:
                continue
            if keep:
                kept[f"{prefix}.{name}"] = weight.data
            weight.data = weight.data.to(dtype)
    return kept


def _cast_names(model: Any, prefix: str, module: Any) -> tuple[str, ...]:
    """Which tensors of a module autocast would cast."""
    if not _is_product(module) or _is_read_otherwise(model, prefix):
        return ()
    if module is not model.get_output_embeddings():
        return ("weight", "bias")
    # A head's bias is added to float32 logits, and a tied head is the embedding as well.
    return ("weight",) if module.weight is not model.get_input_embeddings().weight else ()


def _is_product(module: Any) -> bool:
    """Whether one product alone reads its weight and bias. Conv1D is GPT-2's linear layer."""
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"


def _is_read_otherwise(model: Any, name: str) -> bool:
    """Whether an adapter computes with a layer's weight itself, as DoRA does, and not with its output alone."""
    parent, _, last = name.rpartition(".")
    if last != "base_layer":
        return False
    adapted = model.get_submodule(parent)
    return not hasattr(adapted, "lora_A") or bool(getattr(adapted, "lora_variant", None))


def _cast_head(model: Any, dtype: torch.dtype) -> Tensor | None:
    """The weight of a frozen head in `dtype`, if the model has to keep it in float32: it is the embedding too."""
    weight = model.get_output_embeddings().weight
    return None if weight.requires_grad or weight.dtype == dtype else weight.detach().to(dtype)
