"""The weights of a model as a stream, for an engine that holds a copy: names as in a checkpoint, one tensor at a time.

A sharded weight is gathered when its turn comes and let go of with the next, so that no place ever holds the whole
model. An adapter is added in on the way, by the arithmetic of `save_merged`. The bytes are the same under every
strategy, because whatever is cut or added, is put together before it is cast.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.errors import ConfigError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.sharding import full
from dgpo_cli.traffic import WEIGHTS

BASE = ".base_layer"  # peft's name for a layer under an adapter


def exported(model: LanguageModel, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """(name, weight in `dtype`) of everything that a merged checkpoint of the model would hold, without a tied head.

    If the model is sharded every process has to go through all of it. A tensor that is handed out may be the model's
    own: it is read, never written to, and not kept beyond the next update.

    Raises:
        ConfigError: transformers keeps the weights of this model in another layout than its checkpoints.
    """
    _check_layout(model.model)
    adapted = _adapted_layers(model)
    with torch.no_grad():
        for name, weight in _own_weights(model):
            layer = adapted.get(name)
            whole = full(model.full_weights.get(name, weight).detach(), WEIGHTS)
            if layer is not None:
                whole = _merged(layer, whole, str(model.adapter and model.adapter.name))
            yield name.replace(BASE, ""), whole.to(dtype)


def tied_head(model: LanguageModel) -> str | None:
    """The name of the embedding that is also the output head; None if the head has a weight of its own."""
    head, embedding = model.model.get_output_embeddings(), model.model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return None
    return str(next(name for name, weight in model.model.named_parameters() if weight is embedding.weight))


def _own_weights(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    """Parameters and stored buffers by name, without those of adapters; what has two names comes once."""
    kept = model.model.state_dict(keep_vars=True)
    own = {id(weight) for weight in model.frozen_weights()} if model.adapter else None
    seen: set[int] = set()
    for name, weight in kept.items():
        parameter = isinstance(weight, torch.nn.Parameter)
        if id(weight) in seen or (own is not None and parameter and id(weight) not in own):
            continue
        seen.add(id(weight))
        yield name, weight


def _adapted_layers(model: LanguageModel) -> dict[str, Any]:
    """Of a model whose adapter is on: name of each weight under it -> peft's layer."""
    if model.adapter is None or model.adapter.name is None:
        return {}
    name = model.adapter.name
    layers = {prefix: module for prefix, module in model.model.named_modules() if name in getattr(module, "lora_A", ())}
    return {f"{prefix}{BASE}.weight": layer for prefix, layer in layers.items()}


def _merged(layer: Any, weight: Tensor, adapter: str) -> Tensor:
    """W + scaling B A, as peft's `merge` computes it, in W's dtype."""
    down, up = (full(part[adapter].weight.detach(), WEIGHTS) for part in (layer.lora_A, layer.lora_B))
    added = up.to(weight.device) @ down.to(weight.device)
    if layer.fan_in_fan_out:
        added = added.T
    merged = weight.clone()
    merged += added * layer.scaling[adapter]
    return merged


def _check_layout(model: Any) -> None:
    """Whether names and shapes in memory are those of a checkpoint: transformers fuses the experts of some models."""
    from transformers.core_model_loading import revert_weight_conversion

    inside = {name: torch.empty(weight.shape, device="meta") for name, weight in model.named_parameters()}
    inside = {name: weight for name, weight in inside.items() if "lora_" not in name}
    inside = {name.replace(BASE, ""): weight for name, weight in inside.items()}
    stored = revert_weight_conversion(model, dict(inside))
    if {name: weight.shape for name, weight in stored.items()} != {name: one.shape for name, one in inside.items()}:
        raise ConfigError(
            f"engine=vllm: transformers keeps the weights of {type(model).__name__} in another layout than its "
            "checkpoints, and cannot give them one by one",
            "engine=transformers",
        )
