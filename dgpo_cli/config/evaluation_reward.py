"""Whose grader an evaluation uses: one rule for `dgpo eval` and for the evaluations of a training run.

`benchmark.reward` if it is typed; else a reward that is typed; else the benchmark's own. The choice is written into
`benchmark.reward`. So a run's config.yaml names it, and an evaluation of that run finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dgpo_cli.config.commands import EvalConfig, TrainConfig
from dgpo_cli.config.groups import RewardConfig
from dgpo_cli.errors import ConfigError

CHOOSES = ("reward", "reward.name", "reward.path")


def choose(config: EvalConfig | TrainConfig, typed: Mapping[str, Any]) -> None:
    """Set `benchmark.reward` by the rule above; in an evaluation `reward` becomes the grader itself.

    Raises:
        ConfigError: an evaluation is given two graders.
    """
    if isinstance(config, EvalConfig):
        _refuse_what_changes_nothing(config, typed)
    if typed_reward(typed) and "benchmark.reward" not in typed and config.benchmark.name is not None:
        for benchmark in (config.benchmark, *getattr(config, "other_benchmarks", ())):
            benchmark.reward = config.reward.name
    if isinstance(config, EvalConfig):
        config.reward = reward_of_evaluation(config)


def typed_reward(typed: Mapping[str, Any]) -> bool:
    """Whether a reward was chosen on the command line."""
    return any(name in typed for name in CHOOSES)


def reward_of_evaluation(config: EvalConfig | TrainConfig) -> RewardConfig:
    """The grader of an evaluation. A function's file is `reward.path`; the other graders have none."""
    if config.benchmark.reward == "function":
        return replace(config.reward, name="function")
    reward = config.reward
    return RewardConfig(name=config.benchmark.reward, timeout_seconds=reward.timeout_seconds, workers=reward.workers)


def _refuse_what_changes_nothing(config: EvalConfig, typed: Mapping[str, Any]) -> None:
    graders = (config.benchmark.reward, config.reward.name)
    if "benchmark.reward" in typed and typed_reward(typed) and graders[0] != graders[1]:
        raise ConfigError(
            f"benchmark.reward={graders[0]} and reward={graders[1]}: an evaluation is graded by one", "leave out either"
        )
