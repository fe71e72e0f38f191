"""From a LanguageModel to a folder that others load: weights, adapters, merged weights.

Every folder is one that transformers, or peft for an adapter, loads as it is. When a model is saved, and what stands
beside it in a checkpoint, is decided in training/checkpoint.py.
"""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
from safetensors.torch import save_file
from torch import Tensor

from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.lora import adapter_facts, all_parameters, merged, save_adapter
from dgpo_cli.models.model_paths import base_path, resolve_path
from dgpo_cli.models.quantization import facts as quantization_facts
from dgpo_cli.models.quantization import mark, parameter_count
from dgpo_cli.models.sharding import full


def save_model(model: LanguageModel, folder: Path, *, writes: bool = True) -> None:
    """Write a folder that `from_pretrained`, vLLM and `dgpo eval` load as it is (safetensors), or peft an adapter.

    If the model is sharded every process has to call it; only the one that `writes` touches the disk.
    """
    if model.shards is not None and model.adapter is None:
        _save_sharded(model.model, folder, writes=writes)
    elif model.adapter is not None:
        added = None if model.shards is None else gathered_adapters(model)
        if writes:
            save_adapter(model.adapter, folder, state_dict=added)
            mark(model.quantization, folder)
    elif writes:
        whole = model.model.state_dict() | model.full_weights if model.full_weights else None
        model.model.save_pretrained(folder, state_dict=whole)
    if writes:
        model.tokenizer.save_pretrained(folder)


def gathered_adapters(model: LanguageModel) -> dict[str, Tensor]:
    """The weights of a sharded model's adapters by name, whole, on the CPU. Every process has to ask."""
    added = {id(parameter) for parameter in all_parameters(model.model)}
    return {name: full(weight.detach()).cpu() for name, weight in model.model.named_parameters() if id(weight) in added}


def _save_sharded(model: Any, folder: Path, *, writes: bool) -> None:
    """Write a sharded model as `save_pretrained` would: whole weights, in files of up to 5 GB, one of them in memory.

    Every process has to call it, for each weight is gathered from all of them.
    """
    weights = dict(model.named_parameters())
    shapes = {name: torch.empty(weight.shape, dtype=weight.dtype, device="meta") for name, weight in weights.items()}
    plan = split_torch_state_dict_into_shards(shapes, filename_pattern="model{suffix}.safetensors")
    for file, names in plan.filename_to_tensors.items():
        held: dict[str, Tensor] = {}
        for name in names:
            whole = full(weights[name].detach())
            if writes:
                held[name] = whole.cpu().contiguous()
        if writes:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(held, folder / file, metadata={"format": "pt"})
    if writes:
        _write_descriptions(model, folder, plan)


def _write_descriptions(model: Any, folder: Path, plan: StateDictSplit) -> None:
    """config.json, generation_config.json and, if there are several files of weights, their index."""
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    model.config.save_pretrained(folder)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)


def save_merged(model: LanguageModel, adapter: Path, folder: Path) -> None:
    """Write a full model: the base, read again from its own path, with the adapter of a folder added in.

    The weights in memory are not touched: taking an adapter out again would leave rounding behind.
    """
    base, revision = base_path(adapter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        full = type(model.model).from_pretrained(
            resolve_path(base),
            config=copy.deepcopy(model.model.config),
            dtype=model.weights_dtype,
            use_safetensors=True,
            revision=revision,
        )
    merged(full, adapter).save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def architecture_summary(model: LanguageModel) -> dict[str, Any]:
    """Parameters and shape, for run.json; of an adapter those of the base model, and its own."""
    config = json.loads(model.model.config.to_json_string())
    parameters = parameter_count(model.frozen_weights() if model.adapter else list(model.model.parameters()))
    facts = {"class": type(model.model).__name__, "parameters": parameters, "hidden_size": config.get("hidden_size")}
    facts |= quantization_facts(model.quantization)
    return facts | ({"lora": adapter_facts(model.adapter)} if model.adapter else {})
