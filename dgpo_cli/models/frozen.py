"""Frozen weights cast once to the dtype that they compute in, and an output layer whose logits are never rounded.

autocast keeps what it casts only for weights that take a gradient: a frozen one would be cast again by every product,
which is once a token while completions are sampled. What is trained stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.output_head import whole_product, widened


def cast_frozen(model: Any, dtype: torch.dtype, *, keep: bool = False) -> dict[str, Tensor]:
    """Store the frozen float32 matrices of a model's linear layers in `dtype`: the numbers that autocast gives.

    Embeddings and norms stay: autocast computes with them in float32. `keep`: the float32 weights by name are returned,
    for a model whose weights are renewed and saved.
    """
    kept: dict[str, Tensor] = {}
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    for prefix, module in model.named_modules():
        if not _is_product(module) or _is_read_otherwise(model, prefix):
            continue
        # A head's bias is added to float32 logits, and a tied head is the embedding as well.
        names = ("weight", "bias") if module is not head else ("weight",) if head.weight is not embedding.weight else ()
        for name in names:
            weight = getattr(module, name, None)
            if weight is None or weight.requires_grad or weight.dtype != torch.float32:
                continue
            if keep:
                kept[f"{prefix}.{name}"] = weight.data
            weight.data = weight.data.to(dtype)
    return kept


def cast_head(model: Any, dtype: torch.dtype) -> Tensor | None:
    """The weight of a frozen head in `dtype` where the model has to keep it in float32: it is the embedding too."""
    weight = model.get_output_embeddings().weight
    return None if weight.requires_grad or weight.dtype == dtype else weight.detach().to(dtype)


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


@contextmanager
def float32_logits(layer: Any, weight: Tensor) -> Iterator[None]:
    """The output layer answers in float32 within, from a low-precision `weight` and hidden states of its dtype.

    What the model does to its logits afterwards (softcap, scale) is then done in float32 too.
    """
    wide = widened(weight) if not torch.is_grad_enabled() else weight

    def forward(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            logits = whole_product(wide, hidden.to(weight.dtype))
            bias = getattr(layer, "bias", None)
            return logits if bias is None else logits + bias.float()

    before = layer.__dict__.get("forward")
    layer.forward = forward
    try:
        yield
    finally:
        if before is None:
            del layer.forward
        else:
            layer.forward = before
