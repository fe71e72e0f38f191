"""AdamW whose moments are 8-bit codes: bitsandbytes' AdamW8bit (arXiv 2110.02861), beside `models/quantization.py` the
only file that speaks to it.

Blocks of 256 values share a scale, and a table of 256 floats says what each code stands for: one with signs for the
mean of gradients, one without for the mean of their squares. A tensor of fewer than 4,096 weights keeps float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dgpo_cli.planning.pieces import CODED_FROM, CODES_TO_A_SCALE

MOMENTS_8BIT = ("state1", "state2")
OF_CODES = ("qmap1", "absmax1", "qmap2", "absmax2")  # what they stand for: tables, and a scale a block


def adamw_8bit(groups: list[dict[str, Any]], **settings: Any) -> torch.optim.Optimizer:
    """AdamW over the groups of weights, by the kernel of the device that they are on. settings: lr, betas, eps."""
    import bitsandbytes

    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, min_8bit_size=CODED_FROM, **settings)
    return made


def decoded(state: Mapping[str, Any], moment: str) -> Tensor:
    """A moment in float32, in the weight's shape."""
    codes: Tensor = state[moment]
    if codes.dtype is not torch.uint8:
        return codes
    from bitsandbytes.functional import dequantize_blockwise

    number = moment[-1]
    scales, table = state[f"absmax{number}"], state[f"qmap{number}"]
    whole: Tensor = dequantize_blockwise(codes, absmax=scales, code=table, blocksize=CODES_TO_A_SCALE)
    return whole
