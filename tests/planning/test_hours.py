"""The estimate of hours: FLOPs over what a device is assumed to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dgpo_cli.config.compose import compose
from dgpo_cli.planning.architecture import from_config
from dgpo_cli.planning.hours import ASSUMED, estimated_hours
from dgpo_cli.planning.layout import Machine, layout_of


def test_hours_are_flops_and_bytes_over_what_is_assumed() -> None:
    config = compose("train", ["model=qwen7b", "algo=grpo", "algo.kl_coef=0", "strategy=single"])
    model = from_config(config.model.architecture)
    assert model is not None
    layout = layout_of(config, Machine(gpus=8, gpu_bytes=85_000_000_000))
    found = estimated_hours(config, model, layout, prompt=256)
    assumed = ASSUMED["cuda"]
    rollouts, tokens = 32 * 16, 256 + 4096
    # 6 FLOPs a parameter and token, and 2 for what activation checkpointing computes again
    passes = 8 if config.strategy.activation_checkpointing else 6
    training = passes * model.parameters * rollouts * tokens / (assumed.peak_flops * assumed.mfu)
    generation = rollouts / config.engine.batch_size * 4096 * assumed.seconds_per_token
    assert found["seconds_per_step"] == {
        "generation": pytest.approx(generation, abs=0.01),
        "training": pytest.approx(training, abs=0.01),
    }
    assert found["hours"] == pytest.approx(200 * (training + generation) / 3600, abs=0.01)
    assert found["assumed"]["mfu"] == 0.3
    assert found["assumed"]["completions"] == "of full length"


def test_more_epochs_and_a_reference_cost_training_alone() -> None:
    config = compose("train", ["model=qwen7b", "algo=grpo", "strategy=single"])
    model = from_config(config.model.architecture)
    assert model is not None
    layout = layout_of(config, Machine(gpus=8, gpu_bytes=85_000_000_000))
    one = estimated_hours(config, model, layout, prompt=256)["seconds_per_step"]
    twice = replace(config, optim=replace(config.optim, epochs=2))
    two = estimated_hours(twice, model, layout, prompt=256)["seconds_per_step"]
    assert two["generation"] == one["generation"]
    recomputed = 2 if config.strategy.activation_checkpointing else 0
    assert two["training"] / one["training"] == pytest.approx(
        (2 * (6 + recomputed) + 2) / (6 + recomputed + 2), rel=1e-3
    )
