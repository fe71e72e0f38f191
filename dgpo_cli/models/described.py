"""A model without its weights: configuration, tokenizer and stop ids, for those who only ask what it is.

An evaluation by vLLM draws with weights that a server holds. It has to know their shape, and prompts are made here, so
the model stands on the meta device: every size is right, and nothing was read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dgpo_cli.config.lora_checks import holds_adapter
from dgpo_cli.config.model_groups import ModelConfig
from dgpo_cli.errors import ConfigError, DataError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.models.loading import load_model
from dgpo_cli.models.loading_checks import refuse_quantised, refuse_two_checkpoints, without_pad_beyond
from dgpo_cli.models.model_paths import base_path, resolve_path
from dgpo_cli.models.policy import Policy, check_ids
from dgpo_cli.models.pretrained import read_tokenizer
from dgpo_cli.models.stop_ids import stop_token_ids
from dgpo_cli.models.transformers_import import import_modelling, quiet_transformers

FETCHED = ["*.safetensors", "*.json", "*token*", "*.jinja", "vocab*", "merges*", "*.model"]


def describe(settings: ModelConfig) -> Policy:
    """The configured model as a policy that cannot compute: its weights are on the meta device.

    Says which ids can never come.

    Raises:
        ConfigError, DataError: no model is named, or as `read_policy` does for what it reads beside the weights.
    """
    folder, adapter = _folders(settings)
    transformers, path, key = quiet_transformers(), str(folder), "model.path"
    options = {"trust_remote_code": settings.trust_remote_code}
    try:
        config = transformers.AutoConfig.from_pretrained(path, **options)
        refuse_quantised(config, path, key)
        refuse_two_checkpoints(path, key)
        import_modelling()
        with torch.device("meta"):
            model: Any = transformers.AutoModelForCausalLM.from_config(without_pad_beyond(config), **options)
    except DataError:
        raise
    except Exception as error:  # of many kinds: OSError, ValueError, json errors
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"{key}: the model in {settings.path} cannot be read: {reason}", "check its config.json"
        ) from error
    generation = _generation_config(transformers, folder)
    of_adapter = adapter is not None and (adapter / "tokenizer_config.json").is_file()
    tokenizer = read_tokenizer(str(adapter) if of_adapter else path, options, key)
    described = LanguageModel(model.eval(), tokenizer, str(settings.path), has_head=True)
    stop_ids = stop_token_ids(tokenizer, generation, settings.chat_template, settings.stop_tokens)
    check_ids(described, stop_ids, settings.stop_tokens)
    return Policy(described, stop_ids)


def served_folder(settings: ModelConfig, scratch: Path, *, merge_adapter: bool = True) -> Path:
    """The local folder of a model, as a server loads it: a hub's is fetched, an adapter is merged into its base.

    The merged model is written to `scratch`. merge_adapter: False takes the base of an adapter as it is, for a server
    that gets its weights later.

    Raises:
        ConfigError, DataError: no model is named, or it cannot be fetched or read.
    """
    folder, adapter = _folders(settings)
    return folder if adapter is None or not merge_adapter else _merged(settings, adapter, scratch)


def _folders(settings: ModelConfig) -> tuple[Path, Path | None]:
    """The folders of a model and of its adapter, on this machine; None for a model without one."""
    if settings.path is None:
        raise ConfigError("model.path is not set", "model.path=FOLDER or a hub id, or model=tiny")
    folder = _fetched(settings.path, settings.revision)
    if not holds_adapter(str(folder)):
        return folder, None
    return _fetched(*base_path(folder)), folder


def _merged(settings: ModelConfig, adapter: Path, scratch: Path) -> Path:
    whole = load_model(
        str(adapter), dtype=settings.dtype.name, trust_remote_code=settings.trust_remote_code, merge_adapter=True
    )
    folder = scratch / "merged"
    whole.model.save_pretrained(folder)
    whole.tokenizer.save_pretrained(folder)
    return folder


def _fetched(path: str, revision: str | None) -> Path:
    """The folder of a path; of a hub id in the cache, where it is put if it is not there."""
    folder = resolve_path(path)
    if Path(folder).exists():
        return Path(folder)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=FETCHED))
    except Exception as error:  # of many kinds
        reason = " ".join(str(error).split())[:300]
        raise DataError(
            f"model.path: {path} is neither a folder nor a model that could be fetched from the hub: {reason}",
            "model.path=FOLDER with a downloaded model, or check the name and the network",
        ) from error


def _generation_config(transformers: Any, folder: Path) -> Any:
    """What the model says of its own end; None if it says nothing."""
    try:
        return transformers.GenerationConfig.from_pretrained(str(folder))
    except OSError:
        return None
