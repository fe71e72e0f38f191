"""Whether this machine holds a run: its memory, and its disk. What is measured stands in training/."""

from __future__ import annotations

from pathlib import Path

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.models.language_model import LanguageModel
from dgpo_cli.processes import Processes
from dgpo_cli.training.checkpoint import RunState
from dgpo_cli.training.host_memory import Sharers, check_memory
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
