"""The bundled model is not let loose on chains that it cannot read without a word."""

from __future__ import annotations

import pytest

from dgpo_cli.config.checks import warnings
from dgpo_cli.config.compose import compose
from dgpo_cli.config.groups import BenchmarkConfig, DataConfig
from dgpo_cli.data.digit_chain import DEFAULT_FORM


@pytest.mark.parametrize("command", ["train", "eval", "rollout"])
def test_a_form_that_the_bundled_model_never_saw_is_said(command: str) -> None:
    [said] = warnings(compose(command, ["data.chain_steps=8"]), command)
    assert said.startswith("chains of 8 steps with 0 characters of filler: the bundled model has read 5 steps without")
    [said] = warnings(compose(command, ["data.filler=2"]), command)
    assert said.startswith("chains of 5 steps with 2 characters of filler")
    assert warnings(compose(command, []), command) == []


def test_a_model_of_ones_own_may_read_any_form() -> None:
    assert warnings(compose("train", ["model=tiny", "model.path=folder", "data.filler=2"]), "train") == []


def test_the_benchmark_follows_the_data_unless_typed() -> None:
    config = compose("train", ["data.chain_steps=8", "data.filler=1"])
    assert (config.benchmark.chain_steps, config.benchmark.filler) == (8, 1)
    config = compose("train", ["data.chain_steps=8", "benchmark.chain_steps=5"])
    assert (config.data.chain_steps, config.benchmark.chain_steps) == (8, 5)


@pytest.mark.parametrize("keys", [DataConfig, BenchmarkConfig])
def test_the_default_form_is_the_tasks(keys: type[DataConfig | BenchmarkConfig]) -> None:
    assert (keys.chain_steps, keys.filler) == (DEFAULT_FORM.steps, DEFAULT_FORM.filler)
