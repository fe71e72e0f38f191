"""From a LanguageModel to a folder that others load: weights, adapters, merged weights.

Every folder is one that transformers, or peft for an adapter, loads as it is. When a model is saved, and what stands
beside it in a checkpoint, is decided in training/checkpoint.py.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import StateDictSplit, split_torch_state_dict_into_shards
from torch import Tensor

from dgpo_cli.files import Written, written
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.lora import adapter_facts, all_parameters, merged, save_adapter
from dgpo_cli.models.model_paths import base_path, resolve_path
from dgpo_cli.models.quantization import facts as quantization_facts
from dgpo_cli.models.quantization import mark, parameter_count
from dgpo_cli.models.sharding import full, whole_on
from dgpo_cli.processes import SOLO, Processes
from dgpo_cli.tensor_files import write_tensors

MOST_BYTES = 5_000_000_000  # of a file of weights, as `save_pretrained` has it
LEAST_BYTES = 1 << 28  # below that files are not made smaller for the sake of more processes that write


Job = Callable[[], dict[Path, Written]]  # files to be written, by one process alone; what they were then


def save_model(model: LanguageModel, folder: Path, *, processes: Processes = SOLO) -> None:
    """Write a folder that `from_pretrained`, vLLM and `dgpo eval` load as it is (safetensors), or peft an adapter."""
    for job in model_jobs(model, folder, processes):
        job()


def model_jobs(model: LanguageModel, folder: Path, processes: Processes, *, copies: bool = False) -> Iterator[Job]:
    """What this process has to write of a model. Small files are written at once.

    If the model is sharded every process has to go through all of it, and each writes some of the files: whole weights,
    in files of up to 5 GB, of which a process that does each job when it comes holds one. copies: jobs are done later,
    while the weights move, and hold what they write.
    """
    main = processes.main
    if main:
        folder.mkdir(parents=True, exist_ok=True)
    if model.shards is not None and model.adapter is None:
        yield from _sharded_jobs(model.model, folder, processes, model.device)
    elif model.adapter is not None:
        added = None if model.shards is None else gathered_adapters(model)
        if main:
            save_adapter(model.adapter, folder, state_dict=added)
            mark(model.quantization, folder)
    elif main:
        whole = model.model.state_dict() | model.full_weights if model.full_weights or copies else None
        yield partial(_save_whole, model.model, folder, _copied(whole) if copies and whole is not None else whole)
    if main:
        model.tokenizer.save_pretrained(folder)


def _save_whole(model: Any, folder: Path, weights: dict[str, Tensor] | None) -> dict[Path, Written]:
    model.save_pretrained(folder, state_dict=weights)
    return {path: written(path) for path in folder.glob("*.safetensors")}


def _copied(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, apart from the weights; what is one tensor under two names remains so."""
    seen: dict[tuple[Any, ...], Tensor] = {}
    copied = {}
    for name, weight in weights.items():
        place = (weight.data_ptr(), weight.shape, weight.stride())
        if place not in seen:
            seen[place] = weight.detach().cpu() if weight.is_cuda else weight.detach().clone()
        copied[name] = seen[place]
    return copied


def gathered_adapters(model: LanguageModel) -> dict[str, Tensor]:
    """The weights of a sharded model's adapters by name, whole, on the CPU. Every process has to ask."""
    added = {id(parameter) for parameter in all_parameters(model.model)}
    return {name: full(weight.detach()).cpu() for name, weight in model.model.named_parameters() if id(weight) in added}


def _sharded_jobs(model: Any, folder: Path, processes: Processes, device: torch.device) -> Iterator[Job]:
    """The files that `save_pretrained` would write, dealt out in turn. A weight goes to the process that writes it."""
    weights = dict(model.named_parameters())
    shapes = {name: torch.empty(weight.shape, dtype=weight.dtype, device="meta") for name, weight in weights.items()}
    share = sum(weight.nbytes for weight in shapes.values()) // processes.size
    most = min(MOST_BYTES, max(LEAST_BYTES, share))
    plan = split_torch_state_dict_into_shards(shapes, filename_pattern="model{suffix}.safetensors", max_shard_size=most)
    if processes.main:
        _write_descriptions(model, folder, plan)
    files = list(plan.filename_to_tensors.items())
    for start in range(0, len(files), processes.size):
        mine: Job | None = None
        for rank, (file, names) in enumerate(files[start : start + processes.size]):
            held = {name: whole_on(weights[name], rank, device) for name in names}
            if rank == processes.rank:
                kept = {name: weight for name, weight in held.items() if weight is not None}
                mine = partial(_write_file, folder / file, kept)
        if mine is not None:
            yield mine


def _write_file(path: Path, weights: dict[str, Tensor]) -> dict[Path, Written]:
    return {path: write_tensors(path, weights, {"format": "pt"})}


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
