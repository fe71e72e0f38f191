"""Whether a model's folder is what it seems: every weight used, plain numbers, a tokenizer that fits the embedding.

`transformers` loads what it can and goes on: tensors that no layer takes are left out, layers that find none begin at
random, numbers of a quantized format are taken for the weights themselves. Each of these is another model under the
same name, so each is refused here. `models` loads; nothing is changed here.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from dgpo_cli.errors import DataError

SHOWN_IDS = 3
PLAIN = {"F64", "F32", "F16", "BF16"}  # as safetensors names them
PLAIN_HINT = "plain weights: the model's unquantized release, or one dequantized and saved with save_pretrained"
# Buffers that older versions stored and that are computed now: tables of positions, causal masks.
_COMPUTED = re.compile(
    r"(^|\.)(inv_freq|position_ids|cos_cached|sin_cached|masked_bias|h\.\d+\.attn\.bias"
    r"|layers\.\d+\.attention\.bias|_extra_state)$"
)
_SCALES = re.compile(r"scale|qweight|qzeros|g_idx|absmax|quant_map|quant_state|SCB|zero_point|packed")


def refuse_quantized(path: str, folder: Path, key: str) -> None:
    """Before loading, of a local folder: config.json or the files say that its weights are no plain numbers.

    Raises:
        DataError: they are quantized.
    """
    if (method := _method(_json(folder / "config.json").get("quantization_config"))) is not None:
        raise _quantized(path, key, method)
    for file in sorted(folder.glob("model*.safetensors")):
        for name, entry in _header(file).items():
            kind = entry.get("dtype") if isinstance(entry, dict) else None
            if name.endswith("weight") and kind is not None and kind not in PLAIN:
                raise DataError(
                    f"{key}: {path} holds {name} as {kind}, which are no plain numbers, and its config.json does not "
                    "say how to read them",
                    PLAIN_HINT,
                )


def refuse_partial(path: str, model: Any, report: dict[str, Any], key: str) -> None:
    """After loading: `report` is the loading info of from_pretrained.

    Raises:
        DataError: weights are missing, of another shape, or belong to no layer.
    """
    if getattr(model, "hf_quantizer", None) is not None:
        raise _quantized(path, key, _method(getattr(model.config, "quantization_config", None)) or "unknown")
    name = type(model).__name__
    found = []
    if reshaped := sorted(report["mismatched_keys"]):
        first, stored, expected = reshaped[0]
        found.append(f"{len(reshaped)} of another shape ({first} is {list(stored)}, expected {list(expected)})")
    if missing := sorted(report["missing_keys"]):
        found.append(f"{len(missing)} missing, which would be random ({_first(missing)})")
    left_over = sorted(one for one in report["unexpected_keys"] if not _COMPUTED.search(one))
    if left_over:
        found.append(f"{len(left_over)} that no layer takes ({_first(left_over)})")
    if not found:
        return
    hint = "check that config.json belongs to these weights, or download the model again"
    if left_over and not missing and all(_SCALES.search(one) for one in left_over):
        hint = f"these are scales of quantized weights: {PLAIN_HINT}"
    raise DataError(f"{key}: {path} does not hold every weight of a {name} and no others: {'; '.join(found)}", hint)


def refuse_misfit(path: str, tokenizer: Any, rows: int, key: str) -> None:
    """A tokenizer against the `rows` of the embedding.

    Added tokens beyond it are let pass where only a prompt that names them would bring them in (Gemma's text models
    have such a one for images): `data.prompts` refuses those prompts. So is the fill id, which masks leave out.

    Raises:
        DataError: no tokenizer, or one whose text or stop token the model has no row for.
    """
    if not tokenizer("1 a", add_special_tokens=False)["input_ids"]:
        raise DataError(
            f"{key}: {path} has no tokenizer: it makes no ids of a text", "tokenizer.json belongs beside it"
        )
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    beyond = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= rows and (number == tokenizer.eos_token_id or number not in added)
    )
    if beyond:
        shown = ", ".join(f"{token!r} is {number}" for number, token in beyond[:SHOWN_IDS])
        raise DataError(
            f"{key}: the tokenizer of {path} has {len(beyond)} ids beyond the model's embedding of {rows} rows: "
            f"{shown}",
            "the tokenizer that belongs to these weights, or a model whose embedding was resized for it",
        )


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}, ..."


def _quantized(path: str, key: str, method: str) -> DataError:
    return DataError(
        f"{key}: the weights of {path} are quantized ({method})",
        f"{PLAIN_HINT}; dgpo eval engine=openai evaluates it as a server runs it",
    )


def _method(quantization: Any) -> str | None:
    """The name of a quantization_config; None without any."""
    if not quantization:
        return None
    named = quantization.get("quant_method") if isinstance(quantization, dict) else None
    named = named or getattr(quantization, "quant_method", None) or "unknown"
    return str(getattr(named, "value", named))


def _json(file: Path) -> dict[str, Any]:
    """An object of a file; empty where it cannot be read: loading says why."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _header(file: Path) -> dict[str, Any]:
    """What a safetensors file holds, without its numbers; empty where it is damaged: loading says so."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                return {}
            record = json.loads(stream.read(length))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
