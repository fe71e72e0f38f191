"""What servers of vLLM hold, as whoever asks for an engine says it. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

from dgpo_cli.config.engine_groups import EngineConfig, EngineDtype
from dgpo_cli.config.groups import Dtype
from dgpo_cli.config.model_groups import ModelConfig


@dataclass(frozen=True)
class Served:
    """What servers hold, beside the engine's settings.

    computes_in: the dtype of the trainer's passes, which `engine.dtype=auto` stands for. trained: they get the policy's
    weights from here before each step; else they draw with those of the model's folder. trainers: processes on this
    machine that have a GPU each. threads: of a server on a CPU; None leaves it to torch.
    """

    model: ModelConfig
    computes_in: Dtype
    trained: bool
    trainers: int
    threads: int | None = None


def served_dtype(settings: EngineConfig, computes_in: Dtype) -> str:
    """The dtype of the servers' weights and arithmetic, as torch and vLLM name it."""
    return computes_in.name if settings.dtype is EngineDtype.auto else settings.dtype.name
