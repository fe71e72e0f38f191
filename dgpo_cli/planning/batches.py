"""The arithmetic of a step: prompts, rollouts, updates and micro-batches, and how long a sequence can be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.layout import Layout
from dgpo_cli.planning.memory import Batch

ASSUMED_PROMPT_TOKENS = 1024  # if the data is not at hand


@dataclass(frozen=True)
class Data:
    """What is known of the prompts without a tokenizer. A prompt has no more tokens than characters."""

    rows: int | None = None
    longest_prompt: int | None = None  # characters


def prompt_tokens(max_completion_tokens: int, model: Architecture, data: Data) -> int:
    """The longest prompt: no more tokens than the data's characters, if they are known, or than the context leaves."""
    known = data.longest_prompt or ASSUMED_PROMPT_TOKENS
    room = (model.max_positions or math.inf) - max_completion_tokens
    return int(max(1, min(known, ASSUMED_PROMPT_TOKENS, room)))


def rollouts_a_step(config: TrainConfig) -> int:
    return config.rollout.prompts_per_step * config.rollout.group_size


def updates_a_step(config: TrainConfig) -> int:
    return config.optim.minibatches * config.optim.epochs


def per_process(count: int, layout: Layout) -> int:
    return math.ceil(count / layout.processes)


def rollouts_an_update(config: TrainConfig) -> int:
    return math.ceil(rollouts_a_step(config) / config.optim.minibatches)


def micro_batch(config: TrainConfig, layout: Layout, prompt: int) -> Batch:
    """The micro-batch of sequences that are all of full length, and how many an update of a process, or team, takes."""
    width = prompt + config.rollout.max_completion_tokens
    rollouts = math.ceil(rollouts_an_update(config) / layout.teams)
    rows = max(1, min(config.optim.tokens_per_microbatch * layout.sequence_parallel // width, rollouts))
    return Batch(
        rows=rows,
        width=width,
        counted=config.rollout.max_completion_tokens,
        micro_batches=math.ceil(rollouts / rows),
        team=layout.sequence_parallel,
    )


def training_batch(config: TrainConfig, layout: Layout, batch: Batch, prompt: int, data: Data) -> dict[str, Any]:
    """What the plan says of steps, rollouts, updates and data."""
    rollout, optim = config.rollout, config.optim
    rollouts = rollouts_a_step(config)
    dynamic = config.algo.dynamic_sampling
    drawn = config.steps * rollout.prompts_per_step
    return {
        "steps": config.steps,
        "batch": {
            "prompts_per_step": rollout.prompts_per_step,
            "group_size": rollout.group_size,
            "rollouts_per_step": rollouts,
            "rollouts_per_step_max": rollouts * (1 + dynamic.max_refills if dynamic.enabled else 1),
            "rollouts_per_process": per_process(rollouts, layout),
            "minibatches": optim.minibatches,
            "epochs": optim.epochs,
            "updates_per_step": updates_a_step(config),
            "updates": config.steps * updates_a_step(config),
            "rollouts_per_update": rollouts_an_update(config),
            "micro_batches_per_update": batch.micro_batches,
            "rollouts_per_micro_batch": batch.rows,
            "prompt_tokens": prompt,
            "max_completion_tokens": rollout.max_completion_tokens,
            "tokens_per_step_max": rollouts * (prompt + rollout.max_completion_tokens),
            "completion_tokens_per_step_max": rollouts * rollout.max_completion_tokens,
            "data_rows": data.rows,
            "data_epochs": round(drawn / data.rows, 3) if data.rows else None,
        },
    }
