"""How long a training run may take: an estimate from FLOPs and stated assumptions, never a measurement.

A parameter costs 2 FLOPs a token forward and 4 backward. Drawing a token reads all weights once for everything that is
generated together, so it is bound by memory bandwidth, or by the fixed cost of a step of the loop.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.gating_needs import needs_reference
from dgpo_cli.planning.architecture import Architecture
from dgpo_cli.planning.layout import Layout


@dataclass(frozen=True)
class Assumed:
    """What a device is taken to do."""

    peak_flops: float  # a second, in the dtype that is computed in
    mfu: float  # the share of it that training reaches
    bytes_per_second: float  # of its memory
    bandwidth_used: float  # the share of it that generation reaches
    seconds_per_token: float  # least time of one step of the generation loop


ASSUMED = {
    "cuda": Assumed(989e12, 0.3, 3.35e12, 0.5, 0.03),  # an H100 in bfloat16
    "cpu": Assumed(2e11, 0.3, 2e10, 0.5, 0.005),  # two cores of a server in float32
}


def estimated_hours(config: TrainConfig, model: Architecture, layout: Layout, prompt: int) -> dict[str, Any]:
    """The record `time_estimate` of a plan: hours, seconds of a step by part, tokens a second, and what was assumed.

    prompt: tokens. Every completion is taken to be of full length, so a run whose completions end early is quicker.
    """
    assumed = ASSUMED["cpu" if layout.device == "cpu" else "cuda"]
    rollouts = config.rollout.prompts_per_step * config.rollout.group_size
    completion = config.rollout.max_completion_tokens
    devices = max(1, layout.processes)
    passes = 6 * config.optim.epochs + (2 if needs_reference(config.algo, config.gating) else 0)
    passes += 2 * config.optim.epochs if config.strategy.activation_checkpointing else 0
    flops = passes * model.parameters * rollouts * (prompt + completion)
    training = flops / (devices * assumed.peak_flops * assumed.mfu)
    weights = model.parameters * (4 if layout.device == "cpu" else 2)
    a_token = max(weights / (assumed.bytes_per_second * assumed.bandwidth_used), assumed.seconds_per_token)
    units = math.ceil(rollouts / devices / config.engine.batch_size)
    generation = units * completion * a_token
    seconds = training + generation
    return {
        "hours": round(config.steps * seconds / 3600, 2),
        "seconds_per_step": {"generation": round(generation, 2), "training": round(training, 2)},
        "tokens_per_second": round(rollouts * completion / seconds),
        "assumed": {**asdict(assumed), "completions": "of full length", "evaluations": "not counted"},
    }
