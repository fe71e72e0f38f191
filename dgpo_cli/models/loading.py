"""From a folder or a hub id to a LanguageModel: weights, tokenizer, adapter, and whether its head stands apart.

How files are read is in pretrained.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.config.lora_checks import holds_adapter
from dgpo_cli.errors import DataError, Problem
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.lora import load_adapter, merged
from dgpo_cli.models.model_paths import ADAPTER_CONFIG, BUNDLED, base_path, resolve_path
from dgpo_cli.models.output_layer import logits_of
from dgpo_cli.models.pretrained import quiet_transformers, read_tokenizer, read_weights
from dgpo_cli.terminal import say


def load_model(
    path: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    key: str = "model.path",
    merge_adapter: bool = False,
) -> LanguageModel:
    """Load weights (safetensors alone) and tokenizer. Dropout is off in every pass: the model stays in eval mode.

    The folder of an adapter brings its base model; `merge_adapter` adds it into the base's own weights.

    Raises:
        DataError: no such folder or hub id; weights that are dropped, missing, damaged or of another shape; no
            tokenizer; a model whose first pass fails.
    """
    adapter = _adapter_folder(path, revision)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    if adapter is None:
        model = read_weights(path, dtype, options, key)
        tokenizer = read_tokenizer(path, options, key)
    else:
        model, base = _load_base(adapter, dtype, options, key)
        own = (adapter / "tokenizer_config.json").is_file()
        tokenizer = read_tokenizer(str(adapter) if own else base, options if not own else {}, key)
    if adapter is not None and merge_adapter:
        model = merged(model, adapter)
    model.to(device).eval()
    _take_into_memory(model)
    language_model = LanguageModel(model, tokenizer, path, has_head=False)
    if adapter is not None and not merge_adapter:
        language_model.adapter = load_adapter(model, adapter)
    try:
        language_model.has_head = _head_reproduces_logits(language_model)
    except (IndexError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"{key}: {path} loads, and cannot compute: {reason}", "check its config.json") from error
    if not language_model.has_head:
        say(
            f"warning: the output head of {type(model).__name__} could not be told apart from its body: logits are "
            "formed whole, which takes more memory"
        )
    return language_model


def _take_into_memory(model: Any) -> None:
    """Move weights out of the mapped file, into memory that torch allocates.

    There they begin at any byte, which is another one in every file, and products of matrices are rounded by where
    these begin: a model that is loaded again would not compute the same numbers as a copy of it.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()


def _adapter_folder(path: str, revision: str | None) -> Path | None:
    """The folder of an adapter, fetched where it is one on the hub; None for a model of its own."""
    folder = resolve_path(path)
    if Path(folder).is_dir():
        return Path(folder) if holds_adapter(folder) else None
    transformers = quiet_transformers()
    if not transformers.utils.is_peft_available():
        return None
    try:
        found = transformers.utils.find_adapter_config_file(path, revision=revision)
        if found is None:
            return None
        from huggingface_hub import snapshot_download

        files = ["adapter_*", "*token*", "*.jinja", "vocab*", "merges*", "special*", "added*"]
        return Path(snapshot_download(path, revision=revision, allow_patterns=files))
    except Exception:  # of many kinds; whatever it is, loading the model says so
        return None


def _load_base(adapter: Path, dtype: str, options: dict[str, Any], key: str) -> tuple[Any, str]:
    """The base model that an adapter's folder names, and its path."""
    path, revision = base_path(adapter)
    try:
        return read_weights(path, dtype, options | {"revision": revision}, key), path
    except DataError as error:
        first = Problem(
            f"{key}: {adapter} is an adapter of '{path}', which cannot be loaded here",
            f"put the base model there, or write where it is into {adapter / ADAPTER_CONFIG}: base_model_name_or_path",
        )
        raise DataError("", problems=(first, *(error.problems if _is_here(path) else ()))) from error


def _is_here(path: str) -> bool:
    """Whether a model is on this machine: what is wrong with it is then worth saying."""
    from transformers.utils import cached_file

    if path.startswith(BUNDLED) or Path(path).is_dir():
        return True
    try:
        return cached_file(path, "config.json", local_files_only=True) is not None
    except Exception:  # of many kinds: a name that is none, a cache that is empty
        return False


@torch.no_grad()
def _head_reproduces_logits(model: LanguageModel) -> bool:
    """Whether head(body(x)) is what the whole model says, tried on a few ids: architectures differ there."""
    if model.model.get_output_embeddings() is None or model.model.base_model is model.model:
        return False
    ids = torch.arange(min(8, model.vocabulary_size, model.max_context or 8), device=model.device)[None]
    try:
        hidden = model.hidden_states(ids, None)[0]
        whole = model.logits(ids, None)[0].float()
    except (AttributeError, TypeError, ValueError):
        return False
    head = model.head()
    if hidden.shape[-1] != head.weight.shape[1] or whole.shape[-1] != head.weight.shape[0]:
        return False
    bias = None if head.bias is None else head.bias.float()
    logits = logits_of(replace(head, weight=head.weight.float(), bias=bias), hidden)
    tolerance = 1e-4 if whole.dtype == model.model.dtype else 3e-2
    # Weights that hold a NaN say nothing about it: the first rollout will tell.
    return not bool((logits - whole).abs().max() > tolerance * (1.0 + whole.abs().max()))
