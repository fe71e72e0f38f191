"""Frozen weights in 4 or 8 bits, by bitsandbytes, through transformers.

The linear layers of the body are quantised while they are read; embedding, norms and head stay as they are. The policy
is what these layers compute. Whatever draws, scores or measures goes through them, and nothing is made good for their
rounding. The same file gives the same codes, so a run that is resumed has the same base.

    nf4    4-bit normal floats, scales quantised as well (QLoRA, arXiv 2305.14314). A product takes the weights that the
           codes stand for, so a gradient is that of the policy
    int8   LLM.int8() (arXiv 2208.07339): the rows of the activations are rounded to 8 bits too. The gradient is passed
           straight through that rounding
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch

from dgpo_cli.errors import ConfigError

MARKER = "quantization.json"  # beside an adapter: what its base was trained as
NONE = "none"


def reading_options(kind: str, dtype: str, device: str) -> dict[str, Any]:
    """What `from_pretrained` is told, so that it quantises on the device that will compute.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if kind == NONE:
        return {}
    try:
        import bitsandbytes  # noqa: F401
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        raise ConfigError(
            f"model.quantization={kind} needs bitsandbytes, which is not installed", "pip install 'dgpo[quantization]'"
        ) from error
    # It tells of every product that its input is rounded.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if kind == "nf4":
        settings = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    else:
        # Columns above a threshold would be kept in 16 bits: those of all tokens in a pass. What a token's log-prob is
        # would depend on the tokens beside it.
        settings = BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=0.0)
    return {"quantization_config": settings, "device_map": {"": device}}


def settle(model: Any) -> None:
    """Leave a quantised model with plain forward passes, the same ones with and without a gradient."""
    from accelerate.hooks import remove_hook_from_module
    from bitsandbytes.nn import Linear4bit

    remove_hook_from_module(model, recurse=True)
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # A CPU with AVX-512 would compute passes without a gradient from other, rounded weights.
            module.support_avx512bf16_for_cpu = False


def parameter_count(weights: list[torch.Tensor]) -> int:
    """Weights that tensors stand for: a byte of a 4-bit tensor holds two."""
    return sum(_numel(weight) for weight in weights)


def _numel(weight: torch.Tensor) -> int:
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else int(state.shape.numel())


def facts(kind: str) -> dict[str, Any]:
    """For run.json, for the manifest of an evaluation and beside an adapter; {} if nothing is quantised."""
    if kind == NONE:
        return {}
    from importlib.metadata import version

    return {"quantization": kind, "bitsandbytes": version("bitsandbytes")}


def mark(kind: str, folder: Path) -> None:
    """Say beside an adapter which base it belongs to."""
    if kind != NONE:
        (folder / MARKER).write_text(json.dumps(facts(kind)), encoding="utf-8")


def marked(folder: Path) -> str:
    """The quantisation of the base that the adapter in a folder was trained on."""
    try:
        return str(json.loads((folder / MARKER).read_text(encoding="utf-8"))["quantization"])
    except FileNotFoundError:
        return NONE
