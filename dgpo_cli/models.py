"""Causal language models of transformers: loading them, and their hidden states apart from their output head.

It leaves out how their files are read (pretrained.py), what is computed from hidden states (scoring.py) and sampling
(engines).
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dgpo_cli.config.lora_checks import holds_adapter
from dgpo_cli.core.output_head import is_low, whole_product, widened
from dgpo_cli.core.token_stats import Head
from dgpo_cli.errors import DataError, Problem, RunError
from dgpo_cli.lora import (
    CONFIG,
    REFERENCE,
    AdapterView,
    adapter_facts,
    add_reference,
    all_parameters,
    base_of,
    load_adapter,
    merged,
    save_adapter,
)
from dgpo_cli.precision import cast_frozen, cast_head, float32_logits
from dgpo_cli.pretrained import BUNDLED, quiet_transformers, read_tokenizer, read_weights, resolve_path
from dgpo_cli.sharding import ShardSettings, full, gathered, kept_whole, layers_of, local, save_weights
from dgpo_cli.terminal import say

NextLogits = Callable[..., tuple[Tensor, Any]]  # inputs of a transformers model -> logits [b, V] and its cache


@dataclass
class LanguageModel:
    """A causal LM with its tokenizer. `head` is None where it cannot be told apart from the body."""

    model: Any  # transformers.PreTrainedModel
    tokenizer: Any  # transformers.PreTrainedTokenizerFast
    path: str
    has_head: bool
    adapter: AdapterView | None = None  # LoRA: whose weights its passes add to the model's own; None without any
    compute_dtype: torch.dtype | None = None  # of forward and backward; None is that of the weights
    shards: ShardSettings | None = None  # where its weights lie on several processes; None where each has them all
    low_head: Tensor | None = None  # the weight of a frozen head that is tied, in compute_dtype
    full_weights: dict[str, Tensor] = field(default_factory=dict)  # in float32, of what is renewed and was cast

    @property
    def device(self) -> torch.device:
        """Where it computes; sharded weights may rest elsewhere."""
        if self.shards is not None:
            return self.shards.device
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
        """An id to fill with: masks come from lengths, so any id serves that the embedding has."""
        pad = self.tokenizer.pad_token_id
        fill = int(pad if pad is not None else (self.tokenizer.eos_token_id or 0))
        return fill if fill < self.embedded_ids else 0

    @property
    def embedded_ids(self) -> int:
        """Rows of the input embedding: an id beyond them cannot be fed."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    def hidden_states(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """The body's last hidden states [b, L, D] of right-padded sequences [b, L]."""
        with self._adapted(), self._computing():
            output = self.model.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        hidden: Tensor = output.last_hidden_state
        return hidden if self.compute_dtype is None else hidden.to(self.compute_dtype)

    def logits(self, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
        """Logits [b, L, V] in float32: the fall-back where the head cannot be told apart."""
        with self._adapted(), self._computing(), self._float32_logits():
            output = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        logits: Tensor = output.logits
        return logits

    @contextmanager
    def sampling(self) -> Iterator[NextLogits]:
        """What gives the logits of the next token within, in float32: no gradient, one set of weights for all of it.

        Weights are cast once for all of it, and the last product, of hidden states and head, is that of scoring.
        """
        with torch.no_grad(), self._computing():
            if self.shards is None:
                with self._float32_logits():
                    yield self._next_logits
            else:
                head = self.head()
                head = replace(head, weight=widened(head.weight))
                with kept_whole(self.model) if self.shards.keep_whole else nullcontext():
                    yield partial(self._next_logits_of_shards, head)

    def head(self) -> Head:
        """The output head, its weight tied or not: what turns hidden states into logits. Gathered, where sharded."""
        head = _head_of(self.model)
        if self.shards is not None:
            bias = None if head.bias is None else gathered(head.bias, self.device)
            head = replace(head, weight=gathered(head.weight, self.device), bias=bias)
        if self.compute_dtype is not None:
            head = replace(head, weight=self._in_compute_dtype(head.weight))
        return head

    def frozen_copy(self, *, renewed: bool = False) -> LanguageModel:
        """A copy without gradients: the reference `initial`. With an adapter no copy: the same model with it off.

        renewed: its weights will be replaced (`copy_weights_from`) and saved.
        """
        if self.adapter is not None:
            return replace(self, adapter=AdapterView(self.model, None))
        model = copy.deepcopy(self.model).requires_grad_(False)
        return replace(self, model=model).with_frozen_cast(renewed=renewed)

    def with_frozen_cast(self, *, renewed: bool = False) -> LanguageModel:
        """The same model, its frozen float32 weights cast once to the dtype that they compute in; no number changes."""
        if self.compute_dtype is None or self.shards is not None:
            return self
        kept = cast_frozen(self.model, self.compute_dtype, keep=renewed)
        return replace(self, low_head=cast_head(self.model, self.compute_dtype), full_weights=kept)

    def renewable_reference(self, stored: Path | None) -> LanguageModel:
        """The reference of an adapter that is renewed: a second one, frozen, in the same model; or the stored one."""
        assert self.adapter is not None
        if stored is None:
            return replace(self, adapter=add_reference(self.model))
        return replace(self, adapter=load_adapter(self.model, stored, name=REFERENCE))

    def copy_weights_from(self, other: LanguageModel) -> None:
        """Take over the weights of a model of the same shape (reference.refresh_every)."""
        if self.adapter is not None and other.adapter is not None:
            self.adapter.renewed_from(other.adapter)
        else:
            with torch.no_grad():
                for mine, theirs in zip(self.model.parameters(), other.model.parameters(), strict=True):
                    local(mine).copy_(local(theirs))
                theirs_by_name = dict(other.model.named_parameters()) if self.full_weights else {}
                for name, weight in self.full_weights.items():
                    weight.copy_(theirs_by_name[name])
                if self.low_head is not None:
                    self.low_head.copy_(self.model.get_output_embeddings().weight)

    def on(self, device: str) -> LanguageModel:
        """The same model, all of its weights on a device."""
        self.model.to(device)
        kept = {name: weight.to(device) for name, weight in self.full_weights.items()}
        head = None if self.low_head is None else self.low_head.to(device)
        return replace(self, low_head=head, full_weights=kept)

    @property
    def weights_dtype(self) -> torch.dtype:
        """Of the weights as they were loaded and are saved; what is frozen may be held in the dtype of a pass."""
        dtype: torch.dtype = self.model.get_input_embeddings().weight.dtype
        return dtype

    @property
    def computes_in(self) -> str:
        """Name of the dtype of forward and backward."""
        return str(self.compute_dtype or self.weights_dtype).removeprefix("torch.")

    def frozen_weights(self) -> list[Tensor]:
        """The model's own weights under an adapter."""
        added = {id(parameter) for parameter in all_parameters(self.model)}
        return [parameter for parameter in self.model.parameters() if id(parameter) not in added]

    def _adapted(self) -> AbstractContextManager[None]:
        return nullcontext() if self.adapter is None else self.adapter.on()

    def _computing(self) -> AbstractContextManager[Any]:
        """float32 weights compute in bfloat16 within; sharded ones are gathered in it anyway."""
        if self.compute_dtype is None or self.shards is not None:
            return nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def _in_compute_dtype(self, weight: Tensor) -> Tensor:
        """The weight of the head in the dtype of a pass."""
        if self.low_head is not None:
            return self.low_head
        return weight if self.compute_dtype is None else weight.to(self.compute_dtype)

    def _float32_logits(self) -> AbstractContextManager[None]:
        """Within, the model's own logits are float32 where they would be rounded to less."""
        layer = self.model.get_output_embeddings()
        dtype = self.compute_dtype or (None if layer is None else layer.weight.dtype)
        if layer is None or dtype is None or not is_low(dtype):
            return nullcontext()
        return float32_logits(layer, self._in_compute_dtype(layer.weight))

    def _next_logits(self, **inputs: Any) -> tuple[Tensor, Any]:
        with self._adapted():
            output = self.model(use_cache=True, logits_to_keep=1, **inputs)
        return output.logits[:, -1], _cache_of(output)

    def _next_logits_of_shards(self, head: Head, **inputs: Any) -> tuple[Tensor, Any]:
        with self._adapted():
            output = self.model.base_model(use_cache=True, **inputs)
        return logits_of(head, output.last_hidden_state[:, -1]), _cache_of(output)


def _cache_of(output: Any) -> Any:
    """Keys and values of what was fed so far; without them the next token would be drawn from the last one alone."""
    cache = getattr(output, "past_key_values", None)
    if cache is None:
        raise RunError("the model returns no past_key_values, and nothing can be drawn without", "another model.path")
    return cache


def logits_of(head: Head, hidden: Tensor) -> Tensor:
    """Logits [b, V] of hidden states [b, D], never rounded below float32."""
    logits = whole_product(head.weight, hidden) * head.scale
    if head.bias is not None:
        logits = logits + head.bias
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def adapt_layers(model: Any, *, checkpointing: bool, compiled: bool) -> None:
    """Compile the forward pass of each layer of the body, and compute it a second time in place of keeping it.

    Only the forward itself is replaced: what sharding hooks around a layer stays as it is, and so do all names.
    """
    if not checkpointing and not compiled:
        return
    for layer in layers_of(model.base_model):
        layer.forward = AdaptedForward(layer.forward, checkpointing=checkpointing, compiled=compiled)


class AdaptedForward:
    """A layer's forward pass, compiled or computed a second time for its gradient.

    A deep copy of the layer is adapted anew: what torch.compile returns stays bound to the weights of the first one.
    """

    def __init__(self, forward: Callable[..., Any], *, checkpointing: bool, compiled: bool) -> None:
        self._forward = forward
        self._checkpointing = checkpointing
        self._compiled = torch.compile(forward, dynamic=True) if compiled else None

    def __deepcopy__(self, memo: dict[int, Any]) -> AdaptedForward:
        forward = copy.deepcopy(self._forward, memo)
        return AdaptedForward(forward, checkpointing=self._checkpointing, compiled=self._compiled is not None)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Sampling stays as it is: its cache has another shape with every token.
        samples = kwargs.get("past_key_values") is not None
        forward = self._forward if self._compiled is None or samples else self._compiled
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(forward, *args, use_reentrant=False, **kwargs)
        return forward(*args, **kwargs)


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


def adapter_base(path: str) -> str:
    """What an adapter's folder names as its base: a folder by its whole path, so that any peft here finds it."""
    folder = Path(resolve_path(path))
    return str(folder.resolve()) if folder.is_dir() else path


def save_model(model: LanguageModel, folder: Path, *, writes: bool = True) -> None:
    """Write a folder that `from_pretrained`, vLLM and `dgpo eval` load as it is (safetensors), or peft an adapter.

    Of several processes with a sharded model all have to call it, and only the one that `writes` does.
    """
    if model.shards is not None and model.adapter is None:
        save_weights(model.model, folder, writes=writes)
    elif model.adapter is not None:
        added = None if model.shards is None else gathered_adapters(model)
        if writes:
            save_adapter(model.adapter, folder, state_dict=added)
    elif writes:
        whole = model.model.state_dict() | model.full_weights if model.full_weights else None
        model.model.save_pretrained(folder, state_dict=whole)
    if writes:
        model.tokenizer.save_pretrained(folder)


def gathered_adapters(model: LanguageModel) -> dict[str, Tensor]:
    """The weights of a sharded model's adapters by name, whole, on the CPU. Every process has to ask."""
    added = {id(parameter) for parameter in all_parameters(model.model)}
    return {name: full(weight.detach()).cpu() for name, weight in model.model.named_parameters() if id(weight) in added}


def save_merged(model: LanguageModel, adapter: Path, folder: Path) -> None:
    """Write a full model: the base, read again from where it came, with the adapter of a folder added in.

    The weights in memory are not touched: taking an adapter out again would leave rounding behind.
    """
    base, revision = _base_path(adapter)
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
    path, revision = _base_path(adapter)
    try:
        return read_weights(path, dtype, options | {"revision": revision}, key), path
    except DataError as error:
        first = Problem(
            f"{key}: {adapter} is an adapter of '{path}', which cannot be loaded here",
            f"put the base model there, or write where it is into {adapter / CONFIG}: base_model_name_or_path",
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


def _base_path(adapter: Path) -> tuple[str, str | None]:
    """The base model of an adapter's folder, and its revision."""
    path, revision = base_of(adapter)
    if not Path(path).exists() and Path(path).parts[-3:-1] == ("dgpo_cli", "bundled"):
        path = BUNDLED + Path(path).name  # the bundled model of another installation
    return path, revision


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


def weights_hash_files(path: str) -> list[Path]:
    """The weight files of a local model folder, for a manifest; none for a hub id. An adapter's: with its base's."""
    folder = Path(resolve_path(path))
    if not folder.is_dir():
        return []
    base = weights_hash_files(_base_path(folder)[0]) if holds_adapter(str(folder)) else []
    return sorted(folder.glob("*.safetensors")) + base


def architecture_summary(model: LanguageModel) -> dict[str, Any]:
    """Parameters and shape, for run.json; of an adapter those of the base model, and its own."""
    config = json.loads(model.model.config.to_json_string())
    own = model.frozen_weights() if model.adapter else model.model.parameters()
    parameters = sum(parameter.numel() for parameter in own)
    facts = {"class": type(model.model).__name__, "parameters": parameters, "hidden_size": config.get("hidden_size")}
    return facts | ({"lora": adapter_facts(model.adapter)} if model.adapter else {})
