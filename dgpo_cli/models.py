"""Causal language models of transformers: loading them, and their hidden states apart from their output head.

The only file that loads weights. It leaves out what is computed from hidden states (scoring.py) and sampling (engines).
"""

from __future__ import annotations

import copy
import json
import os
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.bundled import bundled_path
from dgpo_cli.core.token_stats import Head
from dgpo_cli.errors import DataError

BUNDLED = "bundled:"


@dataclass
class LanguageModel:
    """A causal LM with its tokenizer. `head` is None where it cannot be told apart from the body."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    path: str
    has_head: bool

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.model.parameters()).device
        return device

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the output head: some models pad it beyond the tokenizer's vocabulary."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def max_context(self) -> int | None:
        """Longest prompt and completion together, or None where the model's configuration names no limit."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    @property
    def pad_id(self) -> int:
        """An id to fill with: masks come from lengths, so any id serves."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else (self.tokenizer.eos_token_id or 0))

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The body's last hidden states [b, L, D] of right-padded sequences [b, L]."""
        output = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits [b, L, V]: the fall-back where the head cannot be told apart."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
        return logits

    def head(self) -> Head:
        """The output head, its weight tied or not: what turns hidden states into logits."""
        return _head_of(self.model)

    def frozen_copy(self) -> LanguageModel:
        """A copy without gradients: the reference `initial`."""
        model = copy.deepcopy(self.model)
        return LanguageModel(model.requires_grad_(False), self.tokenizer, self.path, self.has_head)

    def copy_weights_from(self, other: LanguageModel) -> None:
        """Take over the weights of a model of the same shape (reference.refresh_every)."""
        self.model.load_state_dict(other.model.state_dict())


def resolve_path(path: str) -> str:
    """`bundled:NAME` to its folder; any other path stays."""
    return str(bundled_path(path.removeprefix(BUNDLED))) if path.startswith(BUNDLED) else path


def load_model(
    path: str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    revision: str | None = None,
    trust_remote_code: bool = False,
    key: str = "model.path",
) -> LanguageModel:
    """Load weights (safetensors alone) and tokenizer. Dropout is off in every pass: the model stays in eval mode.

    Raises:
        DataError: no such folder or hub id, weights that are missing, damaged or of another shape, no fast tokenizer.
    """
    transformers = _quiet_transformers()
    folder = resolve_path(path)
    options = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **options
            )
    except Exception as error:  # many kinds: OSError, ValueError, SafetensorError, json errors, hub errors
        raise _load_error(path, error, key) from error
    missing = sorted(report["missing_keys"]) + sorted(str(item) for item in report["mismatched_keys"])
    if missing:
        raise DataError(
            f"{key}: {path} does not hold every weight of a {type(model).__name__}: {missing[0]} and "
            f"{len(missing) - 1} more are missing or of another shape",
            "check that config.json belongs to these weights, or download the model again",
        )
    model.to(device).eval()
    language_model = LanguageModel(model, tokenizer, path, has_head=False)
    language_model.has_head = _head_reproduces_logits(language_model)
    if not language_model.has_head:
        print(
            f"warning: the output head of {type(model).__name__} could not be told apart from its body: logits are "
            "formed whole, which takes more memory",
            file=sys.stderr,
        )
    return language_model


def save_model(model: LanguageModel, folder: Path) -> None:
    """Write a folder that `from_pretrained`, vLLM and `dgpo eval` load as it is (safetensors)."""
    model.model.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)


def _quiet_transformers() -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def _load_error(path: str, error: Exception, key: str) -> DataError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    if path.startswith(BUNDLED) or Path(path).exists():
        folder = Path(resolve_path(path))
        if not folder.is_dir():
            return DataError(f"{key}: expected a model folder, {path} is a file", f"{key}=FOLDER with config.json")
        if not (folder / "config.json").is_file():
            return DataError(
                f"{key}: no config.json in {path}, so it is no model in transformers format",
                f"{key}=FOLDER as save_pretrained writes it, or a run's folder",
            )
        if not list(folder.glob("*.safetensors")):
            return DataError(
                f"{key}: no .safetensors weights in {path}; other formats can run code and are not loaded",
                "convert them: AutoModelForCausalLM.from_pretrained(...).save_pretrained(FOLDER)",
            )
        return DataError(f"{key}: the model in {path} cannot be loaded: {reason}", "check that the folder is complete")
    return DataError(
        f"{key}: {path} is neither a folder nor a model that could be fetched from the hub: {reason}",
        f"{key}=FOLDER with a downloaded model, or check the name and the network",
    )


def _head_of(model: Any) -> Head:
    layer, config = model.get_output_embeddings(), model.config.get_text_config()
    scale = 1.0
    if getattr(config, "logit_scale", None) is not None:  # Cohere multiplies
        scale = float(config.logit_scale)
    elif getattr(config, "logits_scaling", None) is not None:  # Granite divides
        scale = 1.0 / float(config.logits_scaling)
    return Head(layer.weight, getattr(layer, "bias", None), getattr(config, "final_logit_softcapping", None), scale)


@torch.no_grad()
def _head_reproduces_logits(model: LanguageModel) -> bool:
    """Whether head(body(x)) is what the whole model says, tried on a few ids: architectures differ there."""
    if model.model.get_output_embeddings() is None or model.model.base_model is model.model:
        return False
    ids = torch.arange(min(8, model.vocabulary_size), device=model.device)[None]
    try:
        hidden = model.hidden_states(ids, None)[0]
        whole = model.logits(ids, None)[0].float()
    except (AttributeError, TypeError, ValueError):
        return False
    head = model.head()
    if hidden.shape[-1] != head.weight.shape[1] or whole.shape[-1] != head.weight.shape[0]:
        return False
    logits = (hidden.float() @ head.weight.float().T) * head.scale
    if head.bias is not None:
        logits = logits + head.bias.float()
    if head.softcap is not None:
        logits = head.softcap * torch.tanh(logits / head.softcap)
    tolerance = 1e-4 if whole.dtype == model.model.dtype else 3e-2
    return bool((logits - whole).abs().max() <= tolerance * (1.0 + whole.abs().max()))


def weights_hash_files(path: str) -> list[Path]:
    """The weight files of a local model folder, for a manifest; none for a hub id."""
    folder = Path(resolve_path(path))
    return sorted(folder.glob("*.safetensors")) if folder.is_dir() else []


def architecture_summary(model: LanguageModel) -> dict[str, Any]:
    """Parameters and shape, for run.json."""
    config = json.loads(model.model.config.to_json_string())
    parameters = sum(parameter.numel() for parameter in model.model.parameters())
    return {"class": type(model.model).__name__, "parameters": parameters, "hidden_size": config.get("hidden_size")}
