"""LoRA adapters in a language model (arXiv 2106.09685): the only file that imports peft.

Adapters are injected into the layers of the transformers model itself: body, head, generation and saving of it are
reached as before, and a layer of frozen weight W answers `W x + alpha / rank * B A x`. B starts at 0, so a fresh
adapter changes nothing. Dropout is never used. Adapters are float32, also if the frozen weights have another dtype.

Two adapters can stand in one model: the policy's, and for `reference.refresh_every` earlier weights of it. An
`AdapterView` says which of them is on in a pass, or that none is. Outside of any view the policy's is on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.models.model_paths import ADAPTER_CONFIG

POLICY = "default"  # as peft calls the adapter of a folder
REFERENCE = "reference"
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of every name in a folder that peft writes


@dataclass(frozen=True)
class AdapterView:
    """A model with one of its adapters on, or with all of them off (None). No weight is copied."""

    model: Any  # transformers.PreTrainedModel
    name: str | None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Passes within see this adapter; which weights are trained stays as it is."""
        layers = _layers(self.model)
        # peft's own switches, `set_adapter` and `enable_adapters`, also set requires_grad, which a pass must not: under
        # sharding they reach either the whole or the sharded parameter, never both.
        before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
        try:
            for layer in layers:
                layer._disable_adapters = self.name is None
                if self.name is not None:
                    layer._active_adapter = [self.name]
            _assert_switched(layers, self.name)
            yield
        finally:
            for layer, (active, disabled) in zip(layers, before, strict=True):
                layer._active_adapter, layer._disable_adapters = active, disabled

    def is_on(self, base: str, revision: str | None) -> bool:
        """Whether the frozen weights are those of this model, named as `add_adapter` names them."""
        config = self.model.peft_config[POLICY]
        return (config.base_model_name_or_path, config.revision) == (base, revision)

    def renewed_from(self, other: AdapterView) -> None:
        """Take over the weights of another adapter of the same shape."""
        with torch.no_grad():
            for mine, theirs in zip(self.parameters(), other.parameters(), strict=True):
                mine.copy_(theirs)

    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's weights, layer by layer."""
        if self.name is None:
            return []
        return [
            parameter
            for layer in _layers(self.model)
            for kind in layer.adapter_layer_names
            if self.name in getattr(layer, kind)
            for parameter in getattr(layer, kind)[self.name].parameters()
        ]


def add_adapter(
    model: Any,
    *,
    rank: int,
    alpha: int | None,
    target_modules: list[str] | None,
    base: str,
    revision: str | None,
    seed: int,
) -> AdapterView:
    """A fresh adapter, the only weights of the model that are trained from here on; a function of `seed`.

    Raises:
        ConfigError: `target_modules` names no linear layer, or the output head, which policy and reference share.
    """
    peft = _peft()
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        target_modules=_targets(model, target_modules),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
        revision=revision,
    )
    with torch.random.fork_rng(devices=[]):  # peft draws on the CPU, also for layers on a GPU
        torch.default_generator.manual_seed(seed)
        _inject(model, config, POLICY)
    return AdapterView(model, POLICY)


def add_reference(model: Any) -> AdapterView:
    """A frozen second adapter with the weights that the policy's has now."""
    config = deepcopy(model.peft_config[POLICY])
    config.inference_mode = True
    _inject(model, config, REFERENCE)
    view = AdapterView(model, REFERENCE)
    view.renewed_from(AdapterView(model, POLICY))
    return view


def load_adapter(model: Any, folder: Path, *, name: str = POLICY, trained: bool = False) -> AdapterView:
    """The adapter of a folder as peft writes it, put into the base model that it belongs to.

    Raises:
        DataError: no readable adapter, or one that does not fit the model.
    """
    peft = _peft()
    from safetensors.torch import load_file

    try:
        weights = load_file(folder / WEIGHTS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = peft.PeftConfig.from_pretrained(str(folder))
            config.inference_mode = not trained
            _inject(model, config, name)
            result = peft.set_peft_model_state_dict(
                model, {key.removeprefix(PREFIX): value for key, value in weights.items()}, adapter_name=name
            )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of many kinds: OSError, SafetensorError, json errors, ValueError, RuntimeError
        raise _unfit(folder, type(model).__name__, error) from error
    missing = [key for key in result.missing_keys if f".{name}." in key]
    if missing or result.unexpected_keys:
        raise _misfit(folder, type(model).__name__, len(missing), len(result.unexpected_keys))
    return AdapterView(model, name)


def save_adapter(view: AdapterView, folder: Path, *, state_dict: dict[str, torch.Tensor] | None = None) -> None:
    """Write a folder that peft loads as it is. `state_dict`: of a sharded model, its adapters' weights, gathered."""
    peft = _peft()
    from safetensors.torch import save_file

    assert view.name is not None
    folder.mkdir(parents=True, exist_ok=True)
    weights = peft.get_peft_model_state_dict(
        view.model,
        state_dict=state_dict,
        adapter_name=view.name,
        save_embedding_layers=False,  # else peft asks the hub whether the vocabulary has grown
    )
    tensors = {PREFIX + key: value.detach().cpu().contiguous() for key, value in weights.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    config = deepcopy(view.model.peft_config[view.name])
    config.inference_mode = True  # for those who load it
    config.target_modules = sorted(config.target_modules)  # a set, whose order differs from process to process
    config.save_pretrained(str(folder))


def merged(model: Any, folder: Path) -> Any:
    """The base model with the adapter of `folder` added into its own weights: plain again, and not frozen.

    Raises:
        DataError: no readable adapter, or one that does not fit the model.
    """
    peft = _peft()
    from safetensors.torch import load_file

    kind = type(model).__name__
    try:
        held = set(load_file(folder / WEIGHTS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = peft.PeftModel.from_pretrained(model, str(folder))
            asked = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # as in `load_adapter`
        raise _unfit(folder, kind, error) from error
    missing, unused = asked - held, held - asked - set(adapted.state_dict())
    if missing or unused:
        raise _misfit(folder, kind, len(missing), len(unused))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = adapted.merge_and_unload()
    return whole.requires_grad_(True)


def _unfit(folder: Path, kind: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return DataError(
        f"the adapter in {folder} cannot be put on {kind}: {reason}",
        f"the folder holds {ADAPTER_CONFIG} and {WEIGHTS}, and belongs to the base model that the former names",
    )


def _misfit(folder: Path, kind: str, missing: int, unused: int) -> DataError:
    return DataError(
        f"the adapter in {folder} does not fit {kind}: {missing} weights are missing and {unused} belong to no layer",
        f"check that {ADAPTER_CONFIG} names the base model that it was trained on",
    )


def all_parameters(model: Any) -> list[torch.nn.Parameter]:
    """The weights of every adapter in the model."""
    return [parameter for name in model.peft_config for parameter in AdapterView(model, name).parameters()]


def adapter_facts(view: AdapterView) -> dict[str, Any]:
    """Shape and size of the policy's adapter, for run.json."""
    import peft

    config = view.model.peft_config[POLICY]
    return {
        "rank": config.r,
        "alpha": config.lora_alpha,
        "target_modules": sorted(config.target_modules),
        "parameters": sum(parameter.numel() for parameter in AdapterView(view.model, POLICY).parameters()),
        "peft": peft.__version__,
    }


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ConfigError("adapters need peft, which is not installed", "pip install 'dgpo[lora]'") from error
    return peft


def _layers(model: Any) -> list[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer)]


def _assert_switched(layers: list[Any], name: str | None) -> None:
    """Hold peft's public properties against the private attributes that were set: another peft may name them anew."""
    off = name is None
    if any(layer.disable_adapters is not off or not (off or layer.active_adapters == [name]) for layer in layers):
        raise RuntimeError("this version of peft does not let its adapters be switched in the way that dgpo does")


def _inject(model: Any, config: Any, name: str) -> None:
    """Put an adapter into the layers, float32, frozen unless its configuration says otherwise; the policy's is on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a second adapter; layers that hold their weight transposed
        _peft().inject_adapter_in_model(config, model, name)
    # peft turns on the adapter that it injected last. But the policy's has to be on outside of any view: checkpointed
    # layers compute again there, in the backward.
    for layer in _layers(model):
        layer._active_adapter, layer._disable_adapters = [POLICY], False
    view = AdapterView(model, name)
    for parameter in view.parameters():
        parameter.data = parameter.data.float()  # peft gives them the dtype of the frozen weight
        parameter.requires_grad_(not config.inference_mode)
    model.eval()


def _targets(model: Any, asked: list[str] | None) -> list[str]:
    """Last names of the layers to adapt; whole names, if the head has the last name of one of them."""
    from transformers.pytorch_utils import Conv1D

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)]
    body = [name for name in linear if model.get_submodule(name) is not head]
    last = sorted({name.rpartition(".")[2] for name in body})
    if asked is None:
        head_names = {name.rpartition(".")[2] for name in linear if name not in body}
        return body if head_names & set(last) else last
    for target in asked:
        hits = [name for name, _ in model.named_modules() if name == target or name.endswith(f".{target}")]
        if any(model.get_submodule(name) in (head, embeddings) for name in hits):
            raise ConfigError(
                f"model.lora.target_modules: '{target}' is an end of the model, which policy and reference share",
                f"names of layers of the body: [{','.join(last)}]",
            )
        if not set(hits) & set(body):
            raise ConfigError(
                f"model.lora.target_modules: '{target}' names no linear layer of {type(model).__name__}",
                f"it has [{','.join(last)}]",
            )
    return sorted(asked)
