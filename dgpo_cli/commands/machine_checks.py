"""Whether this machine holds a run: its memory, and its disk. What is measured stands in training/."""

from __future__ import annotations

from pathlib import Path

import torch

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.strategies import OFFLOADED
from dgpo_cli.errors import ConfigError
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.planning.fitting import largest_fraction
from dgpo_cli.planning.remarks import size
from dgpo_cli.processes import Processes
from dgpo_cli.training.checkpoint import RunState
from dgpo_cli.training.host_memory import Sharers, bytes_of_moments, check_memory
from dgpo_cli.training.space import check_space, checkpoint_bytes, predicted_need
from dgpo_cli.types import Prompt


def check_run_memory(
    config: TrainConfig,
    prompts: list[Prompt],
    model: LanguageModel,
    processes: Processes,
    tokens: int,
    sharers: Sharers,
    *,
    resumed: bool,
) -> None:
    """Whether updates fit if completions are as long as they may be. tokens: of a micro-batch.

    Raises:
        ConfigError: they do not.
    """
    rollout = config.rollout
    longest = max(len(prompt.token_ids) for prompt in prompts) + rollout.max_completion_tokens
    samples = rollout.prompts_per_step * rollout.group_size // (config.optim.minibatches * processes.size)
    rows = max(1, min(samples, tokens // longest))
    check_memory(
        model,
        positions=rows * longest,
        micro_batches=1 if rows >= samples else 2,
        checkpointing=config.strategy.activation_checkpointing,
        moments_to_come=not resumed,
        states=config.optim.states.value,
        sharers=sharers,
    )


def check_gpus_to_share(config: TrainConfig) -> None:
    """Before anything is loaded: whether colocated servers find GPUs.

    Raises:
        ConfigError: there is none.
    """
    if config.engine.name == "vllm" and config.engine.colocated and not torch.cuda.is_available():
        raise ConfigError(
            "engine.colocated: torch sees no GPU here, and vLLM's servers can sleep on GPUs alone",
            "engine.colocated=false; dry_run=true shows what it would take",
        )


def check_share(config: TrainConfig, model: LanguageModel, sharers: Sharers, *, resumed: bool) -> None:
    """Before servers are started on the trainer's GPUs: whether their share is free while they draw.

    Raises:
        ConfigError: it is not.
    """
    moments = bytes_of_moments(model, config.optim.states.value) // sharers.shards
    to_come = 0 if resumed or config.strategy.name == OFFLOADED else moments
    held, total = torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[1]
    refuse_share(config.engine.gpu_memory_fraction, kept=held + to_come, gpu_bytes=total)


def refuse_share(fraction: float, *, kept: int, gpu_bytes: int) -> None:
    """kept: bytes that the trainer has on a GPU while servers draw: weights, moments, reference.

    Raises:
        ConfigError: a server's share does not fit beside them.
    """
    most = largest_fraction(kept, gpu_bytes)
    if fraction <= most:
        return
    raise ConfigError(
        f"engine.gpu_memory_fraction={fraction:g}: the trainer keeps {size(kept)} of a GPU's {size(gpu_bytes)} while "
        "colocated servers draw, and both do not fit",
        f"engine.gpu_memory_fraction={most:g}, or less" if most else "engine.colocated=false, or more processes",
    )


def disk_warnings(
    config: TrainConfig, folder: Path, state: RunState, model: LanguageModel, reference: LanguageModel | None
) -> list[str]:
    """Whether the disk holds what the run will write.

    Raises:
        ConfigError: not even one checkpoint fits.
    """
    if state.step >= config.steps:
        return []  # it was all written
    renewed = reference if config.reference.refresh_every else None
    checkpoint = checkpoint_bytes(model, renewed, merged=config.model.lora.merge, states=config.optim.states.value)
    need = predicted_need(config, checkpoint, measured=reference is not None)
    warning = check_space(folder, need, overwrite=config.overwrite and config.resume is None)
    return [] if warning is None else [warning]
