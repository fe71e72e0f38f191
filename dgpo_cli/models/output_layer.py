"""The output head of a transformers model: read as a record, and multiplied without a logit below float32.

Two ways lead to logits. Scoring and sharded sampling take the `Head` and form the product themselves (`logits_of`; in
tiles in core/). Passes of the whole model let its own output layer answer, within `float32_logits`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.core.output_head import whole_product, widened
from dgpo_cli.core.token_stats import Head


def head_of(model: Any) -> Head:
    """The head of a transformers model with what its class does to the product; weights as they lie there."""
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logit_scale", None) is not None:  # Cohere multiplies
        scale = float(config.logit_scale)
    elif getattr(config, "logits_scaling", None) is not None:  # Granite divides
        scale = 1.0 / float(config.logits_scaling)
    return Head(layer.weight, getattr(layer, "bias", None), getattr(config, "final_logit_softcapping", None), scale)


def logits_of(head: Head, hidden: Tensor) -> Tensor:
    """Logits [b, V] of hidden states [b, D], never rounded below float32."""
    logits = whole_product(head.weight, hidden) * head.scale
    if head.bias is not None:
        logits = logits + head.bias
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


@contextmanager
def float32_logits(layer: Any, weight: Tensor) -> Iterator[None]:
    """Within, the output layer answers in float32, from a low-precision `weight` and hidden states of its dtype.

    What the model does to its logits afterwards (softcap, scale) is then done in float32 too.
    """
    # Without a gradient one copy in float32 serves all tokens that are sampled within. With one, autograd needs the
    # weight itself.
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
