"""Whether a checkpoint and a model are one: every weight of either has its place, and its numbers, in the other.

transformers fills missing weights with random numbers and leaves out those that it does not know. Both are refused.
It reads names, shapes and dtypes. pretrained.py reads the weights, and tokenizer_checks.py looks at the tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgpo_cli.errors import DataError, Problem

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ALONE = "AutoModelForCausalLM.from_pretrained(...).save_pretrained(FOLDER) writes the language model alone"
# Kinds of weights that have no place in a language model, by their names, and the advice for each.
KINDS = (
    (
        r"(_scale(_inv|_2|_ub)?$|\.scales?$|scale_inv|qweight|qzeros|g_idx|absmax|quant_map|quant_state|weight_packed"
        r"|weight_shape|\.SCB$|zero_point|_amax$|_blocks$|_scales$|codebook)",
        "these weights are quantised: take the model in full precision, or dequantise it with the tool that made it",
    ),
    (
        r"(^|\.)(v_head|value_head|score|reward_head|classifier|regression_head|rm_head)\.",
        f"a reward or value model: take the language model that it was made from; {ALONE}",
    ),
    (r"lora_|\.base_layer\.|modules_to_save", "an adapter's weights: merge it into its base, or put it in a folder"),
    (
        r"(^|\.)(visual|vision_\w+|image_\w+|audio_\w+|multi_modal_projector|mm_projector)\.",
        f"a model of images or sound, of which only the text is read here; {ALONE}",
    ),
    (r"^(_orig_mod|module|_fsdp_wrapped_module)\.", "saved from inside a wrapper: take that part off the names"),
    (r"(^|\.)mtp\b", f"layers that predict further tokens ahead; {ALONE}"),
)
# Buffers that older versions saved, and that a model works out by itself.
BUFFERS = r"(rotary_emb\.(inv_freq|original_inv_freq|cos_cached|sin_cached)|(^|\.)position_ids)$"
CAUSAL_MASK = r"\.(attn|attention|self_attn)\.(masked_)?bias$"  # [1, 1, n, n] or a number; a bias has one dimension


@dataclass(frozen=True)
class Stored:
    """A tensor as its file's header describes it."""

    dtype: str  # as safetensors writes it: F32, BF16, F8_E4M3, I8 ...
    shape: tuple[int, ...]
    file: Path


def refuse_quantised(config: Any, path: str, key: str) -> None:
    """Refuse weights that config.json says are quantised.

    Raises:
        DataError: they are.
    """
    for part in (config, config.get_text_config()):
        for name in ("quantization_config", "compression_config"):
            settings = getattr(part, name, None)
            if settings:
                settings = settings if isinstance(settings, dict) else settings.to_dict()
                method = getattr(settings.get("quant_method"), "value", settings.get("quant_method")) or "no method"
                raise DataError(
                    f"{key}: {path} is quantised ({name} in its config.json: {method}), and only weights in full "
                    "precision are trained, sampled and scored here",
                    "the model in full precision, or a copy that the tool which quantised it has dequantised; "
                    f"if its weights are not quantised, take {name} out of config.json",
                )


def without_pad_beyond(config: Any) -> Any:
    """The configuration, without a pad id that is beyond the embedding: it only fills masked places."""
    text = config.get_text_config()
    pad, size = getattr(text, "pad_token_id", None), getattr(text, "vocab_size", None)
    if pad is not None and size is not None and not -size <= pad < size:
        text.pad_token_id = None
    return config


def refuse_two_checkpoints(path: str, key: str) -> None:
    """Refuse a folder whose weights lie there twice: only one of both would be read.

    Raises:
        DataError: it holds one whole file, and the index of several.
    """
    if (Path(path) / WHOLE).is_file() and (Path(path) / INDEX).is_file():
        raise DataError(
            f"{key}: {path} holds {WHOLE} and {INDEX}, and does not say which of both checkpoints is meant",
            "move one of them out of the folder",
        )


def check_weights(model: Any, report: dict[str, Any], files: list[Path], path: str, key: str) -> list[str]:
    """Compare a loaded model with its checkpoint. `report`: from `output_loading_info`; `files`: the weights.

    Returns warnings: weights that this kind of model leaves out by its own definition.

    Raises:
        DataError: weights are dropped, missing, of another shape, or stored as numbers that mean nothing alone.
    """
    stored, twice = stored_tensors(files)
    dropped = sorted(name for name in report["unexpected_keys"] if not _is_buffer(name, stored))
    problems = [
        *_dropped(model, dropped, path, key),
        *_missing(model, sorted(report["missing_keys"]), path, key),
        *_reshaped(sorted(report["mismatched_keys"]), path, key),
        *_twice(twice, path, key),
    ]
    problems = problems or [*_coded(model, stored, path, key), *_untied(model, path, key), *_ends(model, path, key)]
    if problems:
        raise DataError("", problems=tuple(problems))
    return _left_out(model, stored, path)


def checkpoint_files(path: str, revision: str | None) -> list[Path]:
    """The files that the weights of a folder, or of a hub id in the cache, were read from; none if unknown."""
    from transformers.utils.hub import cached_file

    def find(name: str) -> Path | None:
        found = cached_file(
            path, name, revision=revision, local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
        return None if found is None else Path(found)

    try:
        whole, index = find(WHOLE), find(INDEX)
        if whole is not None or index is None:
            return [] if whole is None else [whole]
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        return [file for name in names if (file := find(name)) is not None]
    except OSError:
        return []


def stored_tensors(files: list[Path]) -> tuple[dict[str, Stored], list[str]]:
    """The tensors of a checkpoint by name, and the names that stand in several files with other numbers."""
    from safetensors import safe_open

    found: dict[str, Stored] = {}
    twice: list[str] = []
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
                piece = tensors.get_slice(name)
                if name in found and not _equal(name, found[name].file, file):
                    twice.append(name)
                found[name] = Stored(piece.get_dtype(), tuple(piece.get_shape()), file)
    return found, sorted(twice)


def _equal(name: str, one: Path, other: Path) -> bool:
    import torch
    from safetensors import safe_open

    with safe_open(one, framework="pt") as first, safe_open(other, framework="pt") as second:
        return bool(torch.equal(first.get_tensor(name), second.get_tensor(name)))


def _is_buffer(name: str, stored: dict[str, Stored]) -> bool:
    if re.search(BUFFERS, name):
        return True
    return bool(re.search(CAUSAL_MASK, name)) and name in stored and len(stored[name].shape) in (0, 4)


def _dropped(model: Any, names: list[str], path: str, key: str) -> Iterator[Problem]:
    if names:
        yield Problem(
            f"{key}: {path} holds {_count(names)} that {_a(model)} does not use, the first {names[0]}: what would be "
            "loaded is not the model that was trained",
            _advice(model, names),
        )


def _advice(model: Any, names: list[str]) -> str:
    """Advice about weights without a place."""
    for pattern, advice in KINDS:
        if any(re.search(pattern, name) for name in names):
            return advice
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    numbers = [int(found[1]) for name in names if (found := re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", name))]
    if numbers and layers is not None and min(numbers) >= layers:
        return (
            f"config.json says num_hidden_layers={layers}, the weights go on to layer {max(numbers) + 1}: take the "
            f"config.json that belongs to them; if the further ones predict tokens ahead, {ALONE}"
        )
    return f"take the config.json that belongs to these weights (model_type, shapes); {ALONE}"


def _missing(model: Any, names: list[str], path: str, key: str) -> Iterator[Problem]:
    if names:
        yield Problem(
            f"{key}: {path} does not hold every weight of {_a(model)}: {_count(names)} missing, the first "
            f"{names[0]}, which would be random numbers",
            "check that config.json belongs to these weights and that no file is missing, or download the model again",
        )


def _reshaped(found: list[tuple[str, Any, Any]], path: str, key: str) -> Iterator[Problem]:
    if found:
        name, there, here = found[0]
        yield Problem(
            f"{key}: {_count(found)} of {path} of another shape than its config.json says, the first {name}: "
            f"{list(there)} in the file, {list(here)} by config.json",
            "take the config.json that belongs to these weights (vocab_size, hidden_size, num_attention_heads ...)",
        )


def _twice(names: list[str], path: str, key: str) -> Iterator[Problem]:
    if names:
        yield Problem(
            f"{key}: {_count(names)} of {path} in several files with other numbers, the first {names[0]}",
            f"download the model again: each weight belongs into the one file that {INDEX} names",
        )


def _coded(model: Any, stored: dict[str, Stored], path: str, key: str) -> Iterator[Problem]:
    """Weights of a checkpoint whose scales have gone: integers, or floats of 8 bits and less."""
    own = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
    names = [
        name
        for name, tensor in sorted(stored.items())
        if re.match(r"[IU]\d|F[48]|BOOL", tensor.dtype) and _own_names(model, name) & own
    ]
    if names:
        yield Problem(
            f"{key}: {_count(names)} of {path} stored as {stored[names[0]].dtype}, the first {names[0]}: such numbers "
            "mean a weight only together with a scale, and the checkpoint has none",
            KINDS[0][1],
        )


def _untied(model: Any, path: str, key: str) -> Iterator[Problem]:
    """transformers does not tie weights that differ in the file. Other readers of the same folder do."""
    for target, source in model.get_expanded_tied_weights_keys(all_submodels=True).items():
        if model.get_parameter_or_buffer(target) is not model.get_parameter_or_buffer(source):
            yield Problem(
                f"{key}: config.json of {path} ties {target} to {source}, and the file holds other numbers for each",
                '"tie_word_embeddings": false in config.json keeps both',
            )


def _ends(model: Any, path: str, key: str) -> Iterator[Problem]:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight.shape[0] > embedding.weight.shape[0]:
        yield Problem(
            f"{key}: {path} gives {head.weight.shape[0]} ids and reads {embedding.weight.shape[0]}: what it draws "
            "could not be fed to it",
            "a model whose embedding and output head have the same rows",
        )


def _left_out(model: Any, stored: dict[str, Stored], path: str) -> list[str]:
    """Weights without a place that the model's own class declares as no part of it."""
    declared = model._keys_to_ignore_on_load_unexpected or ()
    if not declared:
        return []
    own, pattern = set(model.state_dict()), "|".join(f"({one})" for one in declared)
    names = [
        name
        for name in sorted(stored)
        if re.search(pattern, name) and not _own_names(model, name) & own and not _is_buffer(name, stored)
    ]
    if not names:
        return []
    return [
        f"warning: {path} holds {_count(names)} that {_a(model)} is defined without, the first {names[0]}: left out, "
        "here and in what is saved"
    ]


def _own_names(model: Any, name: str) -> set[str]:
    """How a model may call a tensor of its checkpoint: with the name of its body in front, or without."""
    prefix = f"{model.base_model_prefix}."
    return {name, prefix + name, name.removeprefix(prefix)}


def _a(model: Any) -> str:
    return f"a {type(model).__name__}"


def _count(found: list[Any]) -> str:
    return "1 weight" if len(found) == 1 else f"{len(found)} weights"
