"""Reading what `save_pretrained` wrote: the weights and the tokenizer of a folder or a hub id, or one error line.

If reading fails, this file says why. Whether a model that was read is whole, loading_checks.py says.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.errors import DataError
from dgpo_cli.hub_access import hub_answers, is_cached, is_on_the_hub
from dgpo_cli.models.loading_checks import (
    check_weights,
    checkpoint_files,
    refuse_quantised,
    refuse_two_checkpoints,
    without_pad_beyond,
)
from dgpo_cli.models.model_paths import BUNDLED, resolve_path
from dgpo_cli.models.quantization import NONE, reading_options
from dgpo_cli.models.transformers_import import import_modelling, quiet_transformers
from dgpo_cli.terminal import say


def read_weights(
    path: str, options: dict[str, Any], key: str, *, dtype: str, quantization: str = NONE, device: str = "cpu"
) -> Any:
    """The causal language model of a folder or hub id, every weight of it from there. `options`: of `from_pretrained`.

    It is on the CPU; if it is quantised, on `device`.

    Raises:
        DataError: no such model, or one that does not hold the weights of its class, all of them and no others.
    """
    options = _options_offline(path, options, key)
    reading = reading_options(quantization, dtype, device)
    transformers, folder = quiet_transformers(), resolve_path(path)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
    except Exception as error:  # many kinds: OSError, ValueError, json errors, hub errors
        raise _load_error(path, error, key) from error
    refuse_quantised(config, path, key)
    refuse_two_checkpoints(folder, key)
    import_modelling()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                config=without_pad_beyond(config),
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # else it raises without a name
                **options,
                **reading,
            )
    except Exception as error:  # as above, and SafetensorError
        raise _load_error(path, error, key) from error
    for warning in check_weights(model, report, checkpoint_files(folder, options.get("revision")), path, key):
        say(warning)
    return model


def read_tokenizer(path: str, options: dict[str, Any], key: str) -> Any:
    """The tokenizer of a folder or hub id.

    Raises:
        DataError: there is none that can be read.
    """
    options = _options_offline(path, options, key)
    try:
        return quiet_transformers().AutoTokenizer.from_pretrained(resolve_path(path), **options)
    except Exception as error:  # as above
        raise _load_error(path, error, key, what="tokenizer") from error


def _options_offline(path: str, options: dict[str, Any], key: str) -> dict[str, Any]:
    """The options, and the cache alone if the hub does not answer: transformers would ask for each file, many times.

    Raises:
        DataError: the cache does not hold the model.
    """
    if not is_on_the_hub(path) or hub_answers():
        return options
    if not is_cached(path):
        raise _load_error(path, TimeoutError("it gave no answer"), key)
    return options | {"local_files_only": True}


def _load_error(path: str, error: Exception, key: str, *, what: str = "model") -> DataError:
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
        return DataError(f"{key}: the {what} in {path} cannot be loaded: {reason}", "check that the folder is complete")
    return DataError(
        f"{key}: {path} is neither a folder nor a model that could be fetched from the hub: {reason}",
        f"{key}=FOLDER with a downloaded model, or check the name and the network",
    )
