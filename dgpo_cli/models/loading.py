"""From a folder or a hub id to a LanguageModel: weights, tokenizer, adapter, and whether its head stands apart.

How files are read is in pretrained.py; which path means what is in model_paths.py.
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
from dgpo_cli.models.pretrained import read_tokenizer, read_weights
from dgpo_cli.models.quantization import NONE, marked, settle
from dgpo_cli.models.transformers_import import quiet_transformers
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
    quantization: str = NONE,
) -> LanguageModel:
    """Load weights (safetensors alone) and tokenizer. Dropout is off in every pass: the model stays in eval mode.

    The folder of an adapter brings its base model, quantised as it was in training; `merge_adapter` adds it into the
    base's own weights, which are then not quantised.

    Raises:
        DataError: no such folder or hub id; weights that are dropped, missing, damaged or of another shape; no
            tokenizer; a model whose first pass fails.
    """
    adapter = _adapter_folder(path, revision)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    if adapter is not None:
        quantization = _quantization_under(adapter, quantization, merge=merge_adapter, key=key)
    read = {"dtype": dtype, "quantization": quantization, "device": device}
    if adapter is None:
        model, tokenizer = read_weights(path, options, key, **read), read_tokenizer(path, options, key)
    else:
        model, tokenizer = _read_base(adapter, options, key, read)
        if merge_adapter:
            model = merged(model, adapter)
    if quantization == NONE:
        model.to(device)
    else:
        settle(model)
    model.eval()
    _take_into_memory(model)
    language_model = LanguageModel(model, tokenizer, path, has_head=False, quantization=quantization)
    if adapter is not None and not merge_adapter:
        language_model.adapter = load_adapter(model, adapter)
    language_model.has_head = _has_head(language_model, key)
    return language_model


def _take_into_memory(model: Any) -> None:
    """Move weights out of the mapped file, into memory that torch allocates.

    In the file a weight begins at any byte, and at another one in every file. The rounding of matrix products depends
    on where a weight begins: a model that is read again would not compute the same numbers as a copy of it.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.is_floating_point():  # codes were made in such memory
            tensor.data = tensor.data.clone()


def _quantization_under(adapter: Path, asked: str, *, merge: bool, key: str) -> str:
    """How the base of an adapter is read: as in training, unless another way is asked for."""
    trained = marked(adapter)
    if merge:
        if trained != NONE:
            say(f"warning: {key}: the adapter was trained on {trained} weights, and is added to others: full precision")
        return NONE
    if NONE not in (asked, trained) and asked != trained:
        say(f"warning: {key}: the adapter was trained on {trained} weights, model.quantization={asked} takes others")
    return trained if asked == NONE else asked


def _adapter_folder(path: str, revision: str | None) -> Path | None:
    """The folder of an adapter, fetched if it is on the hub; None for a model of its own."""
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


def _read_base(adapter: Path, options: dict[str, Any], key: str, read: dict[str, str]) -> tuple[Any, Any]:
    """The base model that an adapter's folder names, and the tokenizer: the folder's own, or that of the base."""
    model, base = _read_base_weights(adapter, options, key, read)
    if (adapter / "tokenizer_config.json").is_file():
        return model, read_tokenizer(str(adapter), {}, key)
    return model, read_tokenizer(base, options, key)


def _read_base_weights(adapter: Path, options: dict[str, Any], key: str, read: dict[str, str]) -> tuple[Any, str]:
    """The base model and its path."""
    path, revision = base_path(adapter)
    try:
        return read_weights(path, options | {"revision": revision}, key, **read), path
    except DataError as error:
        first = Problem(
            f"{key}: {adapter} is an adapter of '{path}', which cannot be loaded here",
            f"put the base model there, or write where it is into {adapter / ADAPTER_CONFIG}: base_model_name_or_path",
        )
        raise DataError("", problems=(first, *(error.problems if _is_here(path) else ()))) from error


def _is_here(path: str) -> bool:
    """Whether a model is on this machine. Only then is it worth saying what is wrong with it."""
    from transformers.utils import cached_file

    if path.startswith(BUNDLED) or Path(path).is_dir():
        return True
    try:
        return cached_file(path, "config.json", local_files_only=True) is not None
    except Exception:  # of many kinds: a name that is none, a cache that is empty
        return False


def _has_head(model: LanguageModel, key: str) -> bool:
    """Whether the head stands apart from the body; says so if it does not.

    Raises:
        DataError: the first pass of the model fails.
    """
    try:
        has_head = _head_reproduces_logits(model)
    except (IndexError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:300]
        message = f"{key}: {model.path} loads, and cannot compute: {reason}"
        raise DataError(message, "check its config.json") from error
    if not has_head:
        say(
            f"warning: the output head of {type(model.model).__name__} could not be told apart from its body: logits "
            "are formed whole, which takes more memory"
        )
    return has_head


@torch.no_grad()
def _head_reproduces_logits(model: LanguageModel) -> bool:
    """Whether head(body(x)) gives the logits of the whole model, tried on a few ids.

    Architectures scale, cap and shift between body and logits; only those that `head_of` knows pass.
    """
    if model.model.get_output_embeddings() is None or model.model.base_model is model.model:
        return False
    ids = torch.arange(min(8, model.vocabulary_size, model.max_context or 8), device=model.device)[None]
    try:
        hidden = model.hidden_states(ids)[0]
        whole = model.logits(ids)[0].float()
    except (AttributeError, TypeError, ValueError):
        return False
    head = model.head()
    if hidden.shape[-1] != head.weight.shape[1] or whole.shape[-1] != head.weight.shape[0]:
        return False
    bias = None if head.bias is None else head.bias.float()
    logits = logits_of(replace(head, weight=head.weight.float(), bias=bias), hidden)
    tolerance = 1e-4 if whole.dtype == model.model.dtype else 3e-2
    # `not >`, and not `<=`: with weights that hold a NaN nothing can be compared, and the first rollout will tell.
    return not bool((logits - whole).abs().max() > tolerance * (1.0 + whole.abs().max()))
