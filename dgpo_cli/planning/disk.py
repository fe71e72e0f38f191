"""Bytes of checkpoints on the disk. The plan asks before a model is loaded, training with the loaded model's sizes."""

from __future__ import annotations

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.planning.architecture import FLOAT, Architecture
from dgpo_cli.planning.memory import Setting, moments, reference_bytes


def checkpoint_bytes(
    *, own: int, own_bytes: int, moments: int, adapter: int = 0, merged: bool = False, renewed: int = 0
) -> int:
    """Bytes of a checkpoint's weights and moments. The small files beside them are left out: tokenizer and counters.

    own: the model's own weights; they are trained, unless there is an adapter.
    own_bytes: of each of them, as it is saved.
    moments: bytes of all of AdamW's.
    adapter: weights of a LoRA adapter, always float32.
    merged: model/ holds the full model with the adapter added in, and state/ the adapter.
    renewed: bytes of the weights of a reference that is renewed, for state/ holds it too.
    """
    full = own * own_bytes
    if not adapter:
        return full + moments + renewed
    return adapter * FLOAT + moments + (full if merged else 0) + renewed


def kept_checkpoints(config: TrainConfig) -> int:
    """How many lie there after a step: the newest, and the best if a benchmark says which. Never more than are made."""
    settings = config.checkpoint
    best = settings.keep_best and config.benchmark.name is not None
    made = config.steps // settings.every + 1 if settings.every else 1
    return min(settings.keep + best, made)


def planned_disk(config: TrainConfig, model: Architecture, setting: Setting) -> dict[str, int]:
    """A checkpoint, those that are kept, and the most at one time: one more while it is written."""
    adapter = model.adapter_parameters(setting.adapters)
    checkpoint = checkpoint_bytes(
        own=model.parameters,
        own_bytes=setting.weight_bytes,
        moments=moments(model, setting),
        adapter=adapter,
        merged=config.model.lora.merge,
        renewed=_renewed_bytes(model, setting, adapter),
    )
    kept = kept_checkpoints(config)
    return {
        "checkpoint": checkpoint,
        "checkpoints_kept": kept,
        "kept": kept * checkpoint,
        "most": (kept + 1) * checkpoint,
    }


def _renewed_bytes(model: Architecture, setting: Setting, adapter: int) -> int:
    """Under LoRA the reference is a second adapter beside the first."""
    if setting.reference == "none" or not setting.reference_renewed:
        return 0
    return FLOAT * adapter if adapter else reference_bytes(setting) * model.parameters
