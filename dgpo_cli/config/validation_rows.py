"""`data.validation_fraction`: rows of the data as a run's benchmark. `dgpo eval model.path=RUN` finds them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgpo_cli.config.commands import TrainConfig
from dgpo_cli.config.groups import BenchmarkConfig

NAME = "validation"
CHOOSES = ("benchmark", "benchmark.name", "benchmark.path", "benchmark.hub")


def hold_out(config: TrainConfig, typed: Mapping[str, Any]) -> None:
    """Make the rows that are split off the benchmark, read, prompted and sampled as in training, unless one is typed.

    Keys of `benchmark` that are typed, such as benchmark.k, stay.
    """
    data, before = config.data, config.benchmark
    if not splits(config) or any(name in typed for name in CHOOSES):
        return
    made = BenchmarkConfig(
        name=NAME,
        path=data.path,
        config=data.config,
        split=data.split,
        revision=data.revision,
        prompt_key=data.prompt_key,
        answer_key=data.answer_key,
        template=data.template,
        system_prompt=data.system_prompt,
        reward=config.reward.name,
        validation_fraction=data.validation_fraction,
        temperature=config.rollout.temperature,
        top_p=config.rollout.top_p,
        max_tokens=config.rollout.max_completion_tokens,
    )
    for name in typed:
        section, _, key = name.partition(".")
        if section == "benchmark":
            setattr(made, key, getattr(before, key))
    config.benchmark = made


def splits(config: TrainConfig) -> bool:
    """Whether rows are split off; the bundled task has held-out problems of its own."""
    return bool(config.data.validation_fraction) and not str(config.data.path).startswith("bundled:")
