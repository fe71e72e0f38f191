"""The rule for the dtype of a pass: one for training, evaluation, rollouts, the probe and the plan."""

from __future__ import annotations

from dgpo_cli.config.groups import ComputeDtype, Dtype


def compute_dtype(asked: ComputeDtype, weights: Dtype, device: str) -> Dtype:
    """The dtype of forward and backward, of policy and reference alike; `device`: cpu, cuda or cuda:1.

    bfloat16 if it is asked for, if the weights are, and by default on a GPU; else float32.
    """
    if asked is ComputeDtype.bfloat16 or weights is Dtype.bfloat16:
        return Dtype.bfloat16
    on_gpu = device.startswith("cuda")
    return Dtype.bfloat16 if asked is ComputeDtype.auto and on_gpu else Dtype.float32
