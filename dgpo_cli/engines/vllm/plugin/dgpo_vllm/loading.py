"""New weights into a model that vLLM serves, in place. The only file that knows how vLLM loads.

vLLM takes a layer apart before it loads it, and packs some weights for its kernels afterwards. Two things follow. If
loading fails half-way the model cannot be used any more. And packed copies that vLLM does not renew itself have to be
renewed here: those of a head that is tied to the embedding, which get no weight of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from vllm.config import set_current_vllm_config
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload


@torch.no_grad()
def load(worker: Any, model: Any, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Put all weights of a checkpoint into the model. If it raises, the model is unusable."""
    with set_current_vllm_config(worker.vllm_config):
        initialize_layerwise_reload(model)
        loaded = model.load_weights(iter(tensors))
        finalize_layerwise_reload(model, worker.vllm_config.model_config)
        renew_heads(model)
    if loaded is not None:
        left = {name for name, _ in model.named_parameters()} - set(loaded) - tied_names(model)
        if left:
            raise RuntimeError(f"no weight was loaded for {', '.join(sorted(left)[:3])}")
    if worker.device.type == "cuda":
        torch.cuda.synchronize(worker.device)


def renew_heads(model: Any) -> None:
    """Pack the output heads anew for the kernels of this platform."""
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


def tied_heads(model: Any) -> dict[str, str]:
    """Name of each output head whose weight is that of an embedding -> name of the embedding."""
    embeddings = {
        id(module.weight): name
        for name, module in model.named_modules()
        if isinstance(module, VocabParallelEmbedding) and not isinstance(module, ParallelLMHead)
    }
    return {
        name: embeddings[id(module.weight)]
        for name, module in model.named_modules()
        if isinstance(module, ParallelLMHead) and id(module.weight) in embeddings
    }


def tied_names(model: Any) -> set[str]:
    """Names of the weights that no update brings, since they are those of an embedding."""
    return {f"{name}.weight" for name in tied_heads(model)}
